"""The mathematics of Titans' neural memory (Behrouz et al. 2025, arXiv 2501.00663, §3.1-3.2).

The memory is an MLP whose weights are written by gradient descent while a sequence is read. Token t brings
a key, a value and three gates in [0, 1]: step θ, momentum η, decay α.

    loss      l(W; k, v) = |W(k) - v|²            summed over features, as in the paper
    surprise  S_t = η_t S_{t-1} - θ_t ∇l(A; k_t, v_t)
    weights   M_t = R + (1 - α_t) (M_{t-1} - R) + S_t
    read      y_t = M_t(q_t)

R is where decay leads: zero in the paper. An MLP of several layers that has come to zero has no gradient
and never learns again, so it should be the weights the memory began with.

A is the *anchor*: the weights at the start of the chunk that t is in (with chunks of one token, M_{t-1}).
`derived`, `descend` and `evaluate` are this, token by token. `scan`, `steps`, `read` and `advance` are the
same for b tokens at once: every token's gradient is an outer product of what came into a layer and what
came back to it, so M_t is never formed for any t but the chunk's last, and a read costs what linear
attention costs.

Shapes: `...` is (batch, heads) or anything else that leads; b tokens; a weight is (..., d_in, d_out).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

Weights = tuple[Tensor, ...]


class Fast(NamedTuple):
    """What is carried from token to token. One tensor a layer of the MLP, each (..., d_in, d_out)."""

    anchor: Weights  # the weights at the start of the chunk: gradients are taken here
    weights: Weights  # M_t
    surprise: Weights  # S_t; () if there is no momentum
    rest: Weights = ()  # R, to be broadcast; () is zero


class Gates(NamedTuple):
    """One number a token, each (..., b)."""

    step: Tensor  # θ
    momentum: Tensor | None  # η; None: past surprise is not carried, and no S is kept
    decay: Tensor  # α


class Carried(NamedTuple):
    """Of the surprise S carried in: M_t gains lent_t S, and S_last = held S + Σ_s pending_s step_s."""

    lent: Tensor  # (..., b)
    held: Tensor  # (...,)
    pending: Tensor  # (..., b)


class Scan(NamedTuple):
    """Both recurrences solved for b tokens: M_t = kept_t M + lent_t S + Σ_s written_ts step_s."""

    kept: Tensor  # (..., b)
    written: Tensor  # (..., b, b), lower triangular
    surprise: Carried | None  # None without momentum


class Steps(NamedTuple):
    """The steps of b tokens, in factors: in layer l, token s moves the weights by inputs_ls ⊗ moves_ls."""

    inputs: Weights  # (..., b, d_in) for each layer
    moves: Weights  # (..., b, d_out) for each layer; the size and the sign of the step are in it


def evaluate(weights: Weights, x: Tensor) -> Tensor:
    """W(x) of the MLP: SiLU between layers, no biases. x: (..., b, d_in) -> (..., b, d_out)."""
    for weight in weights[:-1]:
        x = F.silu(x @ weight)
    return x @ weights[-1]


def loss(weights: Weights, keys: Tensor, values: Tensor) -> Tensor:
    """|W(k) - v|² of each token. (..., b, d) -> (..., b)."""
    return (evaluate(weights, keys) - values).square().sum(-1)


def derived(weights: Weights, key: Tensor, value: Tensor) -> Weights:
    """∇l of one token, key (..., 1, d_in), by automatic differentiation: not in inference mode."""
    found: Weights = torch.func.grad(lambda at: loss(at, key, value).sum())(weights)
    return found


def explicit(weights: Weights, key: Tensor, value: Tensor) -> Weights:
    """The same in closed form, where `derived` costs more or cannot go."""
    return tuple(into.mT @ back for into, back in zip(*factors(weights, key, value), strict=True))


def descend(fast: Fast, grad: Weights, gates: Gates, *, clip: float | None = None) -> Fast:
    """One token, given its ∇l at the anchor; gates (..., 1). `clip` bounds the norm of ∇l over all layers."""
    if clip is not None:  # the clamp before the root keeps the derivative finite where the gradient is 0
        square = torch.stack([part.square().sum((-2, -1), keepdim=True) for part in grad]).sum(0)
        grad = tuple(part * (clip / square.clamp(min=clip**2).sqrt()) for part in grad)
    step, keep = gates.step[..., None], 1 - gates.decay[..., None]
    surprise = tuple(-step * part for part in grad)
    if gates.momentum is not None:
        momentum = gates.momentum[..., None]
        pairs = zip(surprise, fast.surprise, strict=True)
        surprise = tuple(torch.addcmul(new, momentum, old) for new, old in pairs)
    left = tuple(faded(fast, layer, keep) for layer in range(len(fast.weights)))
    weights = tuple(new + old for new, old in zip(surprise, left, strict=True))
    return fast._replace(weights=weights, surprise=surprise if gates.momentum is not None else ())


def faded(fast: Fast, layer: int, keep: Tensor) -> Tensor:
    """R + keep (M - R) of one layer."""
    if not fast.rest:
        return keep * fast.weights[layer]
    return torch.lerp(fast.rest[layer], fast.weights[layer], keep)


class Products(torch.autograd.Function):
    """p[t, s] = factors[s+1] ··· factors[t], 1 on the diagonal and 0 above it. (..., b) -> (..., b, b).

    Each is multiplied by itself: there is no ratio of products that could underflow, and no logarithm of a
    gate that is exactly 0. Neither has the derivative: dp[t, s] / df[r] = p[t, r] p[r-1, s].
    """

    @staticmethod
    def forward(ctx: Any, factors: Tensor) -> Tensor:
        size = factors.shape[-1]
        later = torch.ones(size, size, dtype=torch.bool, device=factors.device).tril(-1)
        found = torch.where(later, factors[..., :, None], 1).cumprod(-2).tril()
        ctx.save_for_backward(found)
        return found

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        (found,) = ctx.saved_tensors
        along = (found.mT @ grads[0])[..., 1:, :]
        return F.pad((along * found[..., :-1, :]).sum(-1), (1, 0))


def products(factors: Tensor) -> Tensor:
    """`Products`, typed. (..., b) -> (..., b, b)."""
    found: Tensor = Products.apply(factors)  # type: ignore[no-untyped-call]
    return found


def scan(momentum: Tensor | None, decay: Tensor, valid: Tensor | None = None) -> Scan:
    """Solve both recurrences for b tokens from their gates, (..., b). O(b³), whatever the weights' size.

    Tokens that are not `valid` (bool, broadcast to (..., b)) neither write nor decay, nor lend surprise to
    the weights.
    """
    keep = 1 - decay
    if valid is not None:
        keep = torch.where(valid, keep, 1)
        momentum = None if momentum is None else torch.where(valid, momentum, 1)
    weights = products(keep)  # from the surprise of s to the weights of t
    kept = weights[..., :, 0] * keep[..., :1]
    if valid is not None:
        weights = weights * valid[..., None, :]
    if momentum is None:
        return Scan(kept, weights, None)
    surprise = products(momentum)  # from the step of s to the surprise of t
    held = surprise[..., :, 0] * momentum[..., :1]
    if valid is not None:
        surprise = surprise * valid[..., None, :]
    lent = (weights @ held[..., None]).squeeze(-1)
    return Scan(kept, weights @ surprise, Carried(lent, held[..., -1], surprise[..., -1, :]))


def factors(weights: Weights, keys: Tensor, values: Tensor) -> tuple[Weights, Weights]:
    """∇l of b tokens at the same weights, in factors: token s's in layer l is inputs_ls ⊗ deltas_ls.

    Back-propagation through an MLP without biases, in closed form, so that it runs in inference mode and
    can be differentiated again like any other arithmetic.
    """
    inputs, slopes = [keys], []
    for weight in weights[:-1]:
        into = inputs[-1] @ weight
        gate = into.sigmoid()
        out = into * gate
        inputs.append(out)
        slopes.append(gate + out * (1 - gate))  # the derivative of SiLU
    deltas = [2 * (inputs[-1] @ weights[-1] - values)]  # of the squared norm, hence the 2
    for weight, slope in zip(reversed(weights[1:]), reversed(slopes), strict=True):
        deltas.append((deltas[-1] @ weight.mT) * slope)
    return tuple(inputs), tuple(reversed(deltas))


def squared_norm(inputs: Weights, deltas: Weights) -> Tensor:
    """|∇l|² over all layers of each token. -> (..., b)."""
    parts = (a.square().sum(-1) * b.square().sum(-1) for a, b in zip(inputs, deltas, strict=True))
    return torch.stack(list(parts)).sum(0)


def steps(
    weights: Weights, keys: Tensor, values: Tensor, step: Tensor, *, clip: float | None = None
) -> Steps:
    """The gradient steps of b tokens, of size `step` (..., b); `clip` bounds the norm of each gradient."""
    inputs, deltas = factors(weights, keys, values)
    if clip is not None:
        step = step * (clip / squared_norm(inputs, deltas).clamp(min=clip**2).sqrt())
    return Steps(inputs, tuple(-step[..., None] * delta for delta in deltas))


def read(fast: Fast, queries: Tensor, scan: Scan, steps: Steps) -> Tensor:
    """M_t(q_t) of b tokens, without forming M_t: (..., b, d_in) -> (..., b, d_out). O(b |W| + b² d)."""
    x = queries
    for layer, weight in enumerate(fast.weights):
        inputs, moves = steps.inputs[layer], steps.moves[layer]
        kept = scan.kept[..., None]
        out = kept * (x @ weight)
        if fast.rest:
            out = out + (1 - kept) * (x @ fast.rest[layer])
        if scan.surprise is not None:
            out = out + scan.surprise.lent[..., None] * (x @ fast.surprise[layer])
        out = out + (scan.written * (x @ inputs.mT)) @ moves
        x = F.silu(out) if layer < len(fast.weights) - 1 else out
    return x


def advance(fast: Fast, scan: Scan, steps: Steps) -> Fast:
    """The weights and the surprise after the last of b tokens. O(b |W|)."""
    kept, written = scan.kept[..., -1, None, None], scan.written[..., -1, :, None]
    weights, surprise = [], []
    for layer, (inputs, moves) in enumerate(zip(steps.inputs, steps.moves, strict=True)):
        new = faded(fast, layer, kept) + inputs.mT @ (written * moves)
        if scan.surprise is not None:
            lent, held, pending = scan.surprise
            old = fast.surprise[layer]
            new = torch.addcmul(new, lent[..., -1, None, None], old)
            later = inputs.mT @ (pending[..., None] * moves)
            surprise.append(torch.addcmul(later, held[..., None, None], old))
        weights.append(new)
    return fast._replace(weights=tuple(weights), surprise=tuple(surprise))
