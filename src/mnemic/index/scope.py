"""One space in memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray


class IndexRow(NamedTuple):
    seq: int
    cube: bytes
    version: bytes
    scope: int
    kind: int
    origin: int
    deleted: int
    at: int
    recorded_at: int
    valid_from: int | None
    valid_to: int | None
    expires_at: int | None
    lexical: bytes
    dense: bytes | None


class ScopeIndex:
    def __init__(self, *, table: NDArray[Any] | None, dim: int) -> None:
        self.table, self.dim = table, dim
        self._rows: dict[bytes, IndexRow] = {}
        self.apply([])

    def apply(self, rows: Sequence[IndexRow]) -> None:
        for row in rows:
            self._rows.pop(row.cube, None)
            if not row.deleted:
                self._rows[row.cube] = row
        live = sorted(self._rows.values())
        self.rows = live
        self.seq = np.array([row.seq for row in live], np.int64)
        self.scope = np.array([row.scope for row in live], np.int64)
        self.kind = np.array([row.kind for row in live], np.int64)
        self.origin = np.array([row.origin for row in live], np.int64)
        self.at = np.array([row.at for row in live], np.int64)
        self.recorded_at = np.array([row.recorded_at for row in live], np.int64)
        far = np.iinfo(np.int64)
        self.valid_from = np.array(
            [far.min if row.valid_from is None else row.valid_from for row in live], np.int64
        )
        self.valid_to = np.array(
            [far.max if row.valid_to is None else row.valid_to for row in live], np.int64
        )
        self.expires_at = np.array(
            [far.max if row.expires_at is None else row.expires_at for row in live], np.int64
        )

    def pending(self) -> set[int]:
        return {row.seq for row in self.rows if row.dense is None}

    def fill_dense(self, features: Mapping[int, bytes]) -> None:
        self.apply([row._replace(dense=features[row.seq]) for row in self.rows if row.seq in features])

    @property
    def size(self) -> int:
        return len(self.rows)

    @property
    def memory_bytes(self) -> int:
        return len(self.rows) * 2000
