"""Reading a vault: everything within one transaction, so that what is read belongs together."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from mnemic.cube.errors import Expired, NotFound
from mnemic.cube.ids import id_bytes, id_text
from mnemic.cube.model import Kind, MemCube, Scope
from mnemic.vault import currency, kinds, lineage, log, reading
from mnemic.vault.changes import LoggedChange, changes_after, changes_of
from mnemic.vault.codec import stored
from mnemic.vault.database import Transaction
from mnemic.vault.finding import NO_CUBE, Finder


@dataclass(frozen=True, slots=True)
class ModelRow:
    """What made features of this vault: a lexical analyser (dim 0) or an embedder."""

    number: int
    name: str
    dim: int
    active: bool


@dataclass(frozen=True, slots=True)
class SpaceRow:
    space: int
    user: str | None
    last_seq: int


class Snapshot:
    """Reads inside one transaction of a Vault."""

    def __init__(self, vault: Finder, transaction: Transaction) -> None:
        self.vault = self._vault = vault
        self.transaction = self._transaction = transaction
        self.tenant = self._tenant = vault.tenant

    def spaces(self) -> list[SpaceRow]:
        rows = self._transaction.rows(reading.spaces, {"t": self._tenant})
        return [
            SpaceRow(space, None if name is None else bytes(name).decode(), seq) for space, name, seq in rows
        ]

    def space_of(self, user: str | None) -> int | None:
        """The number of a user's space. What was remembered may have been erased since."""
        space = self._vault._interned.space(user)
        if space is not None and self.position(space) is not None:
            return space
        if space is not None:
            self._vault._interned.forget(user)
        found = self._vault._find_space(self._transaction, user)
        return None if found is None else found[0]

    def scopes(self, space: int) -> dict[int, Scope]:
        return {
            number: names for (_, number), names in self._vault._all_scopes(self._transaction, space).items()
        }

    def position(self, space: int) -> log.Position | None:
        return log.position(self._transaction, self._tenant, space)

    def since(self, space: int, seq: int, *, lexical: int, dense: int | None) -> list[log.LogRow]:
        return log.since(self._transaction, self._tenant, space, seq, lexical=lexical, dense=dense)

    def features_after(self, space: int, seq: int, model: int) -> dict[int, bytes]:
        return log.features_after(self._transaction, self._tenant, space, seq, model)

    def headers(self, space: int, after: int = 0) -> dict[int, bytes]:
        """seq -> header JSON of every version after `after`."""
        rows = self._transaction.rows(reading.headers_in_space, {"t": self._tenant, "s": space, "seq": after})
        return dict(rows)

    def cubes(self, space: int, seqs: Sequence[int]) -> list[MemCube]:
        """The versions at these seqs, in the order asked. O(seqs)."""
        rows = self._vault._rows(self._transaction, space, seqs)
        return [rows[seq].cube_in(self._names(space, rows[seq].scope)) for seq in seqs]

    def live_after(self, space: int, seq: int, limit: int) -> list[tuple[int, MemCube]]:
        """Live heads in seq order, for walks over everything (export, re-embedding)."""
        params = {"t": self._tenant, "s": space, "seq": seq, "n": limit}
        rows = [stored(row) for row in self._transaction.rows(reading.stored_after, params)]
        return [(row.seq, row.cube_in(self._names(space, row.scope))) for row in rows]

    def head(self, cube: str) -> MemCube:
        """The current state, tombstones included; raises NotFound."""
        space, row = self._vault.visible_head(self._transaction, cube)
        return row.cube_in(self._names(space, row.scope))

    def history(self, cube: str) -> list[MemCube]:
        """Every version, oldest first; raises NotFound, also to who may not read one of them."""
        self._vault.visible_head(self._transaction, cube)
        rows = self._transaction.rows_in(reading.histories_of, {"t": self._tenant}, [id_bytes(cube)])
        found = [(self._names(row[0], row[4]), stored(row[1:])) for row in rows]
        actor = self._transaction.actor
        if actor is not None and not all(
            row.deleted or actor.reads(self._transaction, names, row) for names, row in found
        ):
            raise NotFound(NO_CUBE.format(cube))
        return [row.cube_in(names) for names, row in found]

    def changes_of(self, cube: str) -> list[LoggedChange]:
        """The change that made each version of a cube, oldest version first."""
        return changes_of(self._transaction, self._tenant, id_bytes(cube))

    def changes(self, space: int, after: int, limit: int) -> list[LoggedChange]:
        """What was changed in a space after a seq, in order. O(versions of these changes)."""
        found = changes_after(self._transaction, self._tenant, space, after, limit)
        return [replace(one, scope=self._names(space, number)) for one, number in found]

    def made_from(self, cube: str) -> set[str]:
        """Ids of the cubes that were made from this one, directly or through others."""
        return self.shown(lineage.made_from(self._transaction, self._tenant, [id_bytes(cube)]))

    def shown(self, cubes: Collection[bytes]) -> set[str]:
        """The ids of those that are there to be seen, live or deleted. O(cubes), 256 a round trip."""
        out = set()
        for space, *row in self._transaction.rows_in(reading.heads_of, {"t": self._tenant}, sorted(cubes)):
            head = stored(row)
            with suppress(Expired):
                if self._vault._shows(self._transaction, int(space), head):
                    out.add(id_text(head.cube))
        return out

    def shows(self, cube: str) -> bool:
        """Whether a cube is there to be seen, live or deleted."""
        try:
            self._vault.visible_head(self._transaction, cube)
        except NotFound:
            return False
        return True

    def shows_or_gone(self, cube: str) -> bool:
        """Whether a cube is there to be seen, or was erased: not one that is kept from the reader."""
        try:
            self._vault._head(self._transaction, cube)
        except NotFound:
            return True
        return self.shows(cube)

    def stale(self, space: int) -> frozenset[bytes]:
        """The derived cubes of a space that are not current. O(those)."""
        return frozenset(lineage.stale_in(self._transaction, self._tenant, space))

    def stale_at(self, space: int, moment: int) -> frozenset[bytes]:
        """The derived cubes that were not current at a moment in the past. O(citations of the space)."""
        return frozenset(lineage.stale_at(self._transaction, self._tenant, space, moment))

    def citations(self, cubes: Sequence[str]) -> list[currency.Citation]:
        """The current states of these cubes, as a derived cube cites them. Raises NotFound."""
        return currency.citations(self._transaction, self._tenant, cubes)

    def why_not_current(self, cube: str) -> str | None:
        """Why a cube may not be served, in a clause; None: it may. O(cubes it rests on).

        By the rights and rules of the actor too: what retention says is over, is.
        """
        reason = currency.why_not_current(self._transaction, self._tenant, cube)
        if reason is not None or self._transaction.actor is None:
            return reason
        try:
            self._vault.visible_head(self._transaction, cube)
        except Expired as error:
            return f"it, or what it rests on, is over: {error}"
        except NotFound:
            return "it, or what it rests on, is not there for who asks"
        return None

    def require_current(self, cube: str) -> None:
        """Raises StaleMemory, which says why, unless the cube may be served, and NotFound to an actor who may
        not see it.

        To the owner, what is not there is stale too: it was erased.
        """
        actor = self._transaction.actor
        if actor is not None and actor.principal is not None:
            with suppress(Expired):  # `why_not_current` says so
                self._vault.visible_head(self._transaction, cube)
        if (reason := self.why_not_current(cube)) is not None:
            raise currency.stale(cube, reason)

    def live_of_kind(self, space: int, kind: Kind) -> list[MemCube]:
        """Live heads of one kind, in seq order. O(versions of the space), in the database."""
        return self.cubes(space, kinds.live_of_kind(self._transaction, self._tenant, space, kind))

    def pending(
        self, space: int, model: int, *, after: int = 0, limit: int = 1000
    ) -> list[tuple[int, MemCube]]:
        """Live plaintext cubes without a feature of `model`, in seq order."""
        params = {"t": self._tenant, "s": space, "model": model, "seq": after, "n": limit}
        rows = [stored(row) for row in self._transaction.rows(reading.pending, params)]
        return [(row.seq, row.cube_in(self._names(space, row.scope))) for row in rows]

    def pending_count(self, space: int, model: int, *, after: int = 0) -> int:
        """How many `pending` would give in all."""
        params = {"t": self._tenant, "s": space, "model": model, "seq": after}
        found = self._transaction.row(reading.pending_count, params)
        return int(found[0]) if found else 0

    def models(self) -> list[ModelRow]:
        rows = self._transaction.rows(reading.models, {"t": self._tenant})
        return [ModelRow(number, name, dim, bool(on)) for number, name, dim, on in rows]

    def _names(self, space: int, scope: int) -> Scope:
        return self._vault._scope_names(self._transaction, space, scope)
