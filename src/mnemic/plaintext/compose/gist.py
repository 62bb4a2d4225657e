"""What each session was about, in its own words: its most central sentence. No model, nothing invented."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Final

import numpy as np

from mnemic.plaintext.compose.render import Shown
from mnemic.plaintext.compose.scene import Scene
from mnemic.plaintext.compose.sentences import said, sentence_spans
from mnemic.plaintext.compose.words import words

MAX_CUBES: Final = 40  # a longer session is sampled evenly


def gists(scene: Scene, *, limit: int) -> Iterator[Shown]:
    """One sentence of each of the last `limit` sessions, the latest session first. O(40 cubes a session)."""
    starts = scene.session_starts
    last = np.array([scene.at[end - 1] for end in starts[1:]], np.int64)
    for session in np.argsort(-last, kind="stable")[:limit].tolist():
        first, end = int(starts[session]), int(starts[session + 1])
        rows = np.unique(np.linspace(first, end - 1, min(MAX_CUBES, end - first)).astype(int)).tolist()
        if (found := _central(scene, rows)) is not None:
            yield found


def _central(scene: Scene, rows: list[int]) -> Shown | None:
    """The sentence whose words the session uses most (SumBasic's average, Nenkova & Vanderwende 2005).

    Counted by cube, not by use; sentences of fewer than four content words are damped.
    """
    texts = [Shown(row, cube, said(cube)) for row, cube in zip(rows, scene.cubes(rows), strict=True)]
    places = [(one, span) for one in texts for span in sentence_spans(one.text)]
    found = [set(some) for some in words([one.text[start:end] for one, (start, end) in places])]
    used: dict[int, set[str]] = {}
    for (one, _), some in zip(places, found, strict=True):
        used.setdefault(one.row, set()).update(some)
    spread = Counter(word for some in used.values() for word in some)
    best, choice = 0.0, None
    for (one, span), some in zip(places, found, strict=True):
        score = sum(spread[word] for word in some) / max(4, len(some))
        if score > best:
            best, choice = score, Shown(one.row, one.cube, one.text, span)
    return choice
