"""What holds and what has ceased to hold: of facts that share a slot, the one that is true goes first.

Facts are derived in the background (`plaintext/derive`); here they are only read. What a reader may not see
decides nothing and is not named.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from mnemic.cube.ids import id_bytes, id_text
from mnemic.cube.times import to_datetime
from mnemic.index.facts import Fact, subject_term
from mnemic.index.scope import FAR
from mnemic.plaintext.derive.attributes import asks_for
from mnemic.plaintext.recall.question import Question
from mnemic.plaintext.recall.rank import Lift
from mnemic.plaintext.recall.visible import Known, Visible

# Who asks for what was, does not want what is.
_PAST: Final = re.compile(
    r"\b(?:used to|previous(?:ly)?|former(?:ly)?|in the past|back then|once|ex|before|until|originally)\b",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Superseded:
    """One thing a cube says that has ceased to be true: what, since when, and by which cube.

    `now` is what replaced it, None where nothing did; `fact` is the derived cube that says so.
    """

    subject: str
    attribute: str
    value: str
    since: datetime
    by: str
    now: str | None
    fact: str | None


def lifts(question: Question, views: Sequence[Visible], *, valid_at: int | None) -> list[Lift]:
    """What is to come before what, for the slots that the question is about. O(facts of those it names)."""
    if _PAST.search(question.text) or question.wants_earliest:
        return []
    moment = question.asked_at if valid_at is None else valid_at
    terms = frozenset(question.terms.tolist())
    out: list[Lift] = []
    for number, view in enumerate(views):
        if view.known is None:
            continue
        for facts in _slots(question, terms, view, view.known):
            true = [fact for fact in facts if fact.valid_from <= moment < fact.valid_to]
            if not true or len(facts) < 2:
                continue
            latest = max(true, key=lambda fact: (fact.valid_from, fact.seq))
            known, derived = view.known, view.derived
            rows = [row for one in facts if one is not latest for row in known.rows(one, derived=derived)]
            first = known.rows(latest, derived=derived)
            others = [row for row in rows if row not in first]
            if first and others:
                out.append(Lift(number, first[-1], others))
    return out


def superseded(cube: str, view: Visible) -> tuple[Superseded, ...]:
    """What of a cube's facts has ceased to be true, as far as the reader may know. O(its facts)."""
    known = view.known
    if known is None:
        return ()
    key = id_bytes(cube)
    if view.derived:
        facts = [fact for fact in (known.facts.by_cube.get(key),) if fact]
    else:
        facts = known.of_source(key)
    return tuple(one for fact in facts if (one := _end_of(fact, view, known)))


def untrue_rows(known: Known, moment: int) -> list[int]:
    """Rows of told cubes that state facts, none of which was true at a moment. O(facts)."""
    out = []
    for source in known.facts.by_source:
        row, facts = known.row(source, derived=False), known.of_source(source)
        if row is not None and facts and not any(f.valid_from <= moment < f.valid_to for f in facts):
            out.append(row)
    return out


def _slots(question: Question, terms: frozenset[int], view: Visible, known: Known) -> Iterator[list[Fact]]:
    subjects = dict.fromkeys(named for named in question.mentions if named in known.facts.by_subject)
    if question.about_asker:
        subjects |= dict.fromkeys(subject_term(names.user or "user") for names in view.scopes.values())
    for subject in subjects:
        slots: dict[tuple[str | None, str], list[Fact]] = {}
        for fact in known.facts.by_subject.get(subject, ()):
            if asks_for(fact.attribute, terms) and known.sees(fact):
                slots.setdefault((view.scopes[fact.scope].agent, fact.attribute), []).append(fact)
        yield from slots.values()


def _end_of(fact: Fact, view: Visible, known: Known) -> Superseded | None:
    if fact.ended_by is None or fact.valid_to == int(FAR.max):
        return None
    by, now, named = fact.ended_by, None, None
    after = known.facts.by_cube.get(by)
    if after is not None:
        told = [cube for cube in after.sources if known.row(cube, derived=False) is not None]
        if not known.sees(after) or not told:
            return None
        by, now, named = after.cube if view.derived else told[-1], after.value, id_text(after.cube)
    elif known.row(by, derived=False) is None:
        return None
    since = to_datetime(fact.valid_to)
    return Superseded(fact.subject, fact.attribute, fact.value, since, id_text(by), now, named)
