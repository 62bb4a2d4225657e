"""Scope indexes in memory: opened on first use, caught up with the log before each search, the oldest dropped
first.

Used under `lock`, taken before the read transaction begins: an index then never knows more than the snapshot.
"""

from __future__ import annotations

import gc
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from mnemic.cube.errors import EmbedderMismatch
from mnemic.cube.model import Origin, Scope
from mnemic.index.columns import HeaderColumns
from mnemic.index.facts import Facts
from mnemic.index.scope import ScopeIndex
from mnemic.vault.database import ForkSafeLock
from mnemic.vault.log import LogRow, Position
from mnemic.vault.snapshot import ModelRow, Snapshot

DEFAULT_BYTES = 512 << 20
PASTS = 4  # moments in the past that are kept


@dataclass(slots=True)
class Part:
    """An index and what was read of its rows' headers."""

    index: ScopeIndex
    columns: HeaderColumns | None = None


@dataclass(slots=True)
class Entry:
    """One space and how far into its log it has been read.

    What was told and what was derived from it are indexes apart: deriving changes no score of what was told.
    stale: derived cubes that are not current, because what they were made from has changed.
    """

    told: Part
    made: Part
    position: Position
    stale: frozenset[bytes] = frozenset()
    scopes: Mapping[int, Scope] | None = None
    facts: Facts | None = None
    cited: tuple[Position, Any] | None = None  # what derived rows rest on, and as of when
    bytes: int = 0  # when it was last weighed

    @property
    def indexes(self) -> tuple[ScopeIndex, ScopeIndex]:
        return self.told.index, self.made.index


class IndexCache:
    """At most `max_bytes` of scope indexes (the one in use always stays).

    What a search adds to an index, such as its vectors, is weighed when the next index is asked for.
    """

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
        self._past: OrderedDict[tuple[int, int, Position], Entry] = OrderedDict()
        self._bytes = 0  # of all entries, as they were last weighed
        self._used: Entry | None = None  # the last that was given out

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
        if entry is not None and (now is None or entry.position.epoch != now.epoch):
            self._drop(self._entries, space)
            entry = None
        if now is None:
            return None
        if entry is None:
            self._check_models(snapshot)
            entry = self._entries[space] = self._new_entry(now.epoch)
        number = self._dense.number if self._dense else None
        if now.seq > entry.position.seq:
            with _uncollected():
                rows = snapshot.since(space, entry.position.seq, lexical=self._lexical.number, dense=number)
                _take_in(entry, rows)
                del rows
            if entry.made.index.size:
                entry.stale = snapshot.stale(space)
            entry.position = now
        if number is not None:
            for part in (entry.told, entry.made):
                if pending := part.index.pending():
                    late = snapshot.features_after(space, min(pending) - 1, number)
                    part.index.fill_dense({seq: late[seq] for seq in pending if seq in late})
        self._entries.move_to_end(space)
        self._make_room(entry)
        return entry

    def past(self, snapshot: Snapshot, space: int, moment: int) -> Entry | None:
        """A space as it was known at a moment; None when the space is gone.

        Equal to that of a vault that was told nothing since. O(versions of the space), and O(1) where it was
        asked for lately and nothing was written since.
        """
        now = snapshot.position(space)
        if now is None:
            return None
        key = (space, moment, now)
        if key not in self._past:
            self._check_models(snapshot)
            number = self._dense.number if self._dense else None
            rows = snapshot.since(space, 0, lexical=self._lexical.number, dense=number)
            entry = self._new_entry(now.epoch)
            _take_in(entry, [row for row in rows if row.recorded_at <= moment])
            entry.position = now
            if entry.made.index.size:
                entry.stale = snapshot.stale_at(space, moment)
            self._past[key] = entry
        self._past.move_to_end(key)
        while len(self._past) > PASTS:
            self._drop(self._past, next(iter(self._past)))
        self._make_room(self._past[key])
        return self._past[key]

    def _new_entry(self, epoch: int) -> Entry:
        return Entry(Part(self._new_index()), Part(self._new_index()), Position(0, epoch))

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

    def columns(self, snapshot: Snapshot, space: int, part: Part) -> HeaderColumns:
        """The header columns of an index. O(new rows), or O(rows) after an update or delete."""
        seqs = part.index.seq
        if part.columns is None or not part.columns.is_prefix_of(seqs):
            part.columns = HeaderColumns()
        known = part.columns.seqs
        if len(known) < len(seqs):
            headers = snapshot.headers(space, after=int(known[-1]) if len(known) else 0)
            part.columns.extend(seqs, [headers[seq] for seq in seqs[len(known) :].tolist()])
        return part.columns

    def facts(self, snapshot: Snapshot, space: int, entry: Entry) -> Facts:
        """What the derived cubes of a space say of whom. O(1), and O(facts) when they have changed."""
        index = entry.made.index
        if entry.facts is None:
            entry.facts = Facts()
        if not entry.facts.are_of(index.seq):
            unread = entry.facts.unread(index.seq)
            headers = snapshot.headers(space, after=unread[0] - 1) if unread else {}
            entry.facts.read(index, headers)
        return entry.facts

    def forget(self) -> None:
        """Drop every index, also those of the past: what they hold was erased. Call it under `lock`."""
        self._entries.clear()
        self._past.clear()
        self._bytes, self._used = 0, None

    def stats(self) -> dict[str, int]:
        """How many spaces, cubes and bytes are held. O(spaces)."""
        indexes = [one for entry in (*self._entries.values(), *self._past.values()) for one in entry.indexes]
        return {
            "spaces": len(self._entries),
            "cubes": sum(index.size for index in indexes),
            "bytes": sum(index.memory_bytes for index in indexes),
        }

    def _make_room(self, entry: Entry) -> None:
        """Drop others while there is too much: those of the past first, and of either what was used longest
        ago. O(1), and O(entries) where some are dropped.
        """
        for one in (self._used, entry):
            if one is not None:
                self._weigh(one)
        self._used = entry
        if self._bytes <= self._max_bytes:
            return
        older: list[tuple[OrderedDict[Any, Entry], Any]] = [(self._past, key) for key in self._past]
        older += [(self._entries, key) for key in list(self._entries)[:-1]]
        for held, key in older:
            if self._bytes > self._max_bytes and held[key] is not entry:
                self._drop(held, key)

    def _weigh(self, entry: Entry) -> None:
        grown = sum(index.memory_bytes for index in entry.indexes) - entry.bytes
        entry.bytes += grown
        self._bytes += grown

    def _drop(self, held: OrderedDict[Any, Entry], key: Any) -> None:
        entry = held.pop(key)
        self._bytes -= entry.bytes
        if entry is self._used:
            self._used = None


@contextmanager
def _uncollected() -> Iterator[None]:
    """Rows come by the thousand and none of them is garbage yet: without this, a third of loading an index

    is Python looking for some among them.
    """
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()


def _take_in(entry: Entry, rows: Sequence[LogRow]) -> None:
    """Rows to the index they belong to: a cube's origin is the same for all its life."""
    made = [row for row in rows if row.origin == Origin.derived]
    entry.told.index.apply([row for row in rows if row.origin != Origin.derived] if made else rows)
    if made:
        entry.made.index.apply(made)
