"""What a reader may see of a space, and what they may know of the facts in it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from mnemic.cube.model import Scope
from mnemic.index.facts import Fact, Facts
from mnemic.index.scope import BoolArray, ScopeIndex


@dataclass(frozen=True, slots=True)
class Known:
    """The facts of a space, and its two indexes: what was told (False) and what was derived (True).

    seen: masks of the rows that the reader may see and, of what was derived, take for current.
    """

    facts: Facts
    indexes: Mapping[bool, ScopeIndex]
    seen: Mapping[bool, BoolArray]

    def row(self, cube: bytes, *, derived: bool) -> int | None:
        """The row of a cube that may be seen."""
        row = self.indexes[derived].row_of(cube)
        return row if row is not None and self.seen[derived][row] else None

    def sees(self, fact: Fact) -> bool:
        return self.row(fact.cube, derived=True) is not None

    def of_source(self, cube: bytes) -> list[Fact]:
        """The facts that rest on a cube."""
        return [fact for fact in self.facts.by_source.get(cube, ()) if self.sees(fact)]

    def rows(self, fact: Fact, *, derived: bool) -> list[int]:
        """The rows that state a fact: its own, or those of its sources, in the order of the log."""
        cubes = (fact.cube,) if derived else fact.sources
        rows = (self.row(cube, derived=derived) for cube in cubes)
        return sorted(row for row in rows if row is not None)


@dataclass(frozen=True, slots=True)
class Visible:
    """One index of one space as a reader sees it: the index, the scopes' names, and two masks over its rows.

    within: what may be seen; what scores rest on. mask: what of that also passes the filter. derived: whether
    its rows are derived cubes. known: the facts of the space that the reader may see.
    """

    space: int
    index: ScopeIndex
    scopes: Mapping[int, Scope]
    within: BoolArray
    mask: BoolArray
    derived: bool = False
    known: Known | None = None

    @property
    def pending(self) -> int:
        """How many that may be seen still lack their vector."""
        lacking = self.index.pending()
        return len(lacking.intersection(self.index.seq[self.within].tolist())) if lacking else 0

    @property
    def rows(self) -> np.ndarray[Any, np.dtype[np.intp]]:
        return np.flatnonzero(self.mask)
