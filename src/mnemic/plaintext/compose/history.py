"""How many tokens the whole history takes, without counting 100,000 texts at every question."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from mnemic.models.tokens import TokenCounter
from mnemic.plaintext.compose.render import REF_LENGTH, Shown, chronological, heading, line, make_refs, render
from mnemic.plaintext.compose.scene import Scene
from mnemic.plaintext.compose.sentences import said

SAMPLE: Final = 24
MARGIN: Final = 1.3  # an estimate up to so many times the limit is checked by an exact count
MOST_CHARS: Final = (
    24  # no tokenizer's tokens are longer than this on average: beyond, nothing need be counted
)


@dataclass(frozen=True, slots=True)
class History:
    """Tokens of everything within reach, rendered. `all` holds every text where they were counted exactly."""

    tokens: int
    all: tuple[Shown, ...] | None

    @property
    def exact(self) -> bool:
        return self.all is not None


def count_history(scene: Scene, count: TokenCounter, *, near: int) -> History:
    """Exact for a few texts, and near the limit `near`; else some texts, evenly spread, stand for all.

    `SAMPLE` texts are read, or O(near) characters where it is exact; O(rows) to sum up the words.
    """
    if not scene.count:
        return History(0, ())
    estimate = _estimate(scene, count, near)
    if scene.count <= SAMPLE or estimate <= MARGIN * near:
        shown = _texts(scene, range(scene.count))
        if sum(len(one.text) for one in shown) <= MOST_CHARS * MARGIN * near:
            ordered = tuple(chronological(one for one in shown if one.text))
            text = render(ordered, make_refs(one.cube.id for one in ordered))
            return History(count(text), ordered)
    return History(max(estimate, near + 1), None)


def _estimate(scene: Scene, count: TokenCounter, near: int) -> int:
    """From the words of all texts, which the index knows, and the tokens of a word and of what stands around
    a text, which a sample shows.
    """
    rows = np.unique(np.linspace(0, scene.count - 1, min(SAMPLE, scene.count)).astype(int)).tolist()
    sample = _texts(scene, rows)
    around = count(f"\n{line(replace(sample[0], text=''), 'f' * REF_LENGTH, clock='')}")
    most = MOST_CHARS * near
    tokens = sum(count(one.text) if len(one.text) <= most else len(one.text) // 4 for one in sample)
    of_word = tokens / max(1, int(scene.words[rows].sum()))
    headings = count(f"\n{heading(sample[0])}") * (len(scene.session_starts) - 1)
    return round(of_word * int(scene.words.sum()) + around * scene.count) + headings


def _texts(scene: Scene, rows: range | list[int]) -> list[Shown]:
    return [Shown(row, cube, said(cube)) for row, cube in zip(rows, scene.cubes(rows), strict=True)]
