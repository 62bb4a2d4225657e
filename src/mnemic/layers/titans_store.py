"""Titans' memory without training: keys and values in, values out, gates set by hand (§3.1).

For a stream of embeddings with no language model around it. Give keys of unit length: a matrix (`depth=1`)
written token by token is then stable for every step below 1, and a step of 0.5 is the delta rule, which
replaces what a key was bound to.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor, nn

from mnemic.cube.errors import InvalidInput, InvalidOption, MemoryDivergedError
from mnemic.layers.heads import COUNTER_BYTES, accumulator_bytes, full_precision
from mnemic.layers.options import LayerOptions, option
from mnemic.layers.state import LayerSpec, require_batch
from mnemic.layers.titans_rule import Gates, evaluate, factors, squared_norm
from mnemic.layers.titans_state import (
    WeightState,
    deviations,
    forgetful,
    join_weights,
    mlp_shapes,
    mlp_size,
    rows,
    split_weights,
)
from mnemic.layers.titans_stream import Diverged, Grid, stream


@dataclass(frozen=True, kw_only=True)
class StoreOptions(LayerOptions):
    """Widths: `dim` of keys, `value_dim` of values (dim unless given), `hidden` between layers (4 · dim).

    `step`, `momentum` and `decay` are θ, η and α for every token. `chunk` tokens share the weights their
    gradients are taken at: 1 is exact and slow; with more, the sum of the steps of a chunk along any one
    key must stay below 1.
    """

    value_dim: int | None = None
    depth: int = 1
    hidden: int | None = None
    chunk: int = 1
    step: float = option(0.5, low=0.0)
    momentum: float = option(0.0, low=0.0, high=1.0)
    decay: float = option(0.0, low=0.0, high=1.0)
    clip: float | None = None
    limit: float = option(1e4, meaning=False)
    seed: int = option(0, low=0)

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("step", "clip", "limit"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise InvalidOption(f"{name} must be a number above 0, got {value}")

    @property
    def value_size(self) -> int:
        return self.value_dim or self.dim

    @property
    def shapes(self) -> tuple[tuple[int, int], ...]:
        """(d_in, d_out) of each of the MLP's layers."""
        return mlp_shapes(self.dim, self.hidden or 4 * self.dim, self.value_size, self.depth)

    def state_bytes(self, tokens: int, *, batch: int = 1, element_bytes: int = 4) -> int:
        momentum = self.momentum > 0
        return batch * (
            (2 + momentum) * mlp_size(self.shapes) * accumulator_bytes(element_bytes) + COUNTER_BYTES
        )


class Surprise(NamedTuple):
    """How little each token was expected, (batch, time) each."""

    loss: Tensor  # |W(k) - v|²
    gradient: Tensor  # the norm of its gradient: how hard it would move the weights


class AssociativeMemory(nn.Module):
    """Binds keys to values in an MLP's weights, one gradient step a token. Constant size; O(|W|) a token.

    A matrix begins as zeros, so that an empty memory says nothing; a deeper MLP as random numbers of `seed`.
    """

    initial: Tensor

    def __init__(self, options: StoreOptions) -> None:
        super().__init__()
        self.options = options
        self.spec = LayerSpec(layer="titans-store", version=1, options=options.meaning())
        if options.depth == 1:
            row = torch.zeros(1, mlp_size(options.shapes))
        else:
            draws, scales = torch.Generator().manual_seed(options.seed), deviations(options.shapes)
            pairs = zip(options.shapes, scales, strict=True)
            row = join_weights(
                tuple(scale * torch.randn(1, *shape, generator=draws) for shape, scale in pairs)
            )
        self.register_buffer("initial", row)

    def init_state(self, batch: int = 1) -> WeightState:
        """The state before anything is written."""
        row = self.initial.expand(batch, -1, -1)
        return WeightState(
            spec=self.spec,
            seen=torch.zeros(batch, dtype=torch.int32, device=row.device),
            anchor=row.clone(),
            weights=row.clone(),
            surprise=torch.zeros_like(row[..., :0] if self.options.momentum == 0 else row),
        )

    def write(self, state: WeightState, keys: Tensor, values: Tensor) -> WeightState:
        """The state after these pairs, in order. keys (batch, time, dim), values (batch, time, value_dim).

        Raises InvalidInput, IncompatibleMemory, and MemoryDivergedError with the last state that was well.
        """
        self._require(state, keys=keys, values=values)
        if keys.shape[1] == 0:
            raise InvalidInput("there is nothing to write: keys and values have no tokens")
        options, sums = self.options, state.weights.dtype
        keys, values = keys.to(sums).unsqueeze(1), values.to(sums).unsqueeze(1)
        ones = torch.ones_like(keys[..., 0])
        momentum = None if options.momentum == 0 else options.momentum * ones
        gates = Gates(options.step * ones, momentum, options.decay * ones)
        grid = Grid.of(state.seen, keys.shape[2], options.chunk)
        deep = (
            options.depth > 1 and options.decay > 0
        )  # decay leads back to the first weights: a matrix's are 0
        rest = split_weights(self.initial.to(sums), options.shapes) if deep else ()
        try:
            with full_precision(keys.device):
                _, fast = stream(
                    state.fast(options.shapes, rest), keys, values, None, gates, grid=grid, clip=options.clip,
                    limit=options.limit,
                )  # fmt: skip
        except Diverged as found:
            good = state
            if found.tokens:
                good = self.write(state, keys[:, 0, : found.tokens], values[:, 0, : found.tokens])
            raise MemoryDivergedError(
                f"the memory diverged: {found}, after {found.tokens} of {keys.shape[2]} pairs that were "
                "well. `.state` of this error is the state after those. Keys of unit length, a smaller "
                "step, less momentum or clip=… keep it stable",
                state=good,
                tokens=found.tokens,
            ) from found
        return replace(state, seen=state.seen + keys.shape[2], **rows(fast))

    def read(self, state: WeightState, queries: Tensor) -> Tensor:
        """W(q) for queries (batch, time, dim), nothing written. -> (batch, time, value_dim)."""
        self._require(state, keys=queries)
        weights = state.fast(self.options.shapes).weights
        return evaluate(weights, queries.to(state.weights.dtype).unsqueeze(1)).squeeze(1)

    def surprise(self, state: WeightState, keys: Tensor, values: Tensor) -> Surprise:
        """How little the memory expects these pairs, each by itself; nothing is written."""
        self._require(state, keys=keys, values=values)
        sums = state.weights.dtype
        weights = state.fast(self.options.shapes).weights
        inputs, deltas = factors(weights, keys.to(sums).unsqueeze(1), values.to(sums).unsqueeze(1))
        return Surprise(deltas[-1].square().sum((1, -1)) / 4, squared_norm(inputs, deltas).squeeze(1).sqrt())

    def forget(self, state: WeightState, part: float) -> WeightState:
        """A part of the way back to the first weights. Raises InvalidInput unless 0 <= part <= 1."""
        self.spec.require(state.spec)
        return forgetful(state, part, self.initial.to(state.weights.dtype))

    def _require(self, state: WeightState, **given: Tensor) -> None:
        self.spec.require(state.spec)
        widths = {"keys": self.options.dim, "values": self.options.value_size}
        for name, x in given.items():
            if x.dim() != 3 or x.shape[-1] != widths[name] or not x.is_floating_point():
                raise InvalidInput(
                    f"{name} are floating-point numbers (batch, time, {widths[name]}), got "
                    f"{x.dtype} {tuple(x.shape)}"
                )
            if not bool(torch.isfinite(x).all()):
                raise InvalidInput(f"{name} hold NaN or infinity; nothing was written")
            require_batch(state, x.shape[0])
        if len({x.shape[1] for x in given.values()}) > 1:
            raise InvalidInput("there must be as many values as keys, one for each")
