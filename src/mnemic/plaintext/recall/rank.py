"""Signals to one order: each by its spread over what may be seen, weighed, summed, best first.

Two rounds: the sum of the direct signals is a first guess, from which the guessed ones are made.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from mnemic.cube.errors import InvalidOption
from mnemic.index.scope import BoolArray, ScopeIndex
from mnemic.plaintext.recall.question import Question
from mnemic.plaintext.recall.signals import DIRECT, FEEDBACK, GUESSED, FloatArray, Signal, View, likeness

SPARE: Final = 16  # candidates beyond what is asked for: duplicates among the best then cost no place
VARIED: Final = 64  # so many places are filled with an eye on variety; what follows is ordered by score alone
UNSEEN: Final = 30  # rows
LIFT: Final = 0.01  # how far above what it replaced a fact is put
# Mean and standard deviation of each signal over the turns of two LoCoMo dialogues, where it speaks.
USUAL: Final[Mapping[str, tuple[float, float]]] = MappingProxyType(
    {
        "lexical": (0.03, 0.08),
        "lexical_around": (0.12, 0.15),
        "lexical_follow": (0.07, 0.11),
        "coverage": (0.003, 0.02),
        "dense": (0.0, 0.09),
        "dense_around": (0.0, 0.12),
        "speaker": (0.5, 0.5),
        "statement": (0.7, 0.4),
        "answer_type": (0.15, 0.3),
        "names": (0.6, 0.6),
        "novelty": (1.6, 1.0),
        "time": (0.3, 0.3),
        "sequence": (0.25, 0.3),
        "opening": (-2.2, 0.8),
        "recency": (0.5, 0.3),
        "feedback": (0.0, 0.06),
        "session": (2.6, 1.3),
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """What each signal weighs, in standard deviations of its values over what may be seen; 0 leaves it out.

    `diversity` is what a cube loses by its likeness (cosine) to the most similar one before it. The defaults
    are those of `mnemic bench fit`; docs/recall.md says on what. Raises InvalidOption for a weight that is no
    finite number.
    """

    lexical: float = 0.05
    lexical_around: float = 0.246
    lexical_follow: float = 0.283
    coverage: float = 0.15
    dense: float = 0.05
    dense_around: float = 0.425
    speaker: float = 1.041
    statement: float = 0.302
    answer_type: float = 0.391
    names: float = 0.156
    novelty: float = 0.339
    time: float = 0.772
    sequence: float = 0.3
    opening: float = 0.128
    recency: float = 0.5
    feedback: float = 0.194
    session: float = 0.413
    diversity: float = 0.25

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not np.isfinite(value):
                raise InvalidOption(f"the weight of {field.name} must be a finite number, got {value!r:.40}")

    @classmethod
    def of(cls, named: Mapping[str, float]) -> Self:
        """From names and numbers; what is not named keeps its default. Raises InvalidOption."""
        known = [field.name for field in fields(cls)]
        if unknown := sorted(set(named) - set(known)):
            raise InvalidOption(f"there is no signal {', '.join(unknown)}; there are {', '.join(known)}")
        return cls(**named)

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> Self:
        """From the JSON file that `mnemic bench fit` writes. Raises InvalidOption."""
        try:
            return cls.of(json.loads(Path(path).read_text())["weights"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InvalidOption(
                f"{os.fspath(path)} holds no weights ({error}); mnemic bench fit writes such a file"
            ) from error


class Lift(NamedTuple):
    """In the `view`-th index, row `first` is to come before rows `others`."""

    view: int
    first: int
    others: Sequence[int]


class Ranked(NamedTuple):
    """A row of the `view`-th index that was given, its score, and what each signal added to it."""

    view: int
    row: int
    score: float
    signals: dict[str, float]


def rank(
    question: Question,
    indexes: Sequence[ScopeIndex],
    masks: Sequence[BoolArray],
    *,
    within: Sequence[BoolArray] | None = None,
    lifts: Sequence[Lift] = (),
    weights: Weights,
    k: int,
) -> list[Ranked]:
    """The k best of the rows that `masks` let through, or fewer, best first.

    within: the rows that the caller may see at all (default: `masks`). Scores rest on these alone; a mask
    that lets fewer through chooses among them and changes no score. lifts: rows that go before others,
    whatever the signals say; `signals["current"]` is what that added. Of texts of the same words only the
    best is kept; a cube without text is never ranked. Equal scores are ordered by place in the log. O(rows),
    every signal over every row.
    """
    seen = masks if within is None else within
    views = [View(question, index.within(mask)) for index, mask in zip(indexes, seen, strict=True)]
    added = dict(weighed(views, weights))
    rows = [np.flatnonzero(mask) for mask in seen]
    number = np.repeat(np.arange(len(views)), [len(of) for of in rows])
    chosen = np.concatenate([mask[of] for mask, of in zip(masks, rows, strict=True)]) if views else number
    texts = _joined([view.index.text_hash for view in views], np.uint64)
    chosen = np.flatnonzero(chosen & (texts != 0))
    total = np.zeros(len(number), np.float32)
    for values in added.values():
        total += values
    if lifts and (current := _lifted(lifts, total, rows, weights.diversity)).any():
        added["current"] = current
        total += current
    order = chosen[_best(total[chosen], texts[chosen], k + SPARE)]
    picked, lost = _varied(order, total, number, views, rows, k, weights.diversity)
    row = np.concatenate(rows) if rows else number
    return [
        Ranked(
            int(number[place]),
            int(row[place]),
            float(total[place]) - less,
            {name: float(values[place]) for name, values in added.items()} | {"diversity": -less},
        )
        for place, less in zip(picked, lost, strict=True)
    ]


def _lifted(
    lifts: Sequence[Lift], total: FloatArray, rows: Sequence[NDArray[np.int64]], margin: float
) -> FloatArray:
    """(rows of all views,) what brings each first row above its others, by what likeness may cost it."""
    starts = np.cumsum([0, *map(len, rows)])
    out = np.zeros_like(total)
    for view, first, others in lifts:
        mine = rows[view]
        places = np.searchsorted(mine, [first, *others])
        places = places[(places < len(mine)) & (mine[np.minimum(places, len(mine) - 1)] == [first, *others])]
        if len(places) > 1 and mine[places[0]] == first:
            above = float(total[starts[view] + places[1:]].max()) + max(margin, 0) + LIFT
            out[starts[view] + places[0]] = max(0.0, above - float(total[starts[view] + places[0]]))
    return out


def weighed(views: Sequence[View], weights: Weights) -> Iterator[tuple[str, FloatArray]]:
    """Each signal that weighs anything: its name and (rows of all views,) what it adds."""
    texts = _joined([view.index.text_hash for view in views], np.uint64) != 0
    some = None if texts.all() else texts
    total = np.zeros(len(texts), np.float32)
    for name, values in _scaled(DIRECT, views, weights, some):
        total += values
        yield name, values
    guess(views, total, texts)
    yield from _scaled(GUESSED, views, weights, some)


def guess(views: Sequence[View], total: FloatArray, texts: BoolArray) -> None:
    """Tell the views the first guess, (rows of all views,), and which of their rows are the likeliest."""
    places = np.flatnonzero(texts)
    if len(places) > FEEDBACK:
        limit = np.partition(total[places], len(places) - FEEDBACK)[len(places) - FEEDBACK]
        places = places[total[places] >= limit]
        places = np.sort(places[np.argsort(-total[places], kind="stable")][:FEEDBACK])
    start = 0
    for view in views:
        stop = start + view.index.size
        view.guess = total[start:stop]
        view.likeliest = places[(places >= start) & (places < stop)] - start
        start = stop


def spread(
    values: FloatArray, name: str, texts: BoolArray | None = None, *, weight: float = 1.0
) -> FloatArray:
    """A signal's distance from the mean in standard deviations, times `weight`; 0 where all are equal. Of
    rows with a text.

    Mean and deviation are estimated together with `UNSEEN` rows of what is usual for the signal: the first
    few things told would otherwise all be outstanding in something.
    """
    of = values if texts is None else values[texts]
    if not len(of) or float(of.max() - of.min()) < 1e-6:
        return np.zeros_like(values)
    usual, deviation = USUAL[name]
    rows = len(of) + UNSEEN
    mean = (of.sum(dtype=np.float64) + UNSEEN * usual) / rows
    scaled: FloatArray = values - np.float32(mean)
    own = float(np.square(scaled if texts is None else scaled[texts]).sum(dtype=np.float64))
    variance = (own + UNSEEN * (deviation**2 + (usual - mean) ** 2)) / rows
    scaled *= np.float32(weight * variance**-0.5)
    return scaled


def _scaled(
    signals: Mapping[str, Signal], views: Sequence[View], weights: Weights, texts: BoolArray | None
) -> Iterator[tuple[str, FloatArray]]:
    for name, signal in signals.items():
        if weight := getattr(weights, name):
            values = _joined([signal(view) for view in views], np.float32)
            yield name, spread(values, name, texts, weight=weight)


def _joined(parts: Sequence[NDArray[Any]], dtype: type[np.generic]) -> NDArray[Any]:
    return parts[0] if len(parts) == 1 else np.concatenate([np.empty(0, dtype), *parts])


def _best(total: FloatArray, texts: NDArray[np.uint64], k: int) -> NDArray[np.int64]:
    """Places of the k best, one for each text; ties by place. O(rows + k log k) unless duplicates abound."""
    wanted = k + SPARE
    while True:
        places = np.arange(len(total))
        if wanted < len(total):
            limit = np.partition(total, len(total) - wanted)[len(total) - wanted]
            places = np.flatnonzero(total >= limit)
        places = places[np.argsort(-total[places], kind="stable")]
        best: dict[int, int] = {}
        for text, place in zip(texts[places].tolist(), places.tolist(), strict=True):
            best.setdefault(text, place)
        if len(best) >= k or wanted >= len(total):
            return np.array(list(best.values())[:k], np.int64)
        wanted *= 4


def _varied(
    order: NDArray[np.int64],
    total: FloatArray,
    number: NDArray[np.int64],
    views: Sequence[View],
    rows: Sequence[NDArray[np.int64]],
    k: int,
    weight: float,
) -> tuple[list[int], list[float]]:
    """The k places that are taken one by one, each time the best after what likeness to the taken costs.

    Maximal marginal relevance (Carbonell & Goldstein 1998), on the candidates only. Places, and what each
    lost.
    """
    if not weight or not len(order):
        return order[:k].tolist(), [0.0] * min(k, len(order))
    starts = np.cumsum([0, *map(len, rows)])
    vectors = np.stack([views[number[place]].index.vectors[place - starts[number[place]]] for place in order])
    score, lost = total[order].astype(np.float64), np.zeros(len(order))
    left = np.ones(len(order), np.bool_)
    picked: list[int] = []
    for _ in range(min(k, VARIED, len(order))):
        one = int(np.argmax(np.where(left, score - lost, -np.inf)))
        left[one] = False
        picked.append(one)
        alike = np.where(left & (number[order] == number[order[one]]), likeness(vectors, vectors[one]), 0)
        np.maximum(lost, weight * alike, out=lost)
    rest = np.flatnonzero(left)
    picked += rest[np.argsort(-(score - lost)[rest], kind="stable")][: k - len(picked)].tolist()
    return order[picked].tolist(), lost[picked].tolist()
