"""Arrays that grow at the end at amortised cost."""

from __future__ import annotations

from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

Scalar = TypeVar("Scalar", bound=np.generic)


class Growing(Generic[Scalar]):
    """An array of fixed row shape. `view` is what has been appended; it is invalid after the next append."""

    def __init__(self, dtype: type[Scalar], *row: int) -> None:
        self._data: NDArray[Scalar] = np.empty((0, *row), dtype)
        self._size = 0

    @property
    def view(self) -> NDArray[Scalar]:
        """(rows, …), contiguous."""
        return self._data[: self._size]

    @property
    def nbytes(self) -> int:
        return self._data.nbytes

    def append(self, rows: NDArray[Any]) -> None:
        """Add rows. Exactly as many as fit the first time, then half as much again: amortised O(rows)."""
        size = self._size + len(rows)
        if size > len(self._data):
            self.reserve(size if self._size == 0 else size + size // 2)
        self._data[self._size : size] = rows
        self._size = size

    def reserve(self, rows: int) -> None:
        """Make room for so many rows in all."""
        if rows > len(self._data):
            data = np.empty((rows, *self._data.shape[1:]), self._data.dtype)
            data[: self._size] = self.view
            self._data = data

    def clear(self) -> None:
        self._size = 0
