"""Search from coarse to fine: which stretches of talk matter, by their summaries, then what was said there.

HCAM's two levels (Lampinen et al. 2021) over text cubes. A stretch is a few turns of one session in order,
its summary the mean of their vectors. Where `Recall.search` scores everything within reach with every signal,
this scores a summary of every stretch, and the turns of the few best.

It is no verb of `Memory`: on LoCoMo it loses more than it saves (docs/results/chunks.md), as a summary of
vectors knows less than the signals do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple
from weakref import WeakKeyDictionary

import numpy as np

from mnemic.cube.checks import require_count
from mnemic.cube.errors import InvalidOption
from mnemic.cube.reach import Reach
from mnemic.index.chunks import SUMMARIES, Chunks, Summary, best, cut
from mnemic.index.scope import IntArray, ScopeIndex
from mnemic.plaintext.recall.current import lifts
from mnemic.plaintext.recall.filters import Filter
from mnemic.plaintext.recall.question import Question
from mnemic.plaintext.recall.rank import Lift, Ranked, Weights, rank
from mnemic.plaintext.recall.search import Hits, Recall
from mnemic.plaintext.recall.signals import likeness
from mnemic.plaintext.recall.visible import Visible

FINE: Final = ("signals", "dense")


@dataclass(frozen=True, slots=True, kw_only=True)
class ChunkOptions:
    """`chunk`: turns in a stretch at most; `chunks`: stretches to look into, more where k asks for it.

    `fine`: what ranks the turns inside: "signals", all of them, with statistics of these turns alone; or
    "dense", their cosine with the question. `summary` as in `mnemic.index.chunks`. Raises InvalidOption.
    """

    chunk: int = 8
    chunks: int = 16
    fine: Literal["signals", "dense"] = "signals"
    summary: Summary = "unit"

    def __post_init__(self) -> None:
        require_count(chunk=self.chunk, chunks=self.chunks)
        for name, known in (("fine", FINE), ("summary", SUMMARIES)):
            if getattr(self, name) not in known:
                raise InvalidOption(
                    f"{name} must be one of {', '.join(known)}, got {getattr(self, name)!r:.40}"
                )


class Looked(NamedTuple):
    """What a search looked into: `rows` of each view's index; of how many `chunks` how many, and of how many
    `cubes` how many vectors were `compared`, summaries included."""

    rows: list[IntArray]
    chunks: int
    looked_into: int
    cubes: int
    compared: int


class ChunkedRecall:
    """Coarse-to-fine search over what a `Recall` reads. Summaries are kept until the index changes.

    Thread-safe as `Recall` is: one search at a time an open memory.
    """

    def __init__(
        self, recall: Recall, options: ChunkOptions | None = None, *, weights: Weights | None = None
    ) -> None:
        self._recall = recall
        self.options = options or ChunkOptions()
        self._weights = weights or Weights()
        self._made: WeakKeyDictionary[ScopeIndex, tuple[tuple[int, ...], Chunks]] = WeakKeyDictionary()

    def search(
        self,
        text: str,
        reach: Reach,
        *,
        k: int = 10,
        where: Filter | None = None,
        asked_at: int | None = None,
    ) -> Hits:
        """The k best cubes of the stretches looked into, best first; `notes["chunks"]` says how many.

        Without a vector of the question there is no relevance, and everything is searched. O(stretches · dim)
        and what the signals cost on the turns looked into; O(rows · dim) once after a change.
        """
        require_count(k=k)
        recall, where = self._recall, where or Filter()
        question = recall.question(text, asked_at=asked_at)
        if question.tokens is None and question.vector is None:
            return recall.search(text, reach, k=k, where=where, asked_at=asked_at)
        with recall.cache.lock, recall.vault.snapshot() as snapshot:
            views = recall.visible(snapshot, reach, where)
            looked = self.look(question, views, k=k)
            if self.options.fine == "dense":
                ranked = self._by_cosine(question, views, looked, k)
            else:
                ranked = self._by_signals(question, views, looked, k, where.valid_at)
            hits = Hits(recall.fetch(snapshot, views, ranked), recall.notes(question, views))
        hits.notes["chunks"] = (
            f"looked into {looked.looked_into} of {looked.chunks} stretches; compared {looked.compared} "
            f"vectors for {looked.cubes} cubes"
        )
        return hits

    def look(self, question: Question, views: Sequence[Visible], *, k: int) -> Looked:
        """The rows of the most relevant stretches of all views together, at least k that pass the filter."""
        found, relevance, holds = [], [], []
        for view in views:
            rows = np.flatnonzero(view.within)
            index = view.index.within(view.within)
            chunks, order = self._chunks(index), index.sessions.order.astype(np.int64)
            query = index.embed_question(question.tokens, question.vector)
            allowed = (view.mask[rows] & (index.text_hash != 0))[order]
            found.append((chunks, rows[order]))
            near = chunks.relevance(query) if query is not None else np.zeros(len(chunks.start), np.float32)
            relevance.append(near)
            holds.append(np.add.reduceat(allowed, chunks.start) if len(chunks.start) else np.zeros(0))
        offered = np.concatenate([np.empty(0), *holds])
        values = np.where(offered > 0, np.concatenate([np.empty(0, np.float32), *relevance]), -np.inf)
        likely = best(values, int((offered > 0).sum()))
        enough = int(np.searchsorted(np.cumsum(offered[likely]), k)) + 1
        chosen = likely[: max(self.options.chunks, enough)]
        starts = np.cumsum([0, *(len(of) for of in relevance)])
        looked_at = [
            np.sort(rows[chunks.rows(chosen[(chosen >= first) & (chosen < last)] - first)])
            for (chunks, rows), first, last in zip(found, starts[:-1], starts[1:], strict=True)
        ]
        inside = sum(map(len, looked_at))
        return Looked(
            looked_at, len(values), len(chosen), sum(len(rows) for _, rows in found), len(values) + inside
        )

    def _by_cosine(
        self, question: Question, views: Sequence[Visible], looked: Looked, k: int
    ) -> list[Ranked]:
        """By cosine alone, the best of equal texts."""
        scores, numbers, places, texts = [], [], [], []
        for number, (view, rows) in enumerate(zip(views, looked.rows, strict=True)):
            index = view.index.within(view.within)
            query = index.embed_question(question.tokens, question.vector)
            passes = rows[view.mask[rows] & (view.index.text_hash[rows] != 0)]
            if query is not None and len(passes):
                mine = np.searchsorted(np.flatnonzero(view.within), passes)
                scores.append(likeness(index.vectors[mine], query))
                numbers.append(np.full(len(passes), number))
                places.append(passes)
                texts.append(view.index.text_hash[passes])
        if not scores:
            return []
        score, text = np.concatenate(scores), np.concatenate(texts)
        order = np.argsort(-score, kind="stable")
        first = np.sort(np.unique(text[order], return_index=True)[1])[:k]
        view_of, row_of = np.concatenate(numbers), np.concatenate(places)
        return [
            Ranked(int(view_of[at]), int(row_of[at]), float(score[at]), {"dense": float(score[at])})
            for at in order[first]
        ]

    def _by_signals(
        self,
        question: Question,
        views: Sequence[Visible],
        looked: Looked,
        k: int,
        valid_at: int | None,
    ) -> list[Ranked]:
        """By every signal, over an index of the rows looked into and nothing else."""
        ranked = rank(
            question,
            [view.index.part(rows) for view, rows in zip(views, looked.rows, strict=True)],
            [view.mask[rows] for view, rows in zip(views, looked.rows, strict=True)],
            within=[np.ones(len(rows), np.bool_) for rows in looked.rows],
            lifts=_inside(lifts(question, views, valid_at=valid_at), looked.rows),
            weights=self._weights,
            k=k,
        )
        return [one._replace(row=int(looked.rows[one.view][one.row])) for one in ranked]

    def _chunks(self, index: ScopeIndex) -> Chunks:
        """The index's chunks, in the order of its sessions."""
        state = (index.size, index.counted, len(index.pending()), int(index.seq[-1]) if index.size else 0)
        known = self._made.get(index)
        if known is not None and known[0] == state:
            return known[1]
        sessions = index.sessions
        vectors = index.vectors if sessions.in_order else index.vectors[sessions.order]
        chunks = Chunks(
            vectors, cut(sessions.number.astype(np.int64), self.options.chunk), summary=self.options.summary
        )
        self._made[index] = (state, chunks)
        return chunks


def _inside(found: Sequence[Lift], rows: Sequence[IntArray]) -> list[Lift]:
    """Lifts among the rows that were looked into, by their places there."""
    out = []
    for view, first, others in found:
        mine = rows[view]
        places = {int(row): place for place, row in enumerate(mine)}
        if first in places and (kept := [places[other] for other in others if other in places]):
            out.append(Lift(view, places[first], kept))
    return out
