"""Numbers of spaces and scopes, and names of numbers, as far as one process remembers them. Thread-safe.

A cache of committed rows, bounded: what is forgotten is read again.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from typing import Any, Final

from mnemic.cube.model import Scope
from mnemic.vault.database import ForkSafeLock

LIMIT: Final = 50_000  # of each kind, some 20 MB in all


class Interned:
    """At most `limit` of each; the half that was remembered first goes when there is no room."""

    def __init__(self, limit: int = LIMIT) -> None:
        self._limit = limit
        self._lock = ForkSafeLock()
        self._spaces: dict[str | None, int] = {}
        self._scopes: dict[Scope, tuple[int, int, int]] = {}
        self._names: dict[tuple[int, int], Scope] = {}

    def space(self, user: str | None) -> int | None:
        return self._spaces.get(user)

    def scope(self, scope: Scope) -> tuple[int, int, int] | None:
        """Its number in its space, the seq before which nothing was told in it, and the space's epoch."""
        return self._scopes.get(scope)

    def names(self, space: int, scope: int) -> Scope | None:
        return self._names.get((space, scope))

    def remember(self, scope: Scope, space: int, number: int, first_seq: int, epoch: int = 0) -> None:
        """After the commit. O(1) where it is known."""
        known = (number, first_seq, epoch)
        if self._scopes.get(scope) != known or self._spaces.get(scope.user) != space:
            with self._lock:
                self._put(self._spaces, {scope.user: space})
                self._put(self._scopes, {scope: known})
                self._put(self._names, {(space, number): scope})

    def remember_names(self, names: Mapping[tuple[int, int], Scope]) -> None:
        with self._lock:
            self._put(self._names, names)

    def forget(self, user: str | None) -> None:
        """The space of a user is gone. O(all that is remembered)."""
        with self._lock:
            space = self._spaces.pop(user, None)
            for scope in [scope for scope in self._scopes if scope.user == user]:
                del self._scopes[scope]
            for key in [key for key in self._names if key[0] == space]:
                del self._names[key]

    def _put(self, into: dict[Any, Any], items: Mapping[Any, Any]) -> None:
        if len(into) + len(items) > self._limit:
            for key in list(islice(into, max(len(into) // 2, len(into) + len(items) - self._limit))):
                del into[key]
        into.update(islice(items.items(), self._limit))
