"""The memory in every Titans layer: projections, gates, MLPs (Behrouz et al. 2025, arXiv 2501.00663, §3).

It keeps nothing of a stream: what it learned is in the state it is given and gives back.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mnemic.cube.errors import MemoryDivergedError
from mnemic.layers.conv import begin_conv, causal_conv
from mnemic.layers.heads import counts_of, full_precision, split_heads
from mnemic.layers.titans_rule import Fast, Gates, Weights, descend, evaluate, factors, squared_norm
from mnemic.layers.titans_state import MemoryOptions, MemoryState, deviations, join_weights, rows
from mnemic.layers.titans_stream import Diverged, Grid, closed, require_within, stream

S = TypeVar("S", bound=MemoryState)
Gradient = Callable[[Weights, Tensor, Tensor], Weights]  # weights, key, value: `derived` or `explicit`


class LongTermMemory(nn.Module):
    """One MLP a head, trained while the sequence is read so that W(key) = value.

    Queries, keys and values are projections of x, convolved, through SiLU; queries and keys have unit
    length. Step, momentum and decay of each token and head are sigmoids of a projection of x.

    All gradients of a chunk are taken at the same weights, so for one key, told again and again, the steps of
    a chunk add up, and momentum takes them 1 / (1 - η) times: above a sum of 1 the memory oversteps further
    from chunk to chunk. `bounded` steps stay below it.
    """

    def __init__(self, options: MemoryOptions) -> None:
        super().__init__()
        self.options, self.heads = options, options.heads
        self.initial = nn.ParameterList(torch.empty(options.heads, *shape) for shape in options.shapes)
        self.qkv = nn.Linear(options.dim, 3 * options.dim, bias=False)
        self.conv = nn.Parameter(torch.empty(3 * options.dim, options.conv)) if options.conv else None
        self.step = nn.Linear(options.dim, options.heads)
        self.momentum = nn.Linear(options.dim, options.heads) if options.momentum else None
        self.decay = nn.Linear(options.dim, options.heads) if options.decay else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Weights of its own, as they begin; those of its modules reset themselves."""
        for weight, deviation in zip(self.initial, deviations(self.options.shapes), strict=True):
            nn.init.normal_(weight, std=deviation)
        if self.conv is not None:
            begin_conv(self.conv)
        most = self.options.chunk if self.options.bounded else 1
        small = min(0.27, 0.5 / self.options.chunk) * most  # a chunk begins with half of what it may move
        nn.init.constant_(self.step.bias, math.log(small / (1 - small)))
        for gate, bias in ((self.momentum, -2.0), (self.decay, -4.0)):  # near 0.12 and 0.02
            if gate is not None:
                nn.init.constant_(gate.bias, bias)

    def start(
        self, batch: int, *, dtype: torch.dtype, sums: torch.dtype, device: torch.device
    ) -> dict[str, Any]:
        """The fields of a MemoryState before any token, M_0 as learned. `sums`: the dtype of the weights."""
        weights = join_weights(tuple(self.initial)).to(device, sums).expand(batch, -1, -1).clone()
        return {
            "seen": torch.zeros(batch, dtype=torch.int32, device=device),
            "anchor": weights.clone(),
            "weights": weights,
            "surprise": torch.zeros_like(weights if self.options.momentum else weights[..., :0]),
            "tail": torch.zeros(batch, self.options.tail, 3 * self.options.dim, dtype=dtype, device=device),
        }

    def preface(self, state: S, tokens: Tensor | None) -> S:
        """The state after persistent tokens (n, dim): a chunk of their own, not counted as seen.

        Raises MemoryDivergedError.
        """
        if tokens is None:
            return state
        x = tokens.to(state.tail.device, state.tail.dtype).expand(state.batch, -1, -1)
        try:
            _, after = self.recall(x, state, ask=False)
        except Diverged as found:
            raise MemoryDivergedError(
                f"the persistent tokens alone make this memory diverge: {found}. Raise limit, or set clip",
                state=state.detach(),
                tokens=0,
            ) from found
        return replace(after, anchor=after.weights.clone()).owned()

    def recall(
        self, x: Tensor, state: S, valid: Tensor | None = None, *, ask: bool = True
    ) -> tuple[Tensor, S]:
        """M(q) of each token as it is written, (batch, heads, time, head_dim), and the next state.

        x, valid: as `MemoryLayer.chunked` has them. Without `ask` the first is empty. Raises `Diverged`.
        """
        options, counts = self.options, None if valid is None else counts_of(x, valid)
        queries, keys, values, gates, tail = self.project(x, state.tail, state.weights.dtype, counts)
        grid = Grid.of(state.seen, x.shape[1], options.chunk, valid)
        with full_precision(x.device):
            read, fast = stream(
                self._fast(state), keys, values, queries if ask else None, gates, grid=grid,
                reads=options.reads, clip=options.clip, limit=options.limit,
            )  # fmt: skip
        return (values[:, :, :0] if read is None else read), replace(state, tail=tail, **rows(fast))

    def recall_one(self, x: Tensor, state: S, gradient: Gradient) -> tuple[Tensor, S]:
        """The same for one token, x (batch, 1, dim), by the equations."""
        options = self.options
        query, key, value, gates, tail = self.project(x, state.tail, state.weights.dtype)
        with full_precision(x.device):
            before = self._fast(state)
            fast = descend(before, gradient(before.anchor, key, value), gates, clip=options.clip)
            require_within(options.limit, fast.weights)
            read = evaluate(before.anchor if options.reads == "chunk" else fast.weights, query)
            full = (state.seen + 1) % options.chunk == 0
            after = rows(closed(fast, full)) if bool(full.any()) else rows(fast) | {"anchor": state.anchor}
        return read, replace(state, tail=tail, **after)

    def rest(self, dtype: torch.dtype) -> Weights:
        """Where decay and forgetting lead, as `Fast` has it."""
        if self.options.decays_to == "zero":
            return ()
        return tuple(weight.to(dtype) for weight in self.initial)

    def _fast(self, state: MemoryState) -> Fast:
        rest = self.rest(state.weights.dtype) if self.options.decay else ()
        return state.fast(self.options.shapes, rest)

    def consult(self, x: Tensor, state: MemoryState) -> Tensor:
        """M(q) of each x (batch, time, dim) as if it came next, nothing written; shaped as `recall`."""
        times = x.shape[1]
        alone, tails = x.reshape(-1, 1, x.shape[2]), state.tail.repeat_interleave(times, 0)
        queries, *_ = self.project(alone, tails, state.weights.dtype)
        queries = queries.squeeze(2).unflatten(0, (-1, times)).transpose(1, 2)
        with full_precision(x.device):
            return evaluate(state.fast(self.options.shapes).weights, queries)

    def unexpected(self, x: Tensor, state: MemoryState) -> tuple[Tensor, Tensor]:
        """Loss and norm of the gradient of each token over all heads, (batch, time); nothing is written."""
        _, keys, values, _, _ = self.project(x, state.tail, state.weights.dtype)
        with full_precision(x.device):
            inputs, deltas = factors(state.fast(self.options.shapes).weights, keys, values)
        return deltas[-1].square().sum((1, -1)) / 4, squared_norm(inputs, deltas).sum(1).sqrt()

    def project(
        self, x: Tensor, tail: Tensor, dtype: torch.dtype, counts: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor, Gates, Tensor]:
        """Queries, keys, values (batch, heads, time, head_dim) and gates in `dtype`; the next tail."""
        mixed = self.qkv(x)
        if self.conv is not None:
            mixed, tail = causal_conv(mixed, self.conv, tail, counts)
        q, k, v = (split_heads(part, self.heads) for part in F.silu(mixed.to(dtype)).chunk(3, -1))
        return F.normalize(q, dim=-1), F.normalize(k, dim=-1), v, self._gates(x, dtype), tail

    def _gates(self, x: Tensor, dtype: torch.dtype) -> Gates:
        def opened(gate: nn.Linear) -> Tensor:
            numbers: Tensor = gate(x)
            return numbers.to(dtype).sigmoid().transpose(1, 2)

        step = opened(self.step)
        momentum = None if self.momentum is None else opened(self.momentum)
        if self.options.bounded:
            step = step / self.options.chunk
            step = step if momentum is None else step * (1 - momentum)
        return Gates(step, momentum, torch.zeros_like(step) if self.decay is None else opened(self.decay))
