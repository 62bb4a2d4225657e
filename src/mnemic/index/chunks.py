"""Coarse to fine over vectors: chunks are judged by their summaries, and only the best are looked into.

The two levels of HCAM (Lampinen et al. 2021, §2) without training: all maps are the identity. Knows nothing
of texts.
"""

from __future__ import annotations

from typing import Final, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mnemic.cube.errors import InvalidOption
from mnemic.index.pooling import FloatArray, normalise
from mnemic.index.scope import BoolArray, IntArray

Summary = Literal["mean", "unit", "max"]
SUMMARIES: Final = ("mean", "unit", "max")


class Look(NamedTuple):
    """Which chunks were looked into, best first, their relevance, and the rows in them, ascending.

    `compared`: vectors that the query was compared with, summaries included, if all these rows are.
    """

    chunks: IntArray
    relevance: FloatArray
    rows: IntArray
    compared: int


class Chunks:
    """Vectors (rows, dim) in order, cut into chunks that begin at `start`: int (chunks,), rising from 0.

    `summary`: "mean" (the paper) of a chunk's vectors; "unit", the same at unit length, so that a chunk of
    many subjects is not put back; "max", the largest of each number. O(rows · dim) to make; 1 / chunk of the
    vectors' bytes.
    """

    def __init__(self, vectors: FloatArray, start: IntArray, *, summary: Summary = "unit") -> None:
        if summary not in SUMMARIES:
            raise InvalidOption(f"summary must be one of {', '.join(SUMMARIES)}, got {summary!r:.40}")
        self.size = len(vectors)
        self.start = start.astype(np.int64)
        self.length = np.diff(np.append(self.start, self.size))
        if len(start) and (start[0] != 0 or (self.length < 1).any()):
            raise InvalidOption("start must rise from 0, and every chunk must hold a row")
        if len(start) != 0 and summary == "max":
            self.summaries: FloatArray = np.maximum.reduceat(vectors, self.start)
        elif len(start):
            total: FloatArray = np.add.reduceat(vectors, self.start)
            total /= self.length[:, None]
            self.summaries = normalise(total) if summary == "unit" else total
        else:
            self.summaries = np.zeros((0, vectors.shape[1]), np.float32)

    @property
    def nbytes(self) -> int:
        return self.summaries.nbytes + self.start.nbytes + self.length.nbytes

    def relevance(self, query: FloatArray) -> FloatArray:
        """Products of every summary with query (dim,): (chunks,). O(chunks · dim)."""
        products: FloatArray = np.einsum("ij,j->i", self.summaries, query)
        return products

    def having(self, allowed: BoolArray) -> BoolArray:
        """(chunks,) whether any row of a chunk is allowed, (rows,)."""
        held: BoolArray = np.logical_or.reduceat(allowed, self.start) if len(self.start) else allowed[:0]
        return held

    def look(self, query: FloatArray, *, chunks: int, allowed: BoolArray | None = None) -> Look:
        """The rows of the `chunks` most relevant of the chunks that hold an allowed row; of all, if fewer do.

        Equal relevance: the later chunk. O(chunks in all · dim).
        """
        relevance = self.relevance(query)
        open_ = np.ones(len(relevance), np.bool_) if allowed is None else self.having(allowed)
        chosen = best(np.where(open_, relevance, -np.inf), min(chunks, int(open_.sum())))
        rows = self.rows(chosen)
        return Look(chosen, relevance[chosen], rows, len(relevance) + len(rows))

    def rows(self, chunks: IntArray) -> IntArray:
        """The rows of some chunks, ascending."""
        if not len(chunks):
            return np.empty(0, np.int64)
        inside = [np.arange(self.start[n], self.start[n] + self.length[n]) for n in np.sort(chunks)]
        return np.concatenate(inside)


def cut(groups: NDArray[np.int64], size: int) -> IntArray:
    """Where chunks begin: at every new group (rows,), and after `size` rows of one. Raises InvalidOption."""
    if isinstance(size, bool) or not isinstance(size, int) or size < 1:
        raise InvalidOption(f"a chunk holds at least one row, got {size!r:.40}")
    new = np.ones(len(groups), np.bool_)
    new[1:] = groups[1:] != groups[:-1]
    first = np.flatnonzero(new)
    depth = np.arange(len(groups)) - np.repeat(first, np.diff(np.append(first, len(groups))))
    return np.flatnonzero(depth % size == 0)


def best(values: FloatArray, k: int) -> IntArray:
    """Places of the k largest, best first; of equal ones the later."""
    if k <= 0:
        return np.empty(0, np.int64)
    places = np.arange(len(values))
    if k < len(values):
        places = np.flatnonzero(values >= np.partition(values, len(values) - k)[len(values) - k])
    return places[np.lexsort((-places, -values[places]))][:k]
