"""Signals to one order: each by its spread over what may be seen, weighed, summed, best first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Final, NamedTuple

import numpy as np

from mnemic.cube.errors import InvalidOption
from mnemic.index.scope import ScopeIndex
from mnemic.plaintext.recall.question import Question
from mnemic.plaintext.recall.signals import SIGNALS, BoolArray, FloatArray, View

SPARE: Final = 16  # candidates beyond k: a duplicate among the best then costs no place


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """What each signal weighs, in standard deviations of its values over what may be seen; 0 leaves it out.

    The defaults were fitted by `mnemic bench fit`; docs/recall.md says on what. Raises InvalidOption for a
    weight that is no finite number.
    """

    lexical: float = 0.8
    lexical_around: float = 0.6
    lexical_follow: float = 0.4
    dense: float = 0.6
    dense_around: float = 0.5
    feedback: float = 0.2
    session: float = 0.2
    speaker: float = 0.5
    statement: float = 0.3
    answer_type: float = 0.2
    names: float = 0.1
    time: float = 0.4
    opening: float = 0.1
    recency: float = 0.1

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not np.isfinite(value):
                raise InvalidOption(f"the weight of {field.name} must be a finite number, got {value!r:.40}")


class Ranked(NamedTuple):
    """A row of the `view`-th index that was given, its score, and what each signal added to it."""

    view: int
    row: int
    score: float
    signals: dict[str, float]


def rank(
    question: Question,
    indexes: Sequence[ScopeIndex],
    masks: Sequence[BoolArray | None],
    *,
    weights: Weights,
    k: int,
) -> list[Ranked]:
    """The k best of the rows that `masks` let through (None: all), or fewer, best first.

    Of texts of the same words only the best is kept; a cube without text is never ranked. Equal scores are
    ordered by place in the log. O(rows), every signal over every row.
    """
    views = [View(question, index, mask) for index, mask in zip(indexes, masks, strict=True)]
    seen = [np.flatnonzero(view.mask & (view.index.text_hash != 0)) for view in views]
    total = np.zeros(sum(map(len, seen)), np.float32)
    if not len(total):
        return []
    added: dict[str, FloatArray] = {}
    for name, signal in SIGNALS.items():
        if weight := getattr(weights, name):
            values = np.concatenate([signal(view)[rows] for view, rows in zip(views, seen, strict=True)])
            added[name] = np.float32(weight) * spread(values)
            total += added[name]
    number = np.repeat(np.arange(len(views)), [len(rows) for rows in seen])
    row = np.concatenate(seen)
    texts = np.concatenate([view.index.text_hash[rows] for view, rows in zip(views, seen, strict=True)])
    return [
        Ranked(
            int(number[place]),
            int(row[place]),
            float(total[place]),
            {name: float(values[place]) for name, values in added.items()},
        )
        for place in _best(total, texts, k)
    ]


def spread(values: FloatArray) -> FloatArray:
    """Distance from the mean in standard deviations; 0 where all are equal."""
    mean, deviation = values.mean(dtype=np.float64), values.std(dtype=np.float64)
    if deviation < 1e-9:
        return np.zeros_like(values)
    return (values - np.float32(mean)) * np.float32(1 / deviation)


def _best(total: FloatArray, texts: np.ndarray[tuple[int], np.dtype[np.uint64]], k: int) -> list[int]:
    """Places of the k best, one for each text; ties by place. O(rows + k log k) unless duplicates abound."""
    wanted = k + SPARE
    while True:
        if wanted < len(total):
            limit = np.partition(total, len(total) - wanted)[len(total) - wanted]
            places = np.flatnonzero(total >= limit)
        else:
            places = np.arange(len(total))
        places = places[np.argsort(-total[places], kind="stable")]
        first = np.unique(texts[places], return_index=True)[1]
        if len(first) >= k or len(places) == len(total):
            return [int(place) for place in places[np.sort(first)[:k]]]
        wanted *= 4
