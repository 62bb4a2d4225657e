"""No SQLite connection may exist during a fork: all are closed before it and opened again at the next use.

SQLite counts its locks on a file in the process's memory. A child inherits the counts without the locks,
believes that it holds what it does not, and loses acknowledged writes: when the parent closes, it finds
itself alone, and deletes the log that the child still writes to.
"""

from __future__ import annotations

import os
import threading
from typing import Protocol
from weakref import WeakSet

_WAIT_S = 5.0  # for transactions of other threads to end


class Forkable(Protocol):
    def before_fork(self, seconds: float) -> bool: ...

    def after_fork(self, *, torn: bool) -> None: ...


_guarded: WeakSet[Forkable] = WeakSet()
_one_at_a_time = threading.Lock()  # held over a fork, by the thread that lives on in the child
_torn: list[tuple[Forkable, bool]] = []  # from before a fork to after it


def guard(database: Forkable) -> None:
    """From now on, close its connections before each fork of this process."""
    _guarded.add(database)


def _before() -> None:
    _one_at_a_time.acquire()
    _torn.extend((database, not database.before_fork(_WAIT_S)) for database in list(_guarded))


def _after(*, child: bool) -> None:
    while _torn:
        database, torn = _torn.pop()
        database.after_fork(torn=torn and child)
    _one_at_a_time.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_before,
        after_in_parent=lambda: _after(child=False),
        after_in_child=lambda: _after(child=True),
    )
