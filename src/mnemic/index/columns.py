"""Header fields of a scope index as columns: each distinct value once, and a code per row.

A filter is tried on the distinct values only, then spread over the rows: O(distinct) Python, O(rows) numpy.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

BoolArray = NDArray[np.bool_]


class HeaderColumns:
    """Columns over the headers of an index's rows, made when first asked for.

    Labels and lists hold several values.
    """

    def __init__(self, headers: Sequence[bytes]) -> None:
        self._headers = [json.loads(header) for header in headers]
        self._columns: dict[str, tuple[list[Any], NDArray[np.int64], NDArray[np.int64]]] = {}

    def rows_where(self, field: str, accepts: Callable[[Any], bool]) -> BoolArray:
        """(rows,) rows with a value of `field` that is accepted; a missing value counts as None."""
        values, codes, rows = self._column(field)
        accepted = np.fromiter((accepts(value) for value in values), np.bool_, len(values))
        out = np.zeros(len(self._headers), np.bool_)
        out[rows[accepted[codes]]] = True
        return out

    def _column(self, field: str) -> tuple[list[Any], NDArray[np.int64], NDArray[np.int64]]:
        if field not in self._columns:
            distinct: dict[Any, int] = {}
            codes: list[int] = []
            rows: list[int] = []
            top, _, key = field.partition(".")
            for i, header in enumerate(self._headers):
                value = header.get(top)
                if key:
                    value = (value or {}).get(key)
                for one in value if isinstance(value, list) else (value,):
                    codes.append(distinct.setdefault(one, len(distinct)))
                    rows.append(i)
            self._columns[field] = (list(distinct), np.array(codes, np.int64), np.array(rows, np.int64))
        return self._columns[field]
