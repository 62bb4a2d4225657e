"""How many tokens the whole history takes, without counting 100,000 texts at every question."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from mnemic.models.tokens import TokenCounter
from mnemic.plaintext.compose.render import REF_LENGTH, Shown, chronological, heading, line, make_refs, render
from mnemic.plaintext.compose.scene import Scene
from mnemic.plaintext.compose.sentences import said

SAMPLE: Final = 64
MARGIN: Final = 1.5  # an estimate up to so many times the limit is checked by an exact count
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
    """Exact for up to 64 texts, and near the limit `near`; else 64 texts, evenly spread, stand for all.

    O(64) texts read, or O(near) where it is exact.
    """
    sample = np.unique(np.linspace(0, scene.count - 1, min(SAMPLE, scene.count)).astype(int)).tolist()
    estimate = _estimate(scene, _texts(scene, sample), count, near)
    if scene.count <= SAMPLE or estimate <= MARGIN * near:
        shown = _texts(scene, range(scene.count))
        if sum(len(one.text) for one in shown) <= MOST_CHARS * MARGIN * near:
            ordered = tuple(chronological(one for one in shown if one.text))
            text = render(ordered, make_refs(one.cube.id for one in ordered))
            return History(count(text), ordered)
    return History(max(estimate, near + 1), None)


def _estimate(scene: Scene, sample: list[Shown], count: TokenCounter, near: int) -> int:
    """Tokens of the history from those of a sample, and a heading for every session."""
    cap = MOST_CHARS * near
    tokens = sum(
        count("\n" + line(one, "f" * REF_LENGTH, clock="")) if len(one.text) <= cap else len(one.text) // 4
        for one in sample
    )
    headings = count("\n" + heading(sample[0])) * (len(scene.session_starts) - 1)
    return round(tokens / len(sample) * scene.count) + headings


def _texts(scene: Scene, rows: range | list[int]) -> list[Shown]:
    return [Shown(row, cube, said(cube)) for row, cube in zip(rows, scene.cubes(rows), strict=True)]
