"""Header fields of a scope index as columns: each distinct value once, and a code per row.

A filter is tried on the distinct values only, then spread over the rows: O(distinct) Python, O(rows) numpy.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mnemic.index.arrays import Growing

BoolArray = NDArray[np.bool_]


class HeaderColumns:
    """Columns over the headers of an index's rows, made when first asked for and extended when rows follow.

    `seqs` are those of the rows that were read. Labels and lists hold several values.
    """

    def __init__(self) -> None:
        self.seqs: NDArray[np.int64] = np.empty(0, np.int64)
        self._headers: list[dict[str, Any]] = []
        self._columns: dict[str, _Column] = {}

    def is_prefix_of(self, seqs: NDArray[np.int64]) -> bool:
        """Were rows only added since? O(rows)."""
        return np.array_equal(self.seqs, seqs[: len(self.seqs)])

    def extend(self, seqs: NDArray[np.int64], headers: Iterable[bytes]) -> None:
        """Take in the headers of the rows that follow; `seqs` are all of them. O(new rows)."""
        self._headers += [json.loads(header) for header in headers]
        self.seqs = seqs.copy()

    def rows_where(self, field: str, accepts: Callable[[Any], bool]) -> BoolArray:
        """(rows,) rows with a value of `field` that is accepted; a missing value counts as None."""
        column = self._columns.setdefault(field, _Column(field))
        column.read(self._headers)
        accepted = np.fromiter(map(accepts, column.values), np.bool_, len(column.values))
        out = np.zeros(len(self._headers), np.bool_)
        out[column.rows.view[accepted[column.codes.view]]] = True
        return out


class _Column:
    def __init__(self, field: str) -> None:
        self._field, _, self._key = field.partition(".")
        self._codes: dict[tuple[type, Any], int] = {}  # with the type: True is not 1
        self._read = 0
        self.values: list[Any] = []
        self.codes = Growing(np.int64)
        self.rows = Growing(np.int64)

    def read(self, headers: list[dict[str, Any]]) -> None:
        codes, rows = [], []
        for row in range(self._read, len(headers)):
            value = headers[row].get(self._field)
            if self._key:
                value = (value or {}).get(self._key)
            for one in value if isinstance(value, list) else (value,):
                code = self._codes.setdefault((type(one), one), len(self.values))
                if code == len(self.values):
                    self.values.append(one)
                codes.append(code)
                rows.append(row)
        self._read = len(headers)
        self.codes.append(np.array(codes, np.int64))
        self.rows.append(np.array(rows, np.int64))
