"""Vault: where cubes live. Durable, versioned, scoped; knows nothing of ranking or models."""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, Final

import sqlalchemy as sa

from mnemic.cube.errors import Expired, IdempotencyConflict, InvalidOption, NotFound
from mnemic.cube.ids import id_bytes, id_text, new_ids
from mnemic.cube.lifecycle import Event, follow
from mnemic.cube.model import Blob, Kind, MemCube, Origin, Scope, State, check_scope_field
from mnemic.cube.times import Clock, now
from mnemic.vault import (
    currency,
    governing,
    kinds,
    lineage,
    log,
    reading,
    tables,
    undoing,
    writing,
)
from mnemic.vault.acting import Acting
from mnemic.vault.blobs import Blobs, Hashed, Source, pieces
from mnemic.vault.changes import LoggedChange, changes_after, changes_of
from mnemic.vault.codec import (
    Draft,
    Stored,
    check_thawed,
    client_key,
    digest,
    erased_key,
    erased_marker,
    mac,
    stored,
    tombstone,
)
from mnemic.vault.database import Actor, Database, Deed, Statement, Transaction
from mnemic.vault.interned import Interned
from mnemic.vault.keys import KeyLike
from mnemic.vault.migrations import migrate
from mnemic.vault.sqlite import SQLite
from mnemic.vault.unlocking import unlock
from mnemic.vault.writing import Parent, SpaceGone, Target, Written

_p = sa.bindparam
_hold_tenant = Statement(
    sa.select(tables.tenant.c.tenant).where(tables.tenant.c.tenant == _p("t")).with_for_update()
)
_next_space = Statement(
    sa.update(tables.tenant)
    .where(tables.tenant.c.tenant == _p("t"))
    .values(last_space=tables.tenant.c.last_space + 1)
    .returning(tables.tenant.c.last_space)
)
_add_space = Statement(sa.insert(tables.space))
_next_scope = Statement(
    sa.update(tables.space)
    .where(tables.space.c.tenant == _p("t"), tables.space.c.space == _p("s"))
    .values(last_scope=tables.space.c.last_scope + 1)
    .returning(tables.space.c.last_scope, tables.space.c.last_seq)
)
_add_scope = Statement(sa.insert(tables.scope))
_add_dump = Statement(sa.insert(tables.dump))
_drop_dump = Statement(
    sa.delete(tables.dump).where(tables.dump.c.tenant == _p("t"), tables.dump.c.dump == _p("d"))
)
_add_model = Statement(sa.insert(tables.model))
_activate = Statement(
    sa.update(tables.model)
    .where(tables.model.c.tenant == _p("t"), (tables.model.c.dim == 0) == _p("lexical", type_=sa.Boolean))
    .values(active=sa.case((tables.model.c.model == _p("m", type_=sa.BigInteger), 1), else_=0))
)
_bump_epochs = Statement(
    sa.update(tables.space).where(tables.space.c.tenant == _p("t")).values(epoch=tables.space.c.epoch + 1)
)
NO_CUBE: Final = "no cube {} in this vault"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one draft of an `append`: its stored row, and why it was not stored now (None:

    it was).
    """

    row: Stored | None
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Appended:
    change: Written | None
    outcomes: tuple[Outcome, ...]


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


def connect(url: str | os.PathLike[str]) -> Database:
    """A database by path, sqlite:///path or postgresql://…; raises InvalidOption for any other scheme."""
    if isinstance(url, os.PathLike):
        return SQLite(url)
    if not isinstance(url, str) or not url:
        raise InvalidOption(f"vault={url!r} must be a path, sqlite:///path or postgresql://…")
    scheme, separator, rest = url.partition("://")
    if url == ":memory:" or (scheme == "sqlite" and rest in ("", "/", "/:memory:")):
        raise InvalidOption("a vault is a file, so that nothing is lost; for a test use a temporary folder")
    if not separator:
        return SQLite(url)
    if scheme == "sqlite":
        return SQLite(rest.removeprefix("/"))
    if scheme in ("postgresql", "postgres"):
        from mnemic.vault.postgres import Postgres

        return Postgres(url)
    raise InvalidOption(f"cannot open a vault at {scheme}://…; use a path, sqlite:///path or postgresql://…")


class Vault:
    """One tenant's cubes in one database. Thread-safe; other processes may use the same database."""

    def __init__(
        self,
        database: Database,
        *,
        tenant: str = "default",
        key: KeyLike | None = None,
        blobs: str | os.PathLike[str] | None = None,
        clock: Clock = now,
    ) -> None:
        self.tenant = check_scope_field("tenant", tenant) or ""
        if not self.tenant:
            raise InvalidOption("tenant must be named")
        self.database = Acting(database, self.tenant, clock=clock)
        migrate(database)
        self._key, self._seals = unlock(database, self.tenant, key)
        database.sealing = self._seals
        self._interned = Interned()
        self.blobs = Blobs(database, self.tenant, self._blob_folder(blobs))

    @property
    def clock(self) -> Clock:
        """What time it is, in microseconds."""
        return self.database.clock

    def as_actor(self, actor: Actor) -> Vault:
        """The same open vault on somebody's behalf: their rights hold for what is read and written by it."""
        other = copy.copy(self)
        other.database = self.database.as_actor(actor)
        return other

    # --- writing
    # -------------------------------------------------------------------------------------------------

    def append(
        self, scope: Scope, drafts: Sequence[Draft], *, op: str = "add", reason: str | None = None
    ) -> Appended:
        """Store drafts durably in one transaction and one scope; the outcome of each, in order. O(drafts).

        A draft whose client id is known returns the cube that is there (or, if that was deleted, none). Two
        or more drafts without any client id that begin with all that the scope was ever told are recognised
        as a repeated history, and only the rest is stored. Raises IdempotencyConflict when a known client id
        says something else; then nothing is stored.
        """
        for _ in range(3):
            try:
                with self.database.write() as transaction:
                    if transaction.actor is not None:  # before anything that is there is looked at
                        transaction.actor.permit(transaction, scope, drafts, ())
                    target = self._target(transaction, scope)
                    known = self._known(transaction, target, drafts)
                    fresh = [draft for i, draft in enumerate(drafts) if i not in known]
                    self.blobs.hold(transaction, [draft.blob for draft in fresh if draft.blob is not None])
                    change = (
                        writing.insert(transaction, target, self._key, fresh, op=op, reason=reason)
                        if fresh
                        else None
                    )
            except SpaceGone:
                self._interned.forget(scope.user)
                continue
            self._interned.remember(scope, target.space, target.scope, target.first_seq, target.epoch or 0)
            rows = iter(change.stored if change else ())
            outcomes = tuple(known[i] if i in known else Outcome(next(rows)) for i in range(len(drafts)))
            return Appended(change, outcomes)
        raise NotFound(f"the memory of user {scope.user!r} is being erased; try again")

    def revise(
        self, cube: str, change: Mapping[str, Any], *, reason: str | None = None
    ) -> tuple[Written, Scope]:
        """A new version of a cube with other fields of Draft; raises NotFound.

        Features are of the payload: another `payload` brings its own, any other change keeps them.
        """
        with self.database.write() as transaction:
            self._hold_spaces_of(transaction, [cube])
            space, row = self.visible_head(transaction, cube)
            if row.deleted:
                raise NotFound(f"cube {cube} was deleted; restore it before you update it")
            names = self._scope_names(transaction, space, row.scope)
            target = Target(self.tenant, space, row.scope, names)
            if "payload" not in change and "features" not in change:
                change = {**change, "features": self._features(transaction, space, row.seq)}
            draft = replace(row.draft(), **change)
            check_thawed(row, draft)
            parent = Parent(row.cube, row.version)
            done = writing.insert(
                transaction, target, self._key, [draft], op="update", reason=reason, parents=[parent]
            )
        return done, names

    def remove(self, cubes: Sequence[str], *, reason: str | None = None) -> list[tuple[Written, Scope]]:
        """Tombstones for cubes, in one transaction; one change row a scope.

        Raises NotFound before anything is written.
        """
        with self.database.write() as transaction:
            self._hold_spaces_of(transaction, cubes)
            heads = self._visible_heads(transaction, cubes)
            gone = [Next(space, row, tombstone(row)) for space, row in heads if not row.deleted]
            return self._advance(transaction, gone, op="delete", reason=reason)

    def restore(self, cube: str, version: int, *, reason: str | None = None) -> list[tuple[Written, Scope]]:
        """Let a cube say again what its `version` (1 is the first) said, as a new version; nothing where it

        says so already. What has expired comes back while it can (MemOS §5.4.3). Raises NotFound, Expired,
        InvalidOption for a deletion, Frozen.
        """
        with self.database.write() as transaction:
            self._hold_spaces_of(transaction, [cube])
            space, row, expired = self._restorable_head(transaction, cube)
            past = self._past(transaction, row.cube)
            if isinstance(version, bool) or not isinstance(version, int) or not 1 <= version <= len(past):
                raise NotFound(f"cube {cube} has versions 1 to {len(past)}, not {version!r:.80}")
            wanted = past[version - 1]
            if wanted.deleted:
                raise InvalidOption(f"version {version} of cube {cube} is its deletion; use delete({cube!r})")
            if wanted.says_the_same_as(row) and not expired:
                return []
            again = self._again(transaction, space, wanted)
            if again.expires_at is not None and again.expires_at <= transaction.clock():
                again = replace(again, expires_at=None)
            done = self._advance(transaction, [Next(space, row, again)], op="restore", reason=reason)
            if (state := follow(State(row.state), Event.restore)) is not None:
                governing.set_state(transaction, self.tenant, [row.cube], row.state, int(state))
            return done

    def freeze(
        self, cubes: Sequence[str], *, thaw: bool = False, reason: str | None = None
    ) -> list[tuple[Written, Scope]]:
        """Let nothing change cubes, not even the passing of time, until they are thawed; all or none.

        Raises NotFound before anything is written.
        """
        with self.database.write() as transaction:
            self._hold_spaces_of(transaction, cubes)
            found = []
            for space, row in self._visible_heads(transaction, cubes):
                if row.deleted:
                    cube = id_text(row.cube)
                    raise NotFound(f"cube {cube} was deleted; restore it before you freeze or thaw it")
                draft = row.draft()
                if draft.frozen != thaw:
                    continue
                features = self._features(transaction, space, row.seq)
                expires_at = self._expiry_before(transaction, row) if thaw else None
                found.append(
                    Next(
                        space, row, replace(draft, frozen=not thaw, expires_at=expires_at, features=features)
                    )
                )
            return self._advance(transaction, found, op="thaw" if thaw else "freeze", reason=reason)

    def undo(self, changes: Sequence[str], *, reason: str | None = None) -> list[tuple[Written, Scope]]:
        """Take back changes, the latest first, in one transaction; see `mnemic.vault.undoing`."""
        with self.database.write() as transaction:
            (change_id,) = new_ids(1)
            done: list[tuple[Written, Scope]] = []
            for space, seq, undone in undoing.rows_of(transaction, self.tenant, changes):
                shows = partial(self._shows, transaction, space)
                steps = undoing.steps(transaction, self.tenant, space, seq, undone, shows=shows)
                inverse = [
                    Next(space, step.head, self._again(transaction, space, step.to) if step.to else step.gone)
                    for step in steps
                ]
                done += self._advance(
                    transaction, inverse, op="undo", reason=reason, change_id=change_id, undoes=undone
                )
            return done

    def put_features(self, space: int, model: int, rows: Mapping[int, bytes]) -> None:
        """Store write-time features that came later, such as vectors of a remote embedder."""
        with self.database.write() as transaction:
            writing.put_features(transaction, self.tenant, space, model, rows)

    # --- large payloads

    def put_blob(self, scope: Scope, source: Source, *, within: Transaction | None = None) -> Blob:
        """Store a large payload durably; then `append` a draft with `blob=` it, within an hour. O(bytes).

        scope: whose it will be. source: bytes, a binary file or an iterable of bytes. One that is never named
        is removed by `blobs.sweep`. Raises InvalidOption on PostgreSQL without a folder, VaultFull.
        """
        if scope.tenant != self.tenant:
            raise InvalidOption(f"this vault was opened with tenant={self.tenant!r}, not {scope.tenant!r}")
        if self._seals is None:
            return self.blobs.put(source)
        with nullcontext(within) if within else self.database.write() as transaction:
            space = self.find_target(transaction, scope).space
            cipher = self._seals.cipher(transaction, space)
        content = Hashed(pieces(source))
        stored = self.blobs.put(self._seals.seal_stream(cipher, space, content))
        return Blob(id=stored.id, sha256=content.hexdigest(), size=content.size)

    def open_blob(self, cube: MemCube) -> BinaryIO:
        """The large payload of a cube, to be read and closed. Raises NotFound when it has none or lost it."""
        if cube.blob is None:
            raise NotFound(f"cube {cube.id} has no large payload; what it holds is its .payload")
        return self.open_content(cube.blob)

    def open_content(self, blob: Blob) -> BinaryIO:
        """What a large payload holds, opened where the vault is encrypted."""
        file = self.blobs.open(blob)
        if self._seals is None:
            return file
        with self.database.read() as transaction:
            return self._seals.open_stream(transaction, file)

    def note_dump(self, spaces: Iterable[int], place: str) -> bytes:
        """A copy of these spaces is about to leave the vault: an erase will name it, and the audit log has
        it. The id of the dump.
        """
        (dump,), at = new_ids(1), self.clock()
        rows = [
            {"tenant": self.tenant, "space": space, "dump": dump, "at": at, "place": place.encode()}
            for space in spaces
        ]
        with self.database.write() as transaction:
            transaction.many(_add_dump, rows)
            transaction.deeds.append(Deed("export", dump))
        return dump

    def forget_dump(self, dump: bytes) -> None:
        """It came to nothing: no file was left. The audit log says so too."""
        with self.database.write() as transaction:
            transaction.run(_drop_dump, {"t": self.tenant, "d": dump})
            transaction.deeds.append(Deed("export_failed", dump))

    def forget_keys(self, spaces: Iterable[int]) -> None:
        """Of spaces that were erased."""
        if self._seals is not None:
            self._seals.forget(spaces)

    # --- embedders
    # -----------------------------------------------------------------------------------------------

    def add_model(self, name: str, dim: int) -> ModelRow:
        """The row of a lexical analyser (dim 0) or embedder, made if new;

        the first of either becomes active.
        """
        with self.database.write() as transaction:
            transaction.row(_hold_tenant, {"t": self.tenant})  # two processes that start at once make it once
            rows = transaction.rows(reading.models, {"t": self.tenant})
            for number, known, known_dim, on in rows:
                if known == name:
                    return ModelRow(number, known, known_dim, bool(on))
            number = max((row[0] for row in rows), default=0) + 1
            active = not any(on for _, _, other, on in rows if (other == 0) == (dim == 0))
            transaction.run(
                _add_model,
                {"tenant": self.tenant, "model": number, "name": name, "dim": dim, "active": int(active)},
            )
            return ModelRow(number, name, dim, active)

    def activate_model(self, model: ModelRow) -> None:
        """Make its features the ones that are searched; every process drops its indexes."""
        with self.database.write() as transaction:
            transaction.run(_activate, {"t": self.tenant, "m": model.number, "lexical": model.dim == 0})
            transaction.run(_bump_epochs, {"t": self.tenant})

    # --- reading
    # -------------------------------------------------------------------------------------------------

    @contextmanager
    def snapshot(self) -> Iterator[Snapshot]:
        """One consistent view; what is read in it belongs together."""
        with self.database.read() as transaction:
            yield Snapshot(self, transaction)

    def close(self) -> None:
        self.database.close()

    def _blob_folder(self, named: str | os.PathLike[str] | None) -> Path | None:
        """A folder a tenant, whose name it does not show; beside an SQLite file unless one was named."""
        place = getattr(self.database, "path", None)
        if named is None and not isinstance(place, Path):
            return None
        root = Path(named).expanduser().absolute() if named is not None else Path(f"{place}.blobs")
        return root / mac(self._key, "blobs", self.tenant).hex()

    # --- inside
    # --------------------------------------------------------------------------------------------------

    def _target(self, transaction: Transaction, scope: Scope) -> Target:
        if scope.tenant != self.tenant:
            raise InvalidOption(
                f"a scope of tenant {scope.tenant!r} cannot be written here: this vault was opened with "
                f"tenant={self.tenant!r}"
            )
        space, known = self._interned.space(scope.user), self._interned.scope(scope)
        if space is not None and known is not None:
            return Target(self.tenant, space, known[0], scope, known[1], known[2])
        return self.find_target(transaction, scope)

    def hold_tenant(self, transaction: Transaction) -> None:
        """Let nobody else make spaces or models of this tenant until the transaction ends."""
        transaction.row(_hold_tenant, {"t": self.tenant})

    def find_target(self, transaction: Transaction, scope: Scope) -> Target:
        """Where a scope's cubes go, made if it is new; from the database, not from what is remembered."""
        space, epoch = self._find_space(transaction, scope.user) or self._make_space(transaction, scope.user)
        number, first_seq = self._intern_scope(transaction, space, scope)
        return Target(self.tenant, space, number, scope, first_seq, epoch)

    def _find_space(self, transaction: Transaction, user: str | None) -> tuple[int, int] | None:
        """The number of a user's space, and its epoch."""
        found = transaction.row(reading.space_of_user, {"t": self.tenant, "k": mac(self._key, "user", user)})
        return (found[0], found[1]) if found else None

    def _make_space(self, transaction: Transaction, user: str | None) -> tuple[int, int]:
        (number,) = transaction.row(_next_space, {"t": self.tenant}) or (0,)  # locks the tenant's row
        again = self._find_space(transaction, user)  # another process may have made it while we waited
        if again is not None:
            return again
        row = {
            "tenant": self.tenant,
            "space": number,
            "user_key": mac(self._key, "user", user),
            "user_name": None if user is None else user.encode(),
            "last_seq": 0,
            "last_time": 0,
            "last_scope": 0,
            "epoch": 0,
            "wrapped_key": self._seals and self._seals.new_key(transaction, number),
        }
        transaction.run(_add_space, row)
        return int(number), 0

    def _intern_scope(self, transaction: Transaction, space: int, scope: Scope) -> tuple[int, int]:
        key = mac(self._key, "scope", scope.user, scope.agent, scope.session)
        look = {"t": self.tenant, "s": space, "k": key}
        if found := transaction.row(reading.scope_by_key, look):
            return found[0], found[1]
        taken = transaction.row(_next_scope, {"t": self.tenant, "s": space})  # locks the space's row
        if taken is None:
            raise SpaceGone
        if found := transaction.row(reading.scope_by_key, look):  # made by another process while we waited
            return found[0], found[1]
        number, first_seq = taken[0], taken[1] + 1
        row = {
            "tenant": self.tenant,
            "space": space,
            "scope": number,
            "scope_key": key,
            "names": json.dumps([scope.agent, scope.session], ensure_ascii=False).encode(),
            "first_seq": first_seq,
        }
        transaction.run(_add_scope, row)
        return number, first_seq

    def _known(self, transaction: Transaction, target: Target, drafts: Sequence[Draft]) -> dict[int, Outcome]:
        """Drafts that need not be stored, by position."""
        keys = {
            i: client_key(self._key, draft.client_id, draft.place.part if draft.place else 0)
            for i, draft in enumerate(drafts)
            if draft.client_id is not None
        }
        told = [draft for draft in drafts if draft.origin not in (Origin.derived, Origin.trained)]
        messages = sum(1 for draft in told if draft.place is None or draft.place.part == 0)
        if not keys and messages < 2:  # a lone message is new, however many pieces it has
            return {}
        if not log.hold(transaction, target.tenant, target.space):
            raise SpaceGone
        if keys:
            return self._known_by_id(transaction, target, drafts, keys)
        return self._repeated_history(transaction, target, drafts)

    def _known_by_id(
        self, transaction: Transaction, target: Target, drafts: Sequence[Draft], keys: Mapping[int, bytes]
    ) -> dict[int, Outcome]:
        if len(set(keys.values())) < len(keys):
            raise IdempotencyConflict(
                "one id stands for several messages of this call; ids are unique in a scope"
            )
        known: dict[bytes, tuple[int, bool, set[bytes]]] = {}
        params = {"t": target.tenant, "s": target.space, "sc": target.scope}
        for key, _, seq, deleted, said in transaction.rows_in(
            reading.clients_in_scope, params, list(keys.values())
        ):
            known.setdefault(bytes(key), (seq, bool(deleted), set()))[2].add(bytes(said))
        for i, key in keys.items():
            if key in known and digest(self._key, drafts[i]) not in known[key][2]:
                raise IdempotencyConflict(
                    f"id {drafts[i].client_id!r} is taken by other content in this scope. To change what it "
                    "says use "
                    "update(id, …); to keep both, give this one another id. Nothing was stored."
                )
        rows = self._rows(
            transaction, target.space, [seq for seq, deleted, _ in known.values() if not deleted]
        )
        out: dict[int, Outcome] = {}
        for i, key in keys.items():
            if key in known:
                seq, deleted, _ = known[key]
                out[i] = (
                    Outcome(None, "was deleted; a deleted id stays deleted")
                    if deleted
                    else self._there(transaction, target.space, rows[seq], "already stored under this id")
                )
        fresh = {i: self._erased_key(target, drafts[i]) for i, key in keys.items() if key not in known}
        erased = transaction.rows_in(reading.erased_of, {"t": target.tenant}, list(fresh.values()))
        gone = {bytes(row[0]) for row in erased}
        out |= {
            i: Outcome(None, "was erased; an erased id stays erased, give it another to tell it anew")
            for i, key in fresh.items()
            if key in gone
        }
        return out

    def _erased_key(self, target: Target, draft: Draft) -> bytes:
        part = draft.place.part if draft.place else 0
        cube = writing.id_of_record(target, draft.client_id or "", part)
        return erased_key(self._key, erased_marker(cube))

    def _repeated_history(
        self, transaction: Transaction, target: Target, drafts: Sequence[Draft]
    ) -> dict[int, Outcome]:
        """O(1) where the first message differs;

        O(versions since the scope began) where the history is repeated.
        """
        params = {"t": target.tenant, "s": target.space, "sc": target.scope, "seq": target.first_seq}
        first = transaction.row(reading.first_told, {**params, "n": 1})
        if first is None or bytes(first[0]) != digest(self._key, drafts[0]):
            return {}
        told = transaction.rows(reading.first_told, {**params, "n": len(drafts) + 1})
        if len(told) > len(drafts) or any(
            bytes(row[0]) != digest(self._key, draft) for row, draft in zip(told, drafts, strict=False)
        ):
            return {}
        heads = [self._head(transaction, id_text(bytes(cube)))[1] for _, cube in told]
        return {
            i: Outcome(None, "repeats the session's history")
            if head.deleted
            else self._there(transaction, target.space, head, "repeats the session's history")
            for i, head in enumerate(heads)
        }

    def _there(self, transaction: Transaction, space: int, row: Stored, reason: str) -> Outcome:
        """What was told before; without its row where the actor may not see it."""
        try:
            return Outcome(row if self._shows(transaction, space, row) else None, reason)
        except Expired:
            return Outcome(None, "has expired; an id that expired stays so")

    def _advance(
        self,
        transaction: Transaction,
        steps: Sequence[Next],
        *,
        op: str,
        reason: str | None = None,
        change_id: bytes | None = None,
        undoes: bytes | None = None,
    ) -> list[tuple[Written, Scope]]:
        """Next versions of heads, one change row a scope, all of one change. Raises Frozen."""
        scopes: dict[tuple[int, int], list[Next]] = {}
        for step in steps:
            check_thawed(step.head, step.draft)
            scopes.setdefault((step.space, step.head.scope), []).append(step)
        (new_id,) = new_ids(1)
        done = []
        for (space, scope), mine in sorted(scopes.items()):  # ascending, so that two cannot deadlock
            names = self._scope_names(transaction, space, scope)
            written = writing.insert(
                transaction,
                Target(self.tenant, space, scope, names),
                self._key,
                [step.draft for step in mine],
                op=op,
                reason=reason,
                parents=[Parent(step.head.cube, step.head.version) for step in mine],
                change_id=change_id or new_id,
                undoes=undoes,
            )
            done.append((written, names))
        return done

    def _again(self, transaction: Transaction, space: int, row: Stored) -> Draft:
        """A version ready to be stored once more, with its features."""
        return replace(row.draft(), features=self._features(transaction, space, row.seq))

    def _features(self, transaction: Transaction, space: int, seq: int) -> dict[int, bytes]:
        kept = transaction.rows(reading.features_at, {"t": self.tenant, "s": space, "seq": seq})
        return {model: bytes(data) for model, data in kept}

    def _expiry_before(self, transaction: Transaction, row: Stored) -> int | None:
        """When a frozen cube would have expired: what the version before its freezing says."""
        past = self._past(transaction, row.cube)
        return next((one.expires_at for one in reversed(past) if not one.draft().frozen), None)

    def _past(self, transaction: Transaction, cube: bytes) -> list[Stored]:
        """Every version of a cube, oldest first."""
        rows = transaction.rows_in(reading.histories_of, {"t": self.tenant}, [cube])
        return [stored(row[1:]) for row in rows]

    def _hold_spaces_of(self, transaction: Transaction, cubes: Sequence[str]) -> None:
        """Before heads are read, so that a version follows the one it was made from.

        Ascending, so that two writers cannot deadlock.
        """
        keys = [id_bytes(cube) for cube in cubes]
        spaces = {row[0] for row in transaction.rows_in(reading.spaces_of, {"t": self.tenant}, keys)}
        for space in sorted(spaces):
            log.hold(transaction, self.tenant, space)

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
        if (names := self._interned.names(space, scope)) is None:
            found = self._all_scopes(transaction, space)
            self._interned.remember_names(found)
            names = found[space, scope]
        return names

    def _all_scopes(self, transaction: Transaction, space: int) -> dict[tuple[int, int], Scope]:
        where = {"t": self.tenant, "s": space}
        (name,) = transaction.row(reading.user_of_space, where) or (None,)
        user = None if name is None else bytes(name).decode()
        rows = transaction.rows(reading.scopes, where)
        return {(space, number): Scope(self.tenant, user, *json.loads(names)) for number, names in rows}


@dataclass(frozen=True, slots=True)
class Next:
    """A head and the version that follows it."""

    space: int
    head: Stored
    draft: Draft


class Snapshot:
    """Reads inside one transaction of a Vault."""

    def __init__(self, vault: Vault, transaction: Transaction) -> None:
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
        found = lineage.made_from(self._transaction, self._tenant, [id_bytes(cube)])
        return {name for name in map(id_text, found) if self.shows(name)}

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
        """Raises StaleMemory, which says why, unless the cube may be served."""
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

    def pending_count(self, space: int, model: int) -> int:
        """How many `pending` would give in all."""
        params = {"t": self._tenant, "s": space, "model": model, "seq": 0}
        found = self._transaction.row(reading.pending_count, params)
        return int(found[0]) if found else 0

    def models(self) -> list[ModelRow]:
        rows = self._transaction.rows(reading.models, {"t": self._tenant})
        return [ModelRow(number, name, dim, bool(on)) for number, name, dim, on in rows]

    def _names(self, space: int, scope: int) -> Scope:
        return self._vault._scope_names(self._transaction, space, scope)


def open_vault(
    url: str | os.PathLike[str],
    *,
    tenant: str = "default",
    key: KeyLike | None = None,
    blobs: str | os.PathLike[str] | None = None,
    clock: Clock = now,
) -> Vault:
    """Open or create a vault; raises VaultError and its kinds.

    key: a passphrase, a key file (Path) or a KeyService; a new vault is then encrypted (docs/security.md).
    blobs: the folder of large payloads; default: beside an SQLite file (`<file>.blobs`), none for a server.
    """
    database = connect(url)
    try:
        return Vault(database, tenant=tenant, key=key, blobs=blobs, clock=clock)
    except BaseException:
        database.close()
        raise


__all__ = ("Appended", "ModelRow", "Outcome", "Snapshot", "Vault", "Written", "open_vault")
