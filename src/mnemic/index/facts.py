"""The facts among a space's derived cubes, by whom they speak of and by what they rest on.

A fact is a derived cube whose metadata names a `subject`, an `attribute` and a `value`; two facts of one
subject and attribute, told to the same agent, share a *slot*. Knows nothing of questions.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mnemic.cube.ids import id_bytes
from mnemic.index.lexical import term, words
from mnemic.index.scope import ScopeIndex

MOST_WORDS = 3  # of a subject's name that a question is searched for


@dataclass(frozen=True, slots=True)
class Fact:
    """One fact as the index knows it. Times are those of its row: far away where they are open."""

    seq: int
    cube: bytes
    scope: int
    subject: str
    attribute: str
    value: str
    sources: tuple[bytes, ...]
    ended_by: bytes | None
    valid_from: int
    valid_to: int
    method: str  # of what derived it


class Facts:
    """Grouped facts of an index of derived cubes, brought up to date by `read`."""

    def __init__(self) -> None:
        self._seqs: NDArray[np.int64] = np.empty(0, np.int64)
        self._known: dict[int, Fact | None] = {}
        self.by_subject: dict[int, list[Fact]] = {}
        self.by_source: dict[bytes, list[Fact]] = {}
        self.by_cube: dict[bytes, Fact] = {}
        self.by_seq: dict[int, Fact] = {}

    def are_of(self, seqs: NDArray[np.int64]) -> bool:
        """Is this what was read last? O(rows)."""
        return np.array_equal(seqs, self._seqs)

    def unread(self, seqs: NDArray[np.int64]) -> list[int]:
        """The seqs whose headers were not read yet, rising. O(rows)."""
        return [seq for seq in seqs.tolist() if seq not in self._known]

    def read(self, index: ScopeIndex, headers: Mapping[int, bytes]) -> None:
        """Take in the headers of new rows and forget rows that are gone. O(rows)."""
        self._seqs = index.seq.copy()
        columns = zip(
            index.seq.tolist(),
            index.cubes(),
            index.scope.tolist(),
            index.valid_from.tolist(),
            index.valid_to.tolist(),
            strict=True,
        )
        known: dict[int, Fact | None] = {}
        for seq, cube, scope, valid_from, valid_to in columns:
            if seq in self._known:
                known[seq] = self._known[seq]
            else:
                known[seq] = _fact(json.loads(headers[seq]), seq, cube, scope, valid_from, valid_to)
        self._known = known
        self.by_subject, self.by_source, self.by_cube, self.by_seq = {}, {}, {}, {}
        for fact in known.values():
            if fact is None:
                continue
            self.by_cube[fact.cube] = self.by_seq[fact.seq] = fact
            self.by_subject.setdefault(subject_term(fact.subject), []).append(fact)
            for source in fact.sources:
                self.by_source.setdefault(source, []).append(fact)


def subject_term(subject: str) -> int:
    """What a question that names a subject holds among its `mentions`."""
    return term(" ".join(words(subject)[:MOST_WORDS]))


def _fact(
    header: Mapping[str, Any], seq: int, cube: bytes, scope: int, valid_from: int, valid_to: int
) -> Fact | None:
    said = header.get("metadata", {})
    subject, attribute, value = (said.get(key) for key in ("subject", "attribute", "value"))
    if not all(isinstance(one, str) and one for one in (subject, attribute, value)):
        return None
    ended_by = header.get("ended_by")
    return Fact(
        seq,
        cube,
        scope,
        subject,
        attribute,
        value,
        sources=tuple(id_bytes(source["cube_id"]) for source in header.get("sources", ())),
        ended_by=id_bytes(ended_by["cube_id"]) if ended_by else None,
        valid_from=valid_from,
        valid_to=valid_to,
        method=str(header.get("method", "")),
    )
