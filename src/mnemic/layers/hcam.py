"""HCAM: hierarchical chunk attention memory (Lampinen et al. 2021, arXiv 2105.14039).

The past is kept in chunks. A token judges every chunk by its summary, then looks inside the few that matter
as if it were there again. What lies between costs it nothing but the summaries.

Ours: a token reads what was there before it, and then is written; no linear map has a bias, so that an empty
memory says exactly zero; invalid chunks are left out, never given weight.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import cache
from typing import Any, ClassVar, Final, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from mnemic.cube.errors import InvalidInput
from mnemic.layers.hcam_state import HCAMOptions, HCAMState, Tape, record, store
from mnemic.layers.heads import counts_of, full_precision
from mnemic.layers.layer import MemoryLayer

GATHERED: Final = 2**24  # numbers of chunks' contents that are copied out at once


class Recall(NamedTuple):
    """What was read, and where: q queries of each row, k chunks each, best first.

    `output` (batch, q, dim), zero where there was nothing to read; `chunks` int64 (batch, q, k): numbers of
    the chunks in their stream, -1 for none; `weights` (batch, q, k): their sum is 1, or 0 where there was
    nothing; `attention` (batch, q, k, heads, chunk): inside each chunk, zero at what it does not hold; of the
    unfinished chunk the last place is the newest.
    """

    output: Tensor
    chunks: Tensor
    weights: Tensor
    attention: Tensor

    @property
    def empty(self) -> Tensor:
        """bool (batch, q): queries for which there was nothing to read."""
        return (self.chunks < 0).all(-1)


class HCAM(MemoryLayer[HCAMState]):
    """o = Σ_j w_j attention(x, chunk j) over the topk chunks by x · summary. State: tokens · dim, to a limit.

    w is the softmax over the chosen alone (§2). O(chunks · dim + topk · chunk · dim · heads) a token.
    """

    name = "hcam"
    Options = HCAMOptions
    State = HCAMState
    small: ClassVar[tuple[Mapping[str, Any], ...]] = (
        {"heads": 2, "chunk": 4, "topk": 2},
        {"chunk": 3, "topk": 2, "max_chunks": 3, "summary": "max", "unfinished": False},
        {"chunk": 5, "topk": 20, "max_chunks": None, "summary": "last", "stop_gradient": False},
        {"chunk": 1, "topk": 3, "max_chunks": 4, "relevance": 4.0},
    )
    dials: ClassVar[tuple[Mapping[str, Any], ...]] = (
        {"chunk": 4, "topk": 4},
        {"chunk": 8, "topk": 2},
        {"chunk": 8, "topk": 2, "max_chunks": 4},
    )

    def __init__(self, options: HCAMOptions) -> None:
        super().__init__(options)
        self.options = options
        self.ask, self.answer, self.q, self.k, self.v, self.out = (
            nn.Linear(options.dim, options.dim, bias=False) for _ in range(6)
        )  # of relevance: query and summary; inside a chunk: query, key, value, output
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Variance scaling by 2, as released."""
        for weights in self.parameters():
            nn.init.trunc_normal_(weights, std=math.sqrt(2 / self.dim), a=-1, b=1)

    def init_state(
        self, batch: int, *, dtype: torch.dtype | None = None, device: torch.device | str | None = None
    ) -> HCAMState:
        dtype, device = self._place(dtype, device)
        size, sums = self.options.chunk, self.accumulator_dtype(dtype)
        return HCAMState(
            spec=self.spec,
            seen=torch.zeros(batch, dtype=torch.int32, device=device),
            contents=torch.zeros(batch, 0, size, self.dim, dtype=dtype, device=device),
            summaries=torch.zeros(batch, 0, self.dim, dtype=sums, device=device),
            numbers=torch.zeros(batch, 0, dtype=torch.int32, device=device),
            partial=torch.zeros(batch, size, self.dim, dtype=dtype, device=device),
        )

    def chunked(
        self, x: Tensor, state: HCAMState, valid: Tensor | None, positions: Tensor | None
    ) -> tuple[Tensor, HCAMState]:
        tape = record(state, self._stored(x), self.options.summary)
        at = state.filled().unsqueeze(1) + torch.arange(x.shape[1], device=x.device)
        parts = [
            self._look(x[:, part], tape, at[:, part]).output
            for part in _parts(x.shape[1], self._at_once(x.shape[0]))
        ]
        return torch.cat(parts, 1), store(state, tape, counts_of(x, valid), self.options.limit)

    def token(self, x: Tensor, state: HCAMState) -> tuple[Tensor, HCAMState]:
        y, after = self.chunked(x.unsqueeze(1), state, None, None)
        return y.squeeze(1), after

    def definition(self, x: Tensor, state: HCAMState) -> tuple[Tensor, HCAMState]:
        rows = [self._one_row(x[row], state, row) for row in range(x.shape[0])]
        slots = max(row[2].shape[0] for row in rows)
        y, partial = torch.stack([row[0] for row in rows]), torch.stack([row[1] for row in rows])

        def joined(which: int, empty: int = 0) -> Tensor:
            found = [row[which] for row in rows]
            return torch.stack(
                [pad(t, (0, 0) * (t.dim() - 1) + (0, slots - t.shape[0]), value=empty) for t in found]
            )

        return y, replace(
            state, contents=joined(2), summaries=joined(3), numbers=joined(4, -1), partial=partial
        )

    def _one_row(self, x: Tensor, state: HCAMState, row: int) -> tuple[Tensor, ...]:
        """One token x (dim,) of one row: the output, and the row's partial, contents, summaries, numbers."""
        o, number, filled = self.options, int(state.seen[row]) // state.chunk, int(state.filled()[row])
        contents, summaries, numbers = state.contents[row], state.summaries[row], state.numbers[row]
        partial, slot = state.partial[row], number % o.limit
        held = [s for s in range(state.slots) if int(numbers[s]) >= 0]
        chunks = [contents[s] for s in held]
        relevant = [summaries[s] for s in held]
        if o.unfinished and filled:
            chunks.append(partial[:filled])
            relevant.append(self._summary(partial[:filled]))
        y = self.out(self._attend_to(x, chunks, relevant))
        partial = torch.cat(
            [partial[:filled], self._stored(x).unsqueeze(0).to(partial.dtype), partial[filled + 1 :]]
        )
        if filled + 1 == o.chunk:
            empty = contents.new_zeros(1, o.chunk, self.dim)
            if slot == contents.shape[0]:
                contents, summaries = (
                    torch.cat([contents, empty]),
                    torch.cat([summaries, summaries.new_zeros(1, self.dim)]),
                )
                numbers = torch.cat([numbers, numbers.new_zeros(1)])
            here = torch.arange(contents.shape[0], device=x.device) == slot
            contents = torch.where(here[:, None, None], partial, contents)
            summaries = torch.where(here[:, None], self._summary(partial), summaries)
            numbers = torch.where(here, number, numbers)
            partial = torch.zeros_like(partial)
        return y, partial, contents, summaries, numbers

    def _attend_to(self, x: Tensor, chunks: list[Tensor], summaries: list[Tensor]) -> Tensor:
        """Σ_j w_j attention_j of one token over chunks (length, dim) that hold something: (dim,)."""
        o = self.options
        if not chunks:
            return torch.zeros_like(x)
        precise = summaries[0].dtype
        with full_precision(x.device):
            keys = self._read(torch.stack(summaries)) @ self.answer.weight.to(precise).mT
            logits = (
                keys @ (self.ask.weight.to(precise) @ x.to(precise)) * (o.relevance / math.sqrt(self.dim))
            )
            best, chosen = logits.topk(min(o.topk, len(chunks)))
            weights = best.softmax(-1)
        found = torch.zeros_like(x)
        for weight, which in zip(weights, chosen.tolist(), strict=True):
            length = chunks[which].shape[0]
            content = self._read(chunks[which]).to(x.dtype) + places(length, self.dim).to(x)
            q, k, v = (
                part.unflatten(-1, (o.heads, -1)) for part in (self.q(x), self.k(content), self.v(content))
            )
            scores = torch.einsum("he,che->hc", q, k) / math.sqrt(o.head_dim)
            found = found + weight.to(x.dtype) * torch.einsum("hc,che->he", scores.softmax(-1), v).flatten()
        return found

    def _summary(self, vectors: Tensor) -> Tensor:
        precise = vectors.to(self.accumulator_dtype(vectors.dtype))
        match self.options.summary:
            case "mean":
                return precise.mean(0)
            case "max":
                return precise.max(0).values
            case _:
                return precise[-1]

    # beyond the protocol

    def recall(self, state: HCAMState, q: Tensor, *, mask: Tensor | None = None) -> Recall:
        """Read for queries q (batch, queries, dim), each as if it came next; nothing is written.

        `mask` bool (batch, slots): which of the state's slots may be chosen; the unfinished chunk always may
        where the options allow it. Raises InvalidInput, IncompatibleMemory.
        """
        self._begin(q, state, None)
        self._require_finite(q)
        if mask is not None and (mask.shape != state.numbers.shape or mask.dtype != torch.bool):
            raise InvalidInput(
                f"a mask over chunks is bool {tuple(state.numbers.shape)}, one for each slot of the state; "
                f"got {mask.dtype} of shape {tuple(mask.shape)}"
            )
        tape = record(state, q[:, :0], self.options.summary)
        if mask is not None:
            stored = torch.where(mask, tape.numbers[:, : state.slots], -1)
            tape = tape._replace(numbers=torch.cat([stored, tape.numbers[:, state.slots :]], 1))
        at = state.filled().unsqueeze(1).expand(q.shape[:2])
        return self._look(q, tape, at)

    def read(self, state: HCAMState, q: Tensor) -> Tensor:
        """The output of `recall`: (batch, queries, dim)."""
        return self.recall(state, q).output

    def write(self, state: HCAMState, x: Tensor) -> HCAMState:
        """The state after x (batch, time, dim), nothing read. O(time), and a copy once chunks get whole."""
        self._begin(x, state, None)
        self._require_finite(x)
        if not x.shape[1]:
            return state
        tape, counts = record(state, self._stored(x), self.options.summary), counts_of(x, None)
        after = store(state, tape, counts, self.options.limit)
        return replace(after, seen=state.seen + x.shape[1]).owned()

    def forget(self, state: HCAMState, part: int | Iterable[int]) -> HCAMState:
        """The state without the chunks of these numbers, in every row: no trace is left of them.

        Raises InvalidInput when no row holds one of them (the unfinished chunk has no number yet).
        """
        self.spec.require(state.spec)
        parts = [part] if isinstance(part, int) else list(part)
        held = set(state.numbers.flatten().tolist()) - {-1}
        if missing := sorted(set(parts) - held):
            raise InvalidInput(
                f"no row holds chunk {missing[0]}; there are {len(held)} chunks: {_ranges(held)}"
            )
        gone = torch.isin(state.numbers, torch.tensor(parts, dtype=torch.int32, device=state.numbers.device))
        return replace(
            state,
            contents=torch.where(gone[..., None, None], 0, state.contents),
            summaries=torch.where(gone[..., None], 0, state.summaries),
            numbers=torch.where(gone, -1, state.numbers),
        )

    def routing(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Numbers of the chunks each token of x (batch, time, dim) looks into, -1 for none; their weights."""
        state = self._begin(x, None, None)
        tape = record(state, self._stored(x), self.options.summary)
        at = torch.arange(x.shape[1], device=x.device).expand(x.shape[:2])
        seen = self._look(x, tape, at)
        return seen.chunks, seen.weights

    # the fast form

    def _look(self, x: Tensor, tape: Tape, at: Tensor) -> Recall:
        """Read for x (batch, time, dim), each `at` int (batch, time) inputs behind the stored ones."""
        o = self.options
        tape = tape.detach() if o.stop_gradient else tape
        numbers, index, weights, own, filled = self._choose(x, tape, at)
        # the unfinished chunk is read as the last `chunk` inputs, what stands before it left out
        start = torch.where(own, tape.first * o.chunk + at.unsqueeze(-1) - o.chunk, index * o.chunk)
        content = tape.contents(start).to(x.dtype) + places(o.chunk, self.dim).to(x)
        # keys and values are linear in the content: their maps act on the query and on what was read
        per_head = (o.heads, o.head_dim)
        q = self.q(x).unflatten(-1, per_head) / math.sqrt(o.head_dim)
        asked = torch.einsum("bthe,hed->bthd", q, self.k.weight.unflatten(0, per_head).to(q.dtype))
        scores = torch.einsum("bthd,btkcd->btkhc", asked, content.to(asked.dtype))
        steps = torch.arange(o.chunk, device=x.device)
        hidden = own.unsqueeze(-1) & (steps < o.chunk - filled.unsqueeze(-1).unsqueeze(-1))
        attention = scores.float() if scores.dtype != torch.float64 else scores
        attention = attention.masked_fill(hidden.unsqueeze(3), -torch.inf).softmax(-1)
        attention = attention * (numbers >= 0)[..., None, None]
        spread = (attention * weights[..., None, None]).to(content.dtype)
        mixed = torch.einsum("btkhc,btkcd->bthd", spread, content)
        values = torch.einsum("bthd,hed->bthe", mixed, self.v.weight.unflatten(0, per_head).to(mixed.dtype))
        return Recall(self.out(values.flatten(2).to(x.dtype)), numbers, weights, attention)

    def _choose(self, x: Tensor, tape: Tape, at: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """The topk chunks of each token, float32 or better: their numbers (-1 for none), places on the tape,
        weights, whether it is the unfinished one (batch, time, k); and that one's length (batch, time)."""
        o, total = self.options, tape.numbers.shape[1]
        chunk, filled = at // o.chunk, at % o.chunk
        now = tape.whole.unsqueeze(1) + chunk  # number of each token's own chunk
        visible = (tape.numbers.unsqueeze(1) < now.unsqueeze(2)) & (tape.numbers.unsqueeze(1) >= 0)
        visible &= tape.numbers.unsqueeze(1) >= now.unsqueeze(2) - o.limit
        visible = torch.cat([visible, (filled > 0).unsqueeze(2) & o.unfinished], 2)
        with full_precision(x.device):
            summaries, running = tape.summaries, tape.running.flatten(1, 2)
            asked = x.to(summaries.dtype) @ self.ask.weight.to(summaries.dtype).mT
            asked = asked @ self.answer.weight.to(summaries.dtype) * (o.relevance / math.sqrt(self.dim))
            own = running.gather(1, (at - 1).clamp(min=0).unsqueeze(-1).expand(-1, -1, self.dim))
            logits = torch.cat([asked @ summaries.mT, (asked * own).sum(-1, keepdim=True)], 2)
            best, index = logits.masked_fill(~visible, -torch.inf).topk(min(o.topk, total + 1), -1)
            chosen = best > -torch.inf
            weights = best.masked_fill(~chosen, -1e30).softmax(-1) * chosen
        numbers = torch.cat([tape.numbers.unsqueeze(1).expand(*at.shape, -1), now.unsqueeze(2)], 2).gather(
            2, index
        )
        return (
            torch.where(chosen, numbers, -1),
            index.clamp(max=total - 1),
            weights,
            (index == total) & chosen,
            filled,
        )

    def _stored(self, x: Tensor) -> Tensor:
        """As it is written."""
        return x.detach() if self.options.stop_gradient else x

    def _read(self, stored: Tensor) -> Tensor:
        """As it is looked at."""
        return stored.detach() if self.options.stop_gradient else stored

    def _at_once(self, batch: int) -> int:
        """Tokens whose chunks are copied out together."""
        return max(1, GATHERED // (batch * self.options.topk * self.options.chunk * self.dim))


@cache
def places(length: int, dim: int) -> Tensor:
    """Codes of places in a chunk, counted from its end (§2): (length, dim), the last vector's place 0.

    Sines, then cosines of place · 10000^(-f / dim), f = 0, 2, 4, …
    """
    place = torch.arange(length - 1, -1, -1, dtype=torch.float64).unsqueeze(1)
    angles = place * 10_000 ** (-torch.arange(0, dim, 2, dtype=torch.float64) / dim)
    return torch.cat([angles.sin(), angles.cos()], 1)[:, :dim]


def _parts(time: int, size: int) -> list[slice]:
    return [slice(start, start + size) for start in range(0, time, size)]


def _ranges(numbers: set[int]) -> str:
    return f"{min(numbers)} to {max(numbers)}" if numbers else "none"
