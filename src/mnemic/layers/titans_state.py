"""What a neural memory is told, what it keeps, and how much that is."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Literal, Self, TypeVar

import torch
from torch import Tensor, nn

from mnemic.cube.errors import InvalidInput, InvalidOption
from mnemic.layers.heads import COUNTER_BYTES, accumulator_bytes
from mnemic.layers.options import LayerOptions, option, require_divisible
from mnemic.layers.state import LayerState
from mnemic.layers.titans_rule import Fast, Weights
from mnemic.layers.titans_stream import Reads


@dataclass(frozen=True, kw_only=True)
class MemoryOptions(LayerOptions):
    """What all Titans layers share (§3.1: depth, momentum, decay; §3.2: chunk; §3.3: persistent; §4.4: conv).

    The paper does not give heads, hidden width, chunk length or the number of persistent tokens; these are
    ours.
    """

    heads: int = 1
    """One MLP each, dim // heads wide. One a 64 dims is common."""
    depth: int = 2
    """Layers of the MLP. 1 is a matrix: the delta rule with momentum and decay."""
    hidden: int | None = None
    """Width between the MLP's layers; 4 · dim // heads unless given."""
    chunk: int = 64
    """Tokens whose gradients are taken at the same weights. Longer: faster, coarser, other results."""
    bounded: bool = True
    """Steps are at most (1 - momentum) / chunk, so that no chunk oversteps, whatever training makes of the
    gates; False: at most 1, as published."""
    momentum: bool = True
    decay: bool = True
    decays_to: Literal["start", "zero"] = "start"
    """Decay leads back to the first weights, or (the paper) to zero, which a deep memory never leaves."""
    reads: Reads = "token"
    """Reads see the weights after this very token, or ("chunk") those its chunk began with."""
    conv: int = option(4, low=0)
    """Tokens that the causal convolution of queries, keys and values sees; 0 leaves it out."""
    persistent: int = option(4, low=0)
    """Learned tokens that stand before every sequence."""
    clip: float | None = None
    """The largest norm of one token's gradient."""
    limit: float = option(1e4, meaning=False)
    """The largest norm of a head's weights; beyond it, or when they are not finite, MemoryDivergedError."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_divisible(dim=self.dim, heads=self.heads)
        for name, value in (("clip", self.clip), ("limit", self.limit)):
            if value is not None and value <= 0:
                raise InvalidOption(f"{name} must be a number above 0, got {value}")

    @property
    def head_dim(self) -> int:
        return self.dim // self.heads

    @property
    def tail(self) -> int:
        """Tokens before the present one that the convolution sees."""
        return max(self.conv - 1, 0)

    @property
    def shapes(self) -> tuple[tuple[int, int], ...]:
        """(d_in, d_out) of each of the MLP's layers."""
        return mlp_shapes(self.head_dim, self.hidden or 4 * self.head_dim, self.head_dim, self.depth)

    def state_bytes(self, tokens: int, *, batch: int = 1, element_bytes: int = 4) -> int:
        weights = (2 + self.momentum) * self.heads * mlp_size(self.shapes) * accumulator_bytes(element_bytes)
        return batch * (weights + 3 * self.dim * self.tail * element_bytes + COUNTER_BYTES)


@dataclass(frozen=True, kw_only=True)
class WeightState(LayerState):
    """The memory of each head, all layers of its MLP in one row: (batch, heads, numbers), float32 or float64.

    `weights` is M, what reads see; `anchor` M at the start of the present chunk, where gradients are taken;
    `surprise` what momentum carries, of no size without it.
    """

    anchor: Tensor
    weights: Tensor
    surprise: Tensor

    def distance(self, other: Self) -> Tensor:
        """How far the weights are from another state's: the norm of the difference, (batch, heads)."""
        apart: Tensor = torch.linalg.vector_norm(self.weights - other.weights, dim=-1)
        return apart

    def fast(self, shapes: tuple[tuple[int, int], ...], rest: Weights = ()) -> Fast:
        """As the MLP's weights, each (batch, heads, d_in, d_out); `rest` as `Fast` has it."""
        surprise = self.surprise.shape[-1] > 0
        return Fast(
            split_weights(self.anchor, shapes),
            split_weights(self.weights, shapes),
            split_weights(self.surprise, shapes) if surprise else (),
            rest,
        )


@dataclass(frozen=True, kw_only=True)
class MemoryState(WeightState):
    """`tail` (batch, conv - 1, 3 · dim): what the convolution still sees, newest last."""

    tail: Tensor


S = TypeVar("S", bound=WeightState)


def rows(fast: Fast) -> dict[str, Any]:
    """The inverse of `WeightState.fast`: its three tensors by name, none sharing memory with another."""
    anchor, weights = join_weights(fast.anchor), join_weights(fast.weights)
    empty = weights.new_zeros(*weights.shape[:-1], 0)
    return {
        "anchor": anchor,
        "weights": weights,
        "surprise": join_weights(fast.surprise) if fast.surprise else empty,
    }


def mlp_shapes(inner: int, hidden: int, outer: int, depth: int) -> tuple[tuple[int, int], ...]:
    widths = [inner, *[hidden] * (depth - 1), outer]
    return tuple(pairwise(widths))


def mlp_size(shapes: tuple[tuple[int, int], ...]) -> int:
    return sum(inner * outer for inner, outer in shapes)


def split_weights(row: Tensor, shapes: tuple[tuple[int, int], ...]) -> Weights:
    parts = row.split([inner * outer for inner, outer in shapes], -1)
    return tuple(part.unflatten(-1, shape) for part, shape in zip(parts, shapes, strict=True))


def join_weights(weights: Weights) -> Tensor:
    return torch.cat([weight.flatten(-2) for weight in weights], -1)


def deviations(shapes: tuple[tuple[int, int], ...]) -> list[float]:
    """Standard deviations of M_0, layer by layer: 1 / √d_in, the last a tenth of it.

    Random, as zeros would give a deep memory no gradient; small at the end, so that what is written is soon
    heard above it.
    """
    found = [inner**-0.5 for inner, _ in shapes]
    return [*found[:-1], 0.1 * found[-1]]


def forgetful(state: S, part: float, rest: Tensor) -> S:
    """A part of the way back to `rest`, the row decay leads to; momentum times 1 - part.

    Raises InvalidInput unless 0 <= part <= 1.
    """
    if isinstance(part, bool) or not isinstance(part, int | float) or not 0 <= part <= 1:
        raise InvalidInput(f"the part to forget is between 0 (nothing) and 1 (all), got {part!r:.80}")
    keep = 1 - part
    return replace(
        state,
        anchor=torch.lerp(rest.expand_as(state.anchor), state.anchor, keep),
        weights=torch.lerp(rest.expand_as(state.weights), state.weights, keep),
        surprise=keep * state.surprise,
    )


def persistent_tokens(options: MemoryOptions) -> nn.Parameter | None:
    """Learned tokens that stand before every sequence, (persistent, dim); None where there are none."""
    return nn.Parameter(torch.empty(options.persistent, options.dim)) if options.persistent else None


def reset_persistent(tokens: nn.Parameter | None) -> None:
    """As they begin: like normed tokens."""
    if tokens is not None:
        nn.init.normal_(tokens)
