"""Scope indexes in memory: opened on first use, caught up with the log before each search, the oldest dropped
first.

Used under `lock`, taken before the read transaction begins: an index then never knows more than the snapshot.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from mnemic.cube.errors import EmbedderMismatch
from mnemic.cube.model import Scope
from mnemic.index.columns import HeaderColumns
from mnemic.index.scope import ScopeIndex
from mnemic.vault.database import ForkSafeLock
from mnemic.vault.log import Position
from mnemic.vault.vault import ModelRow, Snapshot

DEFAULT_BYTES = 512 << 20


@dataclass(slots=True)
class Entry:
    """One space's index and how far into its log it has read."""

    index: ScopeIndex
    position: Position
    columns: HeaderColumns | None = None
    scopes: Mapping[int, Scope] | None = None


class IndexCache:
    """At most `max_bytes` of scope indexes (the one in use always stays)."""

    def __init__(
        self,
        *,
        lexical: ModelRow,
        dense: ModelRow | None,
        table: Callable[[], NDArray[Any]] | None,
        max_bytes: int = DEFAULT_BYTES,
    ) -> None:
        self.lock = ForkSafeLock()
        self._lexical, self._dense = lexical, dense
        self._table = table
        self._max_bytes = max_bytes
        self._entries: OrderedDict[int, Entry] = OrderedDict()

    @property
    def dim(self) -> int:
        """Of the vectors that are searched."""
        return self._dense.dim if self._dense else 0

    def catch_up(self, snapshot: Snapshot, space: int) -> Entry | None:
        """The index of a space as of this snapshot; None when the space is gone.

        O(changes since the last look).
        """
        now = snapshot.position(space)
        entry = self._entries.get(space)
        if now is None:
            self._entries.pop(space, None)
            return None
        if entry is None or entry.position.epoch != now.epoch:
            self._check_models(snapshot)
            entry = self._entries[space] = Entry(self._new_index(), Position(0, now.epoch))
        number = self._dense.number if self._dense else None
        if now.seq > entry.position.seq:
            rows = snapshot.since(space, entry.position.seq, lexical=self._lexical.number, dense=number)
            entry.index.apply(rows)
            entry.position = now
        if number is not None and (pending := entry.index.pending()):
            late = snapshot.features_after(space, min(pending) - 1, number)
            entry.index.fill_dense({seq: late[seq] for seq in pending if seq in late})
        self._entries.move_to_end(space)
        self._evict()
        return entry

    def scopes(self, snapshot: Snapshot, space: int) -> Mapping[int, Scope]:
        """The names of a space's scopes, read again only when its log has moved since the last look."""
        entry = self._entries.get(space)
        if entry is None or entry.scopes is None or entry.position != snapshot.position(space):
            return snapshot.scopes(space)
        return entry.scopes

    def _new_index(self) -> ScopeIndex:
        table = self._table() if self._table else None
        return ScopeIndex(table=table, dim=self.dim)

    def _check_models(self, snapshot: Snapshot) -> None:
        active = {model.number for model in snapshot.models() if model.active}
        for model in (self._lexical, self._dense):
            if model is not None and model.number not in active:
                raise EmbedderMismatch(
                    f"this vault is no longer searched by {model.name!r}: it was re-embedded meanwhile. "
                    "Close it and open it again."
                )

    def columns(self, snapshot: Snapshot, space: int) -> HeaderColumns:
        """The header columns of a space's index. O(new rows), or O(rows) after an update or delete."""
        entry = self._entries[space]
        seqs = entry.index.seq
        if entry.columns is None or not entry.columns.is_prefix_of(seqs):
            entry.columns = HeaderColumns()
        known = entry.columns.seqs
        if len(known) < len(seqs):
            headers = snapshot.headers(space, after=int(known[-1]) if len(known) else 0)
            entry.columns.extend(seqs, [headers[seq] for seq in seqs[len(known) :].tolist()])
        return entry.columns

    def stats(self) -> dict[str, int]:
        """How many spaces, cubes and bytes are held."""
        indexes = [entry.index for entry in self._entries.values()]
        return {
            "spaces": len(indexes),
            "cubes": sum(index.size for index in indexes),
            "bytes": sum(index.memory_bytes for index in indexes),
        }

    def _evict(self) -> None:
        while len(self._entries) > 1 and self.stats()["bytes"] > self._max_bytes:
            self._entries.popitem(last=False)
