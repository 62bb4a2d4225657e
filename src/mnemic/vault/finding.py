"""Where things are: spaces, scopes and heads of one tenant by their names, within a transaction."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any, Final

from mnemic.cube.errors import Expired, NotFound
from mnemic.cube.ids import id_bytes, id_text
from mnemic.cube.model import Scope
from mnemic.vault import reading
from mnemic.vault.codec import Stored, mac, stored
from mnemic.vault.database import Transaction
from mnemic.vault.interned import Interned

NO_CUBE: Final = "no cube {} in this vault"
NEIGHBOURS: Final = 512  # scopes whose names are read at once


class Finder:
    """What a Vault, its snapshots and its ways of writing look up; numbers of names are remembered."""

    def __init__(self, tenant: str, key: bytes) -> None:
        self.tenant = tenant
        self._key = key
        self._interned = Interned()

    def _find_space(self, transaction: Transaction, user: str | None) -> tuple[int, int] | None:
        """The number of a user's space, and its epoch."""
        found = transaction.row(reading.space_of_user, {"t": self.tenant, "k": mac(self._key, "user", user)})
        return (found[0], found[1]) if found else None

    def _past(self, transaction: Transaction, cube: bytes) -> list[Stored]:
        """Every version of a cube, oldest first."""
        rows = transaction.rows_in(reading.histories_of, {"t": self.tenant}, [cube])
        return [stored(row[1:]) for row in rows]

    def _head(self, transaction: Transaction, cube: str) -> tuple[int, Stored]:
        found = transaction.row(reading.head_of, {"t": self.tenant, "c": id_bytes(cube)})
        if found is None:
            raise self._not_here(transaction, cube)
        return int(found[0]), stored(found[1:])

    def _not_here(self, transaction: Transaction, cube: str) -> NotFound:
        """The refusal. Who is let in nowhere is told that, and so not what is there."""
        if transaction.actor is not None:
            transaction.actor.admit(transaction)
        return NotFound(NO_CUBE.format(cube))

    def _heads(self, transaction: Transaction, cubes: Sequence[str]) -> list[tuple[int, Stored]]:
        """(space, head) of each cube once, in the order asked. Raises NotFound."""
        keys = list(dict.fromkeys(id_bytes(cube) for cube in cubes))
        rows = transaction.rows_in(reading.heads_of, {"t": self.tenant}, keys)
        found = {bytes(row[2]): (int(row[0]), stored(row[1:])) for row in rows}
        if missing := [key for key in keys if key not in found]:
            raise self._not_here(transaction, id_text(missing[0]))
        return [found[key] for key in keys]

    def visible_head(self, transaction: Transaction, cube: str) -> tuple[int, Stored]:
        """A cube's space and current state, for who may see it. Raises NotFound and Expired."""
        space, row = self._head(transaction, cube)
        if not self._shows(transaction, space, row):
            raise NotFound(NO_CUBE.format(cube))
        return space, row

    def _visible_heads(self, transaction: Transaction, cubes: Sequence[str]) -> list[tuple[int, Stored]]:
        heads = self._heads(transaction, cubes)
        for space, row in heads:
            if not self._shows(transaction, space, row):
                raise NotFound(NO_CUBE.format(id_text(row.cube)))
        return heads

    def _restorable_head(self, transaction: Transaction, cube: str) -> tuple[int, Stored, bool]:
        """A head, and whether it has expired, which nothing but restoring looks at."""
        try:
            return (*self.visible_head(transaction, cube), False)
        except Expired as error:
            if not error.restorable:
                raise
            return (*self._head(transaction, cube), True)

    def _shows(self, transaction: Transaction, space: int, row: Stored) -> bool:
        """Is it there for the actor? Raises Expired."""
        actor = transaction.actor
        return actor is None or actor.look(transaction, self._scope_names(transaction, space, row.scope), row)

    def _rows(self, transaction: Transaction, space: int, seqs: Sequence[int]) -> dict[int, Stored]:
        rows = transaction.rows_in(reading.stored_at, {"t": self.tenant, "s": space}, seqs)
        return {row[0]: stored(row) for row in rows}

    def _scope_names(self, transaction: Transaction, space: int, scope: int) -> Scope:
        """Of a scope by its number. Where they are not remembered, its neighbours' are read with it."""
        if (names := self._interned.names(space, scope)) is None:
            low = scope - scope % NEIGHBOURS
            where = {"t": self.tenant, "s": space, "low": low, "high": low + NEIGHBOURS}
            found = self._named(transaction, space, transaction.rows(reading.scopes_between, where))
            self._interned.remember_names(found)
            names = found[space, scope]
        return names

    def _all_scopes(self, transaction: Transaction, space: int) -> dict[tuple[int, int], Scope]:
        rows = transaction.rows(reading.scopes, {"t": self.tenant, "s": space})
        return self._named(transaction, space, rows)

    def _named(
        self, transaction: Transaction, space: int, rows: Iterable[Sequence[Any]]
    ) -> dict[tuple[int, int], Scope]:
        (name,) = transaction.row(reading.user_of_space, {"t": self.tenant, "s": space}) or (None,)
        user = None if name is None else bytes(name).decode()
        return {(space, number): Scope(self.tenant, user, *json.loads(names)) for number, names in rows}
