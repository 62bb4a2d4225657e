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
from typing import Any, BinaryIO

import sqlalchemy as sa

from mnemic.cube.errors import InvalidOption, NotFound
from mnemic.cube.ids import id_bytes, id_text, new_ids
from mnemic.cube.lifecycle import Event, follow
from mnemic.cube.model import Blob, MemCube, Scope, check_scope_field
from mnemic.cube.times import Clock, now
from mnemic.vault import (
    governing,
    log,
    reading,
    tables,
    undoing,
    writing,
)
from mnemic.vault.acting import Acting
from mnemic.vault.blobs import Blobs, Hashed, Source, pieces
from mnemic.vault.codec import (
    Draft,
    Stored,
    check_thawed,
    mac,
    state_of,
    tombstone,
)
from mnemic.vault.database import Actor, Database, Deed, Statement, Transaction
from mnemic.vault.finding import Finder
from mnemic.vault.idempotency import Outcome, already_told
from mnemic.vault.keys import KeyLike
from mnemic.vault.migrations import migrate
from mnemic.vault.snapshot import ModelRow, Snapshot
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


@dataclass(frozen=True, slots=True)
class Appended:
    change: Written | None
    outcomes: tuple[Outcome, ...]


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


class Vault(Finder):
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
        tenant = check_scope_field("tenant", tenant) or ""
        if not tenant:
            raise InvalidOption("tenant must be named")
        self.database = Acting(database, tenant, clock=clock)
        migrate(database)
        own_key, self._seals = unlock(database, tenant, key)
        super().__init__(tenant, own_key)
        database.sealing = self._seals
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
                    known = already_told(self, transaction, target, drafts)
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
            if (state := follow(state_of(row), Event.restore)) is not None:
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

    def pin(
        self, cubes: Sequence[str], *, unpin: bool = False, reason: str | None = None
    ) -> list[tuple[Written, Scope]]:
        """Let cubes count as in use, whoever uses them, until they are unpinned; all or none.

        Raises NotFound, Frozen before anything is written.
        """
        with self.database.write() as transaction:
            self._hold_spaces_of(transaction, cubes)
            found, woken = [], []
            for space, row in self._visible_heads(transaction, cubes):
                if row.deleted:
                    cube = id_text(row.cube)
                    raise NotFound(f"cube {cube} was deleted; restore it before you pin or unpin it")
                draft = self._again(transaction, space, row)
                if draft.pinned == unpin:
                    found.append(Next(space, row, replace(draft, pinned=not unpin)))
                    if not unpin and (state := follow(state_of(row), Event.pin)) is not None:
                        woken.append((row, state))
            done = self._advance(transaction, found, op="unpin" if unpin else "pin", reason=reason)
            for row, state in woken:
                governing.set_state(transaction, self.tenant, [row.cube], row.state, int(state))
            return done

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
        """Store write-time features that came later, such as vectors of a remote embedder, by seq.

        Those of versions that were erased meanwhile are left out. O(rows).
        """
        with self.database.write() as transaction:
            log.hold(transaction, self.tenant, space)
            there = transaction.rows_in(reading.seqs_at, {"t": self.tenant, "s": space}, list(rows))
            kept = {int(seq): rows[seq] for (seq,) in there}
            writing.put_features(transaction, self.tenant, space, model, kept)

    # --- large payloads

    def require_writable(self, scope: Scope) -> None:
        """Before work whose result will be stored. Raises AccessDenied where the actor may not write."""
        with self.database.read() as transaction:
            if transaction.actor is not None:
                transaction.actor.permit(transaction, scope, (), ())

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

    def _hold_spaces_of(self, transaction: Transaction, cubes: Sequence[str]) -> None:
        """Before heads are read, so that a version follows the one it was made from.

        Ascending, so that two writers cannot deadlock.
        """
        keys = [id_bytes(cube) for cube in cubes]
        spaces = {row[0] for row in transaction.rows_in(reading.spaces_of, {"t": self.tenant}, keys)}
        for space in sorted(spaces):
            log.hold(transaction, self.tenant, space)


@dataclass(frozen=True, slots=True)
class Next:
    """A head and the version that follows it."""

    space: int
    head: Stored
    draft: Draft


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
