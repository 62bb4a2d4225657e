"""The recurrences of linear memories, in chunks: quadratic inside a chunk, a state carried across.

Shapes: q, k (batch, heads, time, key); v (batch, heads, time, value); state (batch, heads, key, value). A
log decay is <= 0, (batch, heads, time) for all channels or (batch, heads, time, key) for each. All are
O(time · chunk) and equal the loop over tokens that each docstring states. Decays are differences of
cumulative logarithms, masked before exp, never ratios of products: those underflow (Yang et al. 2023, §4.2).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad


def additive(
    q: Tensor, k: Tensor, v: Tensor, state: Tensor, *, log_decay: Tensor | None = None, chunk: int = 64
) -> tuple[Tensor, Tensor]:
    """S = exp(g) S + kᵀ v; o = q S (Katharopoulos et al. 2020; Sun et al. 2023; Yang et al. 2023)."""
    time = q.shape[2]
    if log_decay is None:
        q, k, v = (in_chunks(x, chunk) for x in (q, k, v))
        inside = (q @ k.mT).tril() @ v
        before, state = carry(k.mT @ v, state)
        return whole(inside + q @ before, time), state
    by_channel = log_decay.dim() == 4
    q, k, v, log_decay = (
        in_chunks(x, chunk) for x in (q, k, v, log_decay if by_channel else log_decay[..., None])
    )
    total = log_decay.cumsum(-2)  # (batch, heads, chunks, chunk, key or 1)
    last = total[..., -1:, :]
    inside = _by_channel(q, k, v, total) if by_channel else ((q @ k.mT) * decays(total[..., 0])) @ v
    before, state = carry((k * (last - total).exp()).mT @ v, state, last.exp().mT)
    return whole(inside + (q * total.exp()) @ before, time), state


def delta(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    beta: Tensor,
    state: Tensor,
    *,
    log_decay: Tensor | None = None,
    chunk: int = 64,
) -> tuple[Tensor, Tensor]:
    """S = exp(g) S; S = S + β kᵀ (v - k S); o = q S. beta (batch, heads, time).

    The values that a chunk writes depend on one another through a unit lower triangular system, solved at
    once (Yang et al. 2024, §3.2; with decay: Yang, Kautz, Hatamizadeh 2024, §3.3).
    """
    time = q.shape[2]
    q, k, v, beta = (in_chunks(x, chunk) for x in (q, k, v, beta[..., None]))
    total = torch.zeros_like(beta) if log_decay is None else in_chunks(log_decay[..., None], chunk).cumsum(-2)
    fading = decays(total[..., 0])
    entangled = (beta * (k @ k.mT) * fading).tril(-1)
    written, read = torch.linalg.solve_triangular(
        entangled, torch.cat([beta * v, beta * total.exp() * k], -1), upper=False, unitriangular=True
    ).split([v.shape[-1], k.shape[-1]], -1)
    scores, last = (q @ k.mT) * fading, total[..., -1:, :]
    asked, kept, fade = q * total.exp(), (k * (last - total).exp()).mT, last.exp()
    outputs = []
    for n in range(q.shape[2]):
        values = written[:, :, n] - read[:, :, n] @ state
        outputs.append(asked[:, :, n] @ state + scores[:, :, n] @ values)
        state = fade[:, :, n] * state + kept[:, :, n] @ values
    return whole(torch.stack(outputs, 2), time), state


def in_chunks(x: Tensor, chunk: int) -> Tensor:
    """(batch, heads, time, size) to (batch, heads, chunks, chunk, size), zeros behind the end.

    A zero key, value, beta or log decay writes nothing and fades nothing.
    """
    time = x.shape[2]
    chunk = min(chunk, time)
    missing = -time % chunk
    padded = pad(x, (0, 0, 0, missing)) if missing else x
    return padded.reshape(*x.shape[:2], -1, chunk, x.shape[3])


def whole(x: Tensor, time: int) -> Tensor:
    """The inverse of in_chunks."""
    return x.flatten(2, 3)[:, :, :time]


def carry(updates: Tensor, state: Tensor, fade: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The state before each chunk and after the last. updates (batch, heads, chunks, key, value)."""
    if fade is None:
        sums = updates.cumsum(2) + state.unsqueeze(2)
        return torch.cat([state.unsqueeze(2), sums[:, :, :-1]], 2), sums[:, :, -1]
    before = []
    for update, factor in zip(updates.unbind(2), fade.unbind(2), strict=True):
        before.append(state)
        state = factor * state + update
    return torch.stack(before, 2), state


def decays(total: Tensor) -> Tensor:
    """exp(total_t - total_s) for s <= t, else 0: (…, chunk) to (…, chunk, chunk)."""
    difference = total.unsqueeze(-1) - total.unsqueeze(-2)
    future = torch.ones_like(difference, dtype=torch.bool).triu(1)
    return difference.masked_fill(future, -torch.inf).exp()


def _by_channel(q: Tensor, k: Tensor, v: Tensor, total: Tensor) -> Tensor:
    """Σ_s≤t Σ_d q_td k_sd exp(total_td - total_sd) v_s within a chunk, by halves. O(chunk · log chunk · key).

    The second half of a block reads the first through the edge between them: exp(total_t - edge) and
    exp(edge - total_s) are both at most 1, so that products stand for their ratio without overflow. Then
    either half is a block of its own. The table of all decays, chunk² · key numbers, is never made.
    """
    time = q.shape[-2]
    size = 1 << (time - 1).bit_length()
    if size > time:
        q, k, v = (pad(x, (0, 0, 0, size - time)) for x in (q, k, v))
        total = torch.cat([total, total[..., -1:, :].expand(*total.shape[:-2], size - time, -1)], -2)
    out = (q * k).sum(-1, keepdim=True) * v
    for level in range(size.bit_length() - 1):
        halves = (-1, 2, 1 << level)
        (_, asked), (keys, _), (values, _), (early, late) = (
            x.unflatten(-2, halves).unbind(-3) for x in (q, k, v, total)
        )
        edge = early[..., -1:, :]
        scores = (asked * (late - edge).exp()) @ (keys * (edge - early).exp()).mT
        read = scores @ values
        out = out + torch.stack([torch.zeros_like(read), read], -3).flatten(-4, -2)
    return out[..., :time, :]
