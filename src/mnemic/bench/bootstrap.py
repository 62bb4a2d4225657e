"""Percentile bootstrap over questions (Efron 1979), paired between systems, vectorised, seeded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean over questions and the interval that holds it with the stated confidence."""

    mean: float
    low: float
    high: float

    def excludes_zero(self) -> bool:
        return self.low > 0 or self.high < 0


def resampled_means(values: Values, *, draws: int = 10_000, seed: int = 0) -> Values:
    """Means of `draws` resamples, (draws,) or (draws, columns), of values (questions,) or (…, columns).

    One seed and one number of questions give the same resamples: differences between two calls are paired.
    O(draws x questions).
    """
    n = len(values)
    rng = np.random.default_rng(seed)
    means = []
    for start in range(0, draws, 1_000):
        counts = rng.multinomial(n, np.full(n, 1 / n), size=min(1_000, draws - start))
        means.append(counts @ values / n)
    return np.concatenate(means)


def interval(values: Values, *, confidence: float = 0.95, draws: int = 10_000, seed: int = 0) -> Interval:
    """Mean and interval of one value a question."""
    return _interval(values, resampled_means(values, draws=draws, seed=seed), confidence)


def paired_difference(
    first: Values, second: Values, *, confidence: float = 0.95, draws: int = 10_000, seed: int = 0
) -> Interval:
    """Mean and interval of first - second, question by question."""
    if len(first) != len(second):
        raise ValueError(
            f"paired values must belong to the same questions: {len(first)} against {len(second)}"
        )
    return interval(first - second, confidence=confidence, draws=draws, seed=seed)


def rank_ranges(
    values: Mapping[str, Values], *, confidence: float = 0.95, draws: int = 10_000, seed: int = 0
) -> dict[str, tuple[int, int]]:
    """The places each system may hold: below all that are shown to be better, above all shown to be worse.

    Shown means that the paired interval excludes zero; a range of several places is a tie left open.

    The intervals are not corrected for the number of pairs.
    """
    names = list(values)
    table = np.stack([values[name] for name in names], axis=1)
    means = resampled_means(table, draws=draws, seed=seed)
    tail = (1 - confidence) / 2
    low = np.quantile(means[:, :, None] - means[:, None, :], tail, axis=0)  # (systems, systems), row - column
    better = (low > 0).sum(axis=0)  # systems shown to be better than the column's
    worse = (low > 0).sum(axis=1)
    return {name: (1 + int(better[i]), len(names) - int(worse[i])) for i, name in enumerate(names)}


def _interval(values: Values, means: Values, confidence: float) -> Interval:
    tail = (1 - confidence) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return Interval(float(values.mean()), float(low), float(high))
