"""One code path for both databases: statements written in SQLAlchemy Core, compiled once, run on the driver's
cursor.

A dialect (`sqlite.py`, `postgres.py`) knows how to connect, how to begin, and which typed error a driver's
error is.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from operator import itemgetter
from pathlib import Path
from typing import Any, NamedTuple, Protocol
from weakref import WeakSet

from sqlalchemy import BindParameter, bindparam
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.sql import ClauseElement

from mnemic.cube.errors import VaultClosed
from mnemic.cube.model import Scope
from mnemic.cube.times import Clock, now
from mnemic.vault.codec import Draft, Stored
from mnemic.vault.columns import Columns, In, Out, columns_of

Row = tuple[Any, ...]
Params = Mapping[str, Any]

_DIALECTS = {
    "sqlite": sqlite.dialect(paramstyle="qmark"),
    "postgresql": postgresql.dialect(paramstyle="pyformat"),  # type: ignore[no-untyped-call]
}
_MAX_IDLE = 8
_IN_SIZES = (
    1,
    16,
    256,
)  # values per IN list; a list is padded to the next size, so that three texts serve all


class Statement:
    """A Core statement and its SQL text and constants per dialect, compiled at first use."""

    __slots__ = ("_columns", "_compiled", "_element")

    def __init__(self, element: ClauseElement) -> None:
        self._element = element
        self._compiled: dict[str, tuple[str, Callable[[Params], Any]]] = {}
        self._columns: Columns | None = None

    @property
    def columns(self) -> Columns:
        """What of it is sealed where the vault is encrypted."""
        if self._columns is None:
            self._columns = columns_of(self._element)
        return self._columns

    def compiled(self, dialect: str) -> tuple[str, Callable[[Params], Any]]:
        """The SQL text, and what makes the driver's parameters of ours and of the statement's constants."""
        if (found := self._compiled.get(dialect)) is None:
            compiled: Any = self._element.compile(dialect=_DIALECTS[dialect])
            constants = {name: value for name, value in compiled.params.items() if value is not None}
            order = compiled.positiontup
            found = self._compiled[dialect] = str(compiled), _binder(order, constants)
        return found

    def bind(self, dialect: str, params: Params) -> tuple[str, Any]:
        text, ordered = self.compiled(dialect)
        return text, ordered(params)


def _binder(order: Sequence[str] | None, constants: Params) -> Callable[[Params], Any]:
    """Where places are numbered (SQLite), a tuple in their order: a quarter less time a row than by name."""
    if order is None:
        return (lambda params: {**constants, **params}) if constants else (lambda params: params)
    if constants:
        return lambda params: [params[name] if name in params else constants[name] for name in order]
    if len(order) == 1:
        return lambda params: (params[order[0]],)
    return itemgetter(*order) if order else lambda _: ()


class InStatement:
    """A statement with one IN list: `build` gets its bind parameters."""

    __slots__ = ("_build", "_sizes")

    def __init__(self, build: Callable[[Sequence[BindParameter[Any]]], ClauseElement]) -> None:
        self._build = build
        self._sizes: dict[int, Statement] = {}  # made at first use: 256 parameters cost more than a module

    def parts(self, values: Sequence[Any]) -> Iterator[tuple[Statement, dict[str, Any]]]:
        largest = _IN_SIZES[-1]
        for start in range(0, len(values), largest):
            part = values[start : start + largest]
            size = next(size for size in _IN_SIZES if size >= len(part))
            yield self._of(size), {f"in_{i}": part[min(i, len(part) - 1)] for i in range(size)}

    def _of(self, size: int) -> Statement:
        if (found := self._sizes.get(size)) is None:
            found = Statement(self._build([bindparam(f"in_{i}") for i in range(size)]))
            self._sizes[size] = found
        return found


class Deed(NamedTuple):
    """What the audit log keeps of one thing that was done or refused: opaque ids, never content."""

    verb: str
    target: bytes = b""
    allowed: bool = True
    principal: bytes | None = None
    at: int | None = None


class Actor(Protocol):
    """On whose behalf a transaction runs, and by which rules. None acts for the vault itself."""

    principal: bytes | None  # None: the owner

    def permit(
        self,
        transaction: Transaction,
        scope: Scope,
        drafts: Sequence[Draft],
        heads: Sequence[bytes],
    ) -> None:
        """Called before a write: `drafts` in a scope, as new cubes or as the next versions of `heads`.

        Raises AccessDenied and LegalHold.
        """
        ...

    def admit(self, transaction: Transaction) -> None:
        """Raises AccessDenied for who may do nothing at all, such as one who was disabled."""
        ...

    def look(self, transaction: Transaction, scope: Scope, row: Stored) -> bool:
        """Called before a cube is served or changed: is it there for them? Raises Expired."""
        ...

    def reads(self, transaction: Transaction, scope: Scope, row: Stored) -> bool:
        """Called for each older version that is served."""
        ...


class Sealing(Protocol):
    """What seals values on their way in and opens them on their way out."""

    def sealed(self, transaction: Transaction, ins: Sequence[In], params: Params) -> Params: ...

    def opened(
        self, transaction: Transaction, outs: Sequence[Out], rows: Sequence[Row], space: int | None
    ) -> list[Row]: ...


class Transaction:
    """A cursor inside one transaction; on whose behalf, by which clock, and what it did that is audited.

    `new_ciphers`: keys of spaces that this transaction makes.
    """

    __slots__ = (
        "_cursor",
        "_sealing",
        "actor",
        "audited",
        "clock",
        "deeds",
        "dialect",
        "new_ciphers",
        "rules",
    )

    def __init__(self, cursor: Any, dialect: str, sealing: Sealing | None = None) -> None:
        self._cursor = cursor
        self._sealing = sealing
        self.dialect = dialect
        self.new_ciphers: dict[int, Any] = {}
        self.actor: Actor | None = None
        self.clock: Clock = now
        self.deeds: list[Deed] = []
        self.audited: bool | None = None  # None: not known yet
        self.rules: Any = None  # those of the actor, once it has read them in this transaction

    def rows(self, statement: Statement, params: Params) -> list[Row]:
        self._execute(statement, params)
        found: list[Row] = self._cursor.fetchall()
        if self._sealing is not None and statement.columns.outs:
            return self._sealing.opened(self, statement.columns.outs, found, params.get("s"))
        return found

    def row(self, statement: Statement, params: Params) -> Row | None:
        self._execute(statement, params)
        found: Row | None = self._cursor.fetchone()
        if found is not None and self._sealing is not None and statement.columns.outs:
            return self._sealing.opened(self, statement.columns.outs, [found], params.get("s"))[0]
        return found

    def rows_in(self, statement: InStatement, params: Params, values: Sequence[Any]) -> Iterator[Row]:
        """Rows for any number of values. O(values / 256) round trips."""
        for part, padded in statement.parts(values):
            yield from self.rows(part, {**params, **padded})

    def run(self, statement: Statement, params: Params) -> int:
        self._execute(statement, params)
        return self._cursor.rowcount  # type: ignore[no-any-return]

    def run_in(self, statement: InStatement, params: Params, values: Sequence[Any]) -> int:
        """Run for any number of values; how many rows that concerned. O(values / 256) round trips."""
        return sum(self.run(part, {**params, **padded}) for part, padded in statement.parts(values))

    def many(self, statement: Statement, params: Sequence[Params]) -> None:
        if len(params) == 1:
            self._execute(statement, params[0])
        elif params:
            text, ordered = statement.compiled(self.dialect)
            self._cursor.executemany(text, [ordered(self._sealed(statement, row)) for row in params])

    def script(self, text: str) -> None:
        """One literal statement without parameters: DDL of migrations only."""
        self._cursor.execute(text)

    def _execute(self, statement: Statement, params: Params) -> None:
        self._cursor.execute(*statement.bind(self.dialect, self._sealed(statement, params)))

    def _sealed(self, statement: Statement, params: Params) -> Params:
        if self._sealing is None or not statement.columns.ins:
            return params
        return self._sealing.sealed(self, statement.columns.ins, params)


class Database(Protocol):
    """What the vault asks of a dialect."""

    dialect: str
    location: str  # for messages: a path, or a URL without its password
    sealing: Sealing | None  # None: values are kept as they are

    def write(self) -> AbstractContextManager[Transaction]:
        """A transaction that holds the right to write;

        commits durably on leaving, rolls back on an exception.
        """
        ...

    def read(self) -> AbstractContextManager[Transaction]:
        """A transaction that sees one snapshot."""
        ...

    def backup(self, name: str) -> str | None:
        """Copy what is committed; the place of the copy, or None where the server's own backups do this."""
        ...

    def reclaim(self) -> str | None:
        """Overwrite what deleted rows left on disk. None when done, else what stands in the way of it."""
        ...

    def remove_backups(self) -> list[Path]:
        """Remove the copies that `backup` has made; which."""
        ...

    beyond_reach: tuple[str, ...]  # where deleted rows live on that `reclaim` cannot reach

    def close(self) -> None: ...


class ForkSafeLock:
    """A lock that a forked child finds free, whoever held it in the parent."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._holder = 0  # the process whose thread holds it
        _locks.add(self)

    def __enter__(self) -> None:
        self._lock.acquire()
        self._holder = os.getpid()

    def __exit__(self, *_: object) -> None:
        if self._holder == os.getpid():  # else it was taken before the fork, and is a new lock by now
            self._lock.release()

    def renew(self) -> None:
        self._lock, self._holder = threading.Lock(), 0


_locks: WeakSet[ForkSafeLock] = WeakSet()


def _renew_locks() -> None:
    for lock in _locks:
        lock.renew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_locks)


class Pool:
    """Idle connections, last in first out. Thread-safe; a forked child starts empty.

    Connections inherited through fork are kept referenced and unused: closing one in the child would end the
    parent's session. A database whose connections may not even exist during a fork pauses its pools for it.
    """

    def __init__(self, connect: Callable[[], Any], *, usable: Callable[[Any], bool] = lambda _: True) -> None:
        self._connect = connect
        self._usable = usable
        self._idle: list[Any] = []
        self._inherited: list[Any] = []
        self._lent: dict[int, int] = {}  # connections in use, by thread
        self._paused = False
        self._closed = False
        self._pid = os.getpid()
        self._lock = ForkSafeLock()

    @contextmanager
    def connection(self) -> Iterator[Any]:
        owner, thread = os.getpid(), threading.get_ident()
        connection = self._take(thread)
        try:
            if connection is None:
                connection = self._connect()
            yield connection
        finally:
            if os.getpid() == owner:
                self._give_back(connection, thread)

    def close(self) -> None:
        with self._lock:
            self._leave_inherited()
            self._closed = True
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    def pause(self, seconds: float) -> bool:
        """Close every connection and lend none until `resume`; False when some were still in use by then."""
        deadline = time.monotonic() + seconds
        while True:
            with self._lock:
                self._leave_inherited()
                self._paused = True
                idle, self._idle = self._idle, []
                in_use = bool(self._lent)
            for connection in idle:
                connection.close()
            if not in_use or time.monotonic() > deadline:
                return not in_use
            time.sleep(0.001)

    def resume(self) -> None:
        self._paused = False

    def _take(self, thread: int) -> Any:
        """An idle connection or None. While paused, only for who has one already, so that they can finish."""
        while True:
            with self._lock:
                self._leave_inherited()
                if self._closed:
                    raise VaultClosed("this vault was closed; open it again with mnemic.open(...)")
                if not self._paused or thread in self._lent:
                    self._lent[thread] = self._lent.get(thread, 0) + 1
                    return self._idle.pop() if self._idle else None
            time.sleep(0.001)

    def _give_back(self, connection: Any, thread: int) -> None:
        with self._lock:
            if self._lent[thread] == 1:
                del self._lent[thread]
            else:
                self._lent[thread] -= 1
            if connection is None:
                return
            keep = not self._closed and len(self._idle) < _MAX_IDLE and self._usable(connection)
            if keep:
                self._idle.append(connection)
        if not keep:
            connection.close()

    def _leave_inherited(self) -> None:
        if os.getpid() != self._pid:
            self._pid = os.getpid()
            self._inherited.extend(self._idle)
            self._idle, self._lent = [], {}
