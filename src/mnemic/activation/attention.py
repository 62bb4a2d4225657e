"""Attention in parts: each part of a cache attends on its own, and the parts are merged exactly.

Knows nothing of caches or policies. Rows r are (sequence, head) pairs; G query heads share a row's keys, and
their m queries lie beside each other: q is (r, G·m, D).
"""

from __future__ import annotations

import torch
from torch import Tensor

Part = tuple[Tensor, Tensor, Tensor]
"""out (r, m, Dv) normalised; peak (r, m) float32; total (r, m) float32: the sum of exp(score - peak)."""

_FUSED = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu.default


def attend(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, scale: float) -> Part:
    """One part: q (r, m, D), k (r, n, D), v (r, n, Dv), bias (r, m, n) float32, added to the scores, or None.

    O(r·m·n·D). The fused kernel where it is exact for these arguments (CPU, no bias, D = Dv), else
    `attend_definition`.
    """
    if k.shape[1] == 0:
        return empty_part(q, v.shape[-1])
    if bias is None and q.device.type == "cpu" and k.shape[-1] == v.shape[-1] and q.dtype != torch.float16:
        out, logsumexp = _FUSED(q[None], k[None], v[None], scale=scale)
        return out[0], logsumexp[0], torch.ones_like(logsumexp[0])
    return attend_definition(q, k, v, bias, scale)


def attend_definition(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, scale: float) -> Part:
    """What `attend` means: scores, their peak and the sum of exponentials in float32, whatever is stored."""
    scores = q.float() @ k.float().mT * scale
    if bias is not None:
        scores = scores + bias
    peak = scores.amax(-1)
    weights = torch.exp(scores - peak.masked_fill(peak.isinf(), 0.0)[..., None])  # a hidden row gives zeros
    total = weights.sum(-1)
    out = weights @ v.float() / total.clamp_min(1e-38)[..., None]
    return out.to(v.dtype), peak, total


def empty_part(q: Tensor, value_dim: int) -> Part:
    """The part of no tokens, which changes nothing it is merged with."""
    rows, queries = q.shape[:2]
    return (
        q.new_zeros(rows, queries, value_dim),
        torch.full((rows, queries), -torch.inf, device=q.device),
        torch.zeros(rows, queries, device=q.device),
    )


def merge_attention(*parts: Part) -> Part:
    """Attention over all tokens of the parts together; associative and commutative up to float32 rounding.

    All parts have the same rows and queries. A part without tokens (peak -inf, total 0) is the identity.
    """
    if len(parts) == 1:
        return parts[0]
    peaks = torch.stack([peak for _, peak, _ in parts])
    peak = peaks.amax(0)
    weights = torch.exp(peaks - peak.masked_fill(peak.isinf(), 0.0)) * torch.stack([t for _, _, t in parts])
    total = weights.sum(0)
    shares = weights / total.clamp_min(1e-38)
    out = sum(part[0].float() * share[..., None] for part, share in zip(parts, shares, strict=True))
    assert isinstance(out, Tensor)  # noqa: S101  # the sum of at least two tensors
    return out.to(parts[0][0].dtype), peak, total


def group_rows(apart: Tensor, aggregate: str) -> Tensor:
    """(…, G, m, n) to (…, m, n): the largest weight, or the mean, over the query heads that share keys."""
    return apart.amax(-3) if aggregate == "max" else apart.mean(-3)
