"""AsyncMemory: a Memory for asyncio. Every verb is Memory's own, run in a thread; there is no logic here."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from functools import wraps
from types import TracebackType
from typing import Any, Concatenate, Generic, ParamSpec, Self, TypeVar

from mnemic.governance.ledger import AuditLog
from mnemic.governance.manage import Governance, Policies
from mnemic.governance.sweep import Retention
from mnemic.memory import Memory, ScopedMemory
from mnemic.memory import open as open_memory

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")


class _InThreads(Generic[T]):
    """Holds what does the work. Threads are those of `asyncio.to_thread`."""

    def __init__(self, engine: T) -> None:
        self._engine = engine

    def __repr__(self) -> str:
        return f"<async {self._engine!r}>"


def _verb(
    method: Callable[Concatenate[T, P], R],
) -> Callable[Concatenate[_InThreads[T], P], Coroutine[Any, Any, R]]:
    """The same method, awaited. An await that is cancelled does not stop a write: it may still be stored."""

    @wraps(method)
    async def awaited(self: _InThreads[T], /, *args: P.args, **options: P.kwargs) -> R:
        return await asyncio.to_thread(method, self._engine, *args, **options)

    return awaited


def _opener(make: Callable[P, Memory]) -> Callable[P, Coroutine[Any, Any, AsyncMemory]]:
    @wraps(make)
    async def opened(*args: P.args, **options: P.kwargs) -> AsyncMemory:
        return AsyncMemory(await asyncio.to_thread(make, *args, **options))

    return opened


class AsyncScopedMemory(_InThreads[ScopedMemory]):
    """A `ScopedMemory`, awaited."""

    add = _verb(ScopedMemory.add)
    load_file = _verb(ScopedMemory.load_file)
    delete = _verb(ScopedMemory.delete)
    erase = _verb(ScopedMemory.erase)
    dump = _verb(ScopedMemory.dump)
    search = _verb(ScopedMemory.search)
    context = _verb(ScopedMemory.context)
    ask = _verb(ScopedMemory.ask)
    facts = _verb(ScopedMemory.facts)
    list = _verb(ScopedMemory.list)
    count = _verb(ScopedMemory.count)


class AsyncGovernance(_InThreads[Governance]):
    """A `Governance`, awaited."""

    add_principal = _verb(Governance.add_principal)
    principals = _verb(Governance.principals)
    disable = _verb(Governance.disable)
    grant = _verb(Governance.grant)
    revoke = _verb(Governance.revoke)
    grants = _verb(Governance.grants)
    name_of = _verb(Governance.name_of)


class AsyncPolicies(_InThreads[Policies]):
    """`Policies`, awaited."""

    add = _verb(Policies.add)
    drop = _verb(Policies.drop)
    list = _verb(Policies.list)


class AsyncRetention(_InThreads[Retention]):
    """A `Retention`, awaited."""

    due = _verb(Retention.due)
    sweep = _verb(Retention.sweep)


class AsyncAuditLog(_InThreads[AuditLog]):
    """An `AuditLog`, awaited."""

    start = _verb(AuditLog.start)
    head = _verb(AuditLog.head)
    verify = _verb(AuditLog.verify)
    log = _verb(AuditLog.log)
    export = _verb(AuditLog.export)


class AsyncMemory(_InThreads[Memory]):
    """`async with await mnemic.AsyncMemory.open("ana.db") as mem: await mem.add("…", user="ana")`.

    Arguments, results and errors are those of `mnemic.open` and `Memory`. `AsyncMemory(memory)` wraps one
    that is open; both may be used side by side.
    """

    open = staticmethod(_opener(open_memory))
    add = _verb(Memory.add)
    load_file = _verb(Memory.load_file)
    update = _verb(Memory.update)
    delete = _verb(Memory.delete)
    restore = _verb(Memory.restore)
    undo = _verb(Memory.undo)
    freeze = _verb(Memory.freeze)
    thaw = _verb(Memory.thaw)
    pin = _verb(Memory.pin)
    unpin = _verb(Memory.unpin)
    fuse = _verb(Memory.fuse)
    erase = _verb(Memory.erase)
    dump = _verb(Memory.dump)
    load = _verb(Memory.load)
    merge = _verb(Memory.merge)
    search = _verb(Memory.search)
    context = _verb(Memory.context)
    ask = _verb(Memory.ask)
    as_kv = _verb(Memory.as_kv)
    mount = _verb(Memory.mount)
    as_adapter = _verb(Memory.as_adapter)
    as_memory = _verb(Memory.as_memory)
    retrain = _verb(Memory.retrain)
    as_text = _verb(Memory.as_text)
    keep_state = _verb(Memory.keep_state)
    load_state = _verb(Memory.load_state)
    list = _verb(Memory.list)
    count = _verb(Memory.count)
    sessions = _verb(Memory.sessions)
    users = _verb(Memory.users)
    get = _verb(Memory.get)
    reveal = _verb(Memory.reveal)
    history = _verb(Memory.history)
    changes = _verb(Memory.changes)
    open_blob = _verb(Memory.open_blob)
    explain = _verb(Memory.explain)
    facts = _verb(Memory.facts)
    jobs = _verb(Memory.jobs)
    rerun = _verb(Memory.rerun)
    health = _verb(Memory.health)
    flush = _verb(Memory.flush)
    close = _verb(Memory.close)

    @property
    def governance(self) -> AsyncGovernance:
        """Principals and grants."""
        return AsyncGovernance(self._engine.governance)

    @property
    def policies(self) -> AsyncPolicies:
        """Rules about how long things are kept and what is never stored."""
        return AsyncPolicies(self._engine.policies)

    @property
    def retention(self) -> AsyncRetention:
        """What is over or soon will be, and taking it out."""
        return AsyncRetention(self._engine.retention)

    @property
    def audit(self) -> AsyncAuditLog:
        """The audit log: its head, whether it is whole, and what it says."""
        return AsyncAuditLog(self._engine.audit)

    @wraps(Memory.as_principal)
    async def as_principal(self, name: str | None) -> AsyncMemory:
        return AsyncMemory(await asyncio.to_thread(self._engine.as_principal, name))

    def where(self) -> str:
        """Where this memory is kept: a path, or a URL without its password."""
        return self._engine.where()

    def scope(
        self, *, user: str | None = None, agent: str | None = None, session: str | None = None
    ) -> AsyncScopedMemory:
        """A handle bound to a scope: `ana = mem.scope(user="ana"); await ana.add(…)`."""
        return AsyncScopedMemory(self._engine.scope(user=user, agent=agent, session=session))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()
