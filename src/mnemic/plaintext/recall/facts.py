"""The facts of a memory, without a question: who has which value of what, since when and until when."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from mnemic.cube.checks import require_count
from mnemic.cube.model import MemCube
from mnemic.cube.reach import Reach
from mnemic.cube.times import to_datetime
from mnemic.index.facts import Fact as Known
from mnemic.index.lexical import words
from mnemic.index.scope import FAR
from mnemic.plaintext.derive.facts import METHOD
from mnemic.plaintext.derive.names import key_of
from mnemic.plaintext.recall.filters import Filter
from mnemic.plaintext.recall.search import Recall
from mnemic.plaintext.recall.visible import Known as Seen


@dataclass(frozen=True, slots=True)
class Fact:
    """One value of an attribute of a subject, true from `since` until `until` (None: it holds).

    cube: the derived cube that holds it; its `header.sources` are the turns it rests on. superseded_by: the
    cube that put an end to it.
    """

    cube: MemCube
    subject: str
    attribute: str
    value: str
    since: datetime | None
    until: datetime | None
    superseded_by: str | None


def facts(
    recall: Recall,
    reach: Reach,
    *,
    subject: str | None,
    attribute: str | None,
    past: bool,
    as_of: object,
    valid_at: object,
    limit: int,
) -> list[Fact]:
    """Facts that are current, by subject, attribute and time. O(facts within reach)."""
    require_count(limit=limit)
    where = Filter.of({"origin": "derived"}, as_of=as_of, valid_at=valid_at)  # type: ignore[arg-type]
    moment = where.valid_at if where.valid_at is not None else recall.vault.clock()
    found: list[tuple[tuple[str, str, int, int, str], int, Known]] = []
    with recall.cache.lock, recall.vault.snapshot() as snapshot:
        for view in recall.visible(snapshot, reach, where):
            if view.known is None:
                continue
            for seq in view.index.seq[view.rows].tolist():
                fact = view.known.facts.by_seq.get(seq)
                if fact is None or not (past or fact.valid_to > moment) or _is_told_better(fact, view.known):
                    continue
                if _is_called(fact.subject, subject) and _is_called(fact.attribute, attribute):
                    order = (fact.subject.lower(), fact.attribute, fact.valid_from, fact.valid_to, fact.value)
                    found.append((order, view.space, fact))
        found = sorted(found, key=lambda one: one[0])[:limit]
        wanted: dict[int, list[int]] = {}
        for _, space, fact in found:
            wanted.setdefault(space, []).append(fact.seq)
        cubes = {
            (space, seq): cube
            for space, seqs in wanted.items()
            for seq, cube in zip(seqs, snapshot.cubes(space, seqs), strict=True)
        }
    return [_fact(cubes[space, fact.seq], fact) for _, space, fact in found]


def _is_told_better(fact: Known, known: Seen) -> bool:
    """Whether another deriver made the same statement of one of its turns and knows of an earlier end; the
    same end: the rules' is served. So what a model says is over is not beside it as if it held.
    """
    mine = (key_of(fact.subject), fact.attribute, key_of(fact.value))
    return any(
        other.method != fact.method
        and (key_of(other.subject), other.attribute, key_of(other.value)) == mine
        and (other.valid_to, other.method != METHOD) < (fact.valid_to, fact.method != METHOD)
        for source in fact.sources
        for other in known.of_source(source)
    )


def _is_called(name: str, wanted: str | None) -> bool:
    """Whether all words of what is wanted are in a name."""
    return wanted is None or set(words(wanted)) <= set(words(name))


def _fact(cube: MemCube, fact: Known) -> Fact:
    since = None if fact.valid_from == int(FAR.min) else to_datetime(fact.valid_from)
    until = None if fact.valid_to == int(FAR.max) else to_datetime(fact.valid_to)
    by = cube.header.ended_by.cube_id if cube.header.ended_by is not None else None
    return Fact(cube, fact.subject, fact.attribute, fact.value, since, until, by)
