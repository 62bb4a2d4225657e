"""The account a context gives of itself: why each cube is there, and what is not, and why."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Final

import numpy as np

from mnemic.plaintext.compose.fill import EVIDENCE, NO_ROOM, Draft
from mnemic.plaintext.compose.render import Shown
from mnemic.plaintext.compose.scene import Evidence
from mnemic.plaintext.compose.sentences import sentence_spans

NEAR_MISSES: Final = 10  # ranked cubes that were never looked at and are named all the same
MOST_SESSIONS: Final = 50  # that are named one by one
NOT_BEST: Final = "not among the best for this question"


@dataclass(frozen=True, slots=True, kw_only=True)
class Omitted:
    """What was left out and why: one cube, or `count` further cubes of one session or more (`cube` is None).

    A cube of which only a part is shown is here too: "shortened to 2 of 9 sentences".
    """

    reason: str
    cube: str | None = None
    session: str | None = None
    count: int = 1
    score: float | None = None


def reasons(draft: Draft, refs: Mapping[str, str], found: Mapping[int, Evidence]) -> dict[str, str]:
    """cube id -> why it is shown; for evidence, what each signal added to its score."""
    out = {}
    for row, shown in draft.shown.items():
        why = draft.why[row]
        if why.beside is None:
            out[shown.cube.id] = why.text + (_signals(found[row]) if why.text == EVIDENCE else "")
        elif why.beside in draft.shown:
            out[shown.cube.id] = f"beside evidence {refs[draft.shown[why.beside].cube.id]}"
        else:
            out[shown.cube.id] = "beside evidence that did not fit"
    return out


def omissions(draft: Draft, found: Mapping[int, Evidence]) -> list[Omitted]:
    """Cubes that were looked at or nearly so, the best first, then the rest by session. O(rows) numpy."""
    named = dict(draft.left_out)
    unseen = (row for row in found if row not in draft.shown and row not in named)
    named.update(dict.fromkeys(islice(unseen, NEAR_MISSES), NO_ROOM))
    scene = draft.scene
    ranked = sorted(named, key=lambda row: (found[row].rank if row in found else len(found), row))
    out = [_shortened(shown, found) for shown in draft.shown.values() if shown.span is not None]
    for row, cube in zip(ranked, scene.cubes(ranked), strict=True):
        out.append(
            Omitted(
                reason=named[row], cube=cube.id, session=cube.header.scope.session, score=_score(found, row)
            )
        )
    return out + list(_rest(draft, named))


def _signals(evidence: Evidence) -> str:
    told = ", ".join(f"{name} {value:.2g}" for name, value in evidence.signals.items() if value)
    return f": {told}" if told else ""


def _shortened(shown: Shown, found: Mapping[int, Evidence]) -> Omitted:
    spans = sentence_spans(shown.text)
    start, end = shown.span or (0, len(shown.text))
    kept = sum(start <= first and last <= end for first, last in spans)
    return Omitted(
        reason=f"shortened to {kept} of {len(spans)} sentences",
        cube=shown.cube.id,
        session=shown.scope.session,
        score=_score(found, shown.row),
    )


def _rest(draft: Draft, named: Mapping[int, str]) -> Iterator[Omitted]:
    """By session, those with the most first; beyond `MOST_SESSIONS` in one sum."""
    scene = draft.scene
    left = np.ones(scene.count, np.bool_)
    left[[*draft.shown, *named]] = False
    sessions, counts = np.unique(scene.session[left], return_counts=True)
    order = np.argsort(-counts, kind="stable")
    for place in order[:MOST_SESSIONS].tolist():
        name = scene.scope(int(scene.session_starts[sessions[place]])).session
        yield Omitted(reason=NOT_BEST, session=name, count=int(counts[place]))
    if further := order[MOST_SESSIONS:].tolist():
        count = int(counts[further].sum())
        yield Omitted(reason=f"{NOT_BEST}, in {len(further):,} further sessions", count=count)


def _score(found: Mapping[int, Evidence], row: int) -> float | None:
    return found[row].score if row in found else None
