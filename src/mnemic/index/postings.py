"""Where a term stands: an inverted index over the terms of all rows, for indexes too large to be scanned."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

SCANNED: Final = 1 << 18  # terms that are compared one by one in the time that a few look-ups take
GROWTH: Final = 8  # sorted anew when an eighth is not sorted yet


class Postings:
    """Finds the places of a term in a growing array of terms, which its owner keeps."""

    def __init__(self) -> None:
        self._sorted = 0  # so many first terms are in the arrays below
        self._terms = np.empty(0, np.uint32)  # distinct, ascending
        self._starts = np.zeros(1, np.int64)  # of each one's places, and the end of the last
        self._places = np.empty(0, np.uint32)

    @property
    def nbytes(self) -> int:
        return self._terms.nbytes + self._starts.nbytes + self._places.nbytes

    def places(self, terms: NDArray[np.uint32], wanted: int) -> NDArray[np.int64]:
        """Where `wanted` stands in `terms`, ascending. `terms` only ever grows.

        O(log distinct terms + places found + SCANNED), and O(terms log terms) whenever they have grown by
        one in GROWTH.
        """
        if len(terms) - self._sorted > max(SCANNED, self._sorted // GROWTH):
            self._sort(terms)
        rest = self._sorted + np.flatnonzero(terms[self._sorted :] == np.uint32(wanted))
        at = int(np.searchsorted(self._terms, wanted))
        if at == len(self._terms) or self._terms[at] != wanted:
            return rest
        return np.concatenate([self._places[self._starts[at] : self._starts[at + 1]].astype(np.int64), rest])

    def _sort(self, terms: NDArray[np.uint32]) -> None:
        """Pairs of 64 bits, term before place, sort faster than an order of terms is made."""
        pairs = np.sort(terms.astype(np.uint64) << np.uint64(32) | np.arange(len(terms), dtype=np.uint64))
        ordered = (pairs >> np.uint64(32)).astype(np.uint32)
        first = np.flatnonzero(np.diff(ordered, prepend=~ordered[:1]))
        self._terms = ordered[first]
        self._starts = np.append(first, len(ordered))
        self._places = pairs.astype(np.uint32)
        self._sorted = len(terms)
