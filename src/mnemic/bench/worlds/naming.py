"""Rapid naming in symbols (after Lampinen et al. 2021, whose task is 3-D): things, their names, a question.

A chunk of eight steps is about one thing: one step says its name, three show an attribute each (a type and
its value), four are noise, in any order. The question is a name and a type. The value stands at another step
than the name it belongs to, so that whoever looks at steps alone cannot tell whose it is.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mnemic.cube.errors import InvalidOption

NAMES, TYPES, VALUES, STEPS = 48, 3, 8, 8
FEATURES: Final = NAMES + TYPES + VALUES + 1  # one-hot, the last says that a value is noise
CHANCE: Final = 1 / VALUES


class Episodes(NamedTuple):
    """`told` float32 (rows, chunks · STEPS, FEATURES), `asked` (rows, FEATURES); `answers` int64 (rows,)."""

    told: NDArray[np.float32]
    asked: NDArray[np.float32]
    answers: NDArray[np.int64]


def episodes(rows: int, chunks: int, draws: np.random.Generator) -> Episodes:
    """Fresh episodes of `chunks` things with different names. Raises InvalidOption beyond NAMES."""
    if not 1 <= chunks <= NAMES:
        raise InvalidOption(f"chunks must be 1 to {NAMES}, one a name, got {chunks}")
    names = draws.random((rows, NAMES)).argsort(1)[:, :chunks]
    values = draws.integers(VALUES, size=(rows, chunks, TYPES))
    noises = draws.integers(VALUES, size=(rows, chunks, STEPS - 1 - TYPES))
    told = np.zeros((rows, chunks, STEPS, FEATURES), np.float32)
    _light(told[:, :, 0], names)
    for kind in range(TYPES):
        told[:, :, 1 + kind, NAMES + kind] = 1
        _light(told[:, :, 1 + kind], NAMES + TYPES + values[:, :, kind])
    for n in range(noises.shape[2]):
        told[:, :, 1 + TYPES + n, -1] = 1
        _light(told[:, :, 1 + TYPES + n], NAMES + TYPES + noises[:, :, n])
    order = draws.random((rows, chunks, STEPS)).argsort(2)
    steps = np.take_along_axis(told, order[..., None], 2).reshape(rows, chunks * STEPS, FEATURES)
    row, which, of = np.arange(rows), draws.integers(chunks, size=rows), draws.integers(TYPES, size=rows)
    asked = np.zeros((rows, FEATURES), np.float32)
    asked[row, names[row, which]] = 1
    asked[row, NAMES + of] = 1
    return Episodes(steps, asked, values[row, which, of])


def _light(told: NDArray[np.float32], at: NDArray[Any]) -> None:
    """Put a one at `at` (rows, chunks) of told (rows, chunks, FEATURES), in place."""
    np.put_along_axis(told, at[..., None], 1, -1)
