"""What a memory is made of, apart from any one vault: versions, citations, changes, markers of erased cubes.

All are immutable and named by global ids, so that a merge is their union (`merging`), a dump is a file of
them (`archive`), and everything else, such as seqs, heads and keyed digests, is made anew by the vault that
takes them in. `VaultSource` reads them from an open vault in one snapshot, a batch at a time.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, BinaryIO, Final, NamedTuple, Protocol

import sqlalchemy as sa

from mnemic.cube.ids import named_id
from mnemic.cube.model import Blob, Scope
from mnemic.vault import reading, tables
from mnemic.vault.database import InStatement, Statement, Transaction
from mnemic.vault.vault import Vault

BATCH: Final = 500  # versions held at once
_SHARED: Final = ("role", "labels", "blob", "method")  # what a redacted header keeps as it is
_p = sa.bindparam
_version, _change, _edge = tables.version, tables.change, tables.edge

_versions = Statement(
    sa.select(
        *(_version.c.seq, _version.c.version, _version.c.cube, _version.c.parent, _version.c.scope),
        *(_version.c.kind, _version.c.origin, _version.c.deleted, _version.c.at, _version.c.recorded_at),
        *(_version.c.valid_from, _version.c.valid_to, _version.c.expires_at),
        *(_version.c.header, _version.c.payload, _version.c.blob),
    )
    .where(_version.c.tenant == _p("t"), _version.c.space == _p("s"), _version.c.seq > _p("seq"))
    .order_by(_version.c.seq)
    .limit(_p("n", type_=sa.BigInteger))
)
_changes = Statement(
    sa.select(
        _change.c.seq, _change.c.change_id, _change.c.op, _change.c.principal, _change.c.at, _change.c.reason,
        _change.c.undoes,
    )
    .where(_change.c.tenant == _p("t"), _change.c.space == _p("s"), _change.c.seq > _p("seq"))
    .order_by(_change.c.seq)
    .limit(_p("n", type_=sa.BigInteger))
)  # fmt: skip
_features = Statement(
    sa.select(tables.feature.c.seq, tables.feature.c.model, tables.feature.c.data).where(
        tables.feature.c.tenant == _p("t"),
        tables.feature.c.space == _p("s"),
        tables.feature.c.seq > _p("seq"),
        tables.feature.c.seq <= _p("upto"),
    )
)
_edges = Statement(
    sa.select(
        _version.c.cube, _edge.c.version, _edge.c.role, _edge.c.target, _edge.c.target_cube,
        _edge.c.span_start, _edge.c.span_end,
    )
    .select_from(
        _edge.join(
            _version,
            sa.and_(
                _version.c.tenant == _edge.c.tenant,
                _version.c.space == _edge.c.space,
                _version.c.version == _edge.c.version,
            ),
        )
    )
    .where(_edge.c.tenant == _p("t"), _edge.c.space == _p("s"))
)  # fmt: skip
_seqs_of = InStatement(
    lambda values: sa.select(_version.c.space, _version.c.seq).where(
        _version.c.tenant == _p("t"), _version.c.cube.in_(values)
    )
)
_markers = Statement(sa.select(tables.erased.c.marker).where(tables.erased.c.tenant == _p("t")))


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """One state of a cube. `header` holds no digests of what it cites: each vault has its own.

    features: by the name of the model that made them.
    """

    version: bytes
    cube: bytes
    parent: bytes | None
    user: str | None
    agent: str | None
    session: str | None
    kind: int
    origin: int
    deleted: int
    at: int
    recorded_at: int
    valid_from: int | None
    valid_to: int | None
    expires_at: int | None
    header: dict[str, Any]
    payload: bytes
    features: Mapping[str, bytes] = field(default_factory=dict)

    def scope_in(self, tenant: str) -> Scope:
        return Scope(tenant, self.user, self.agent, self.session)


class Edge(NamedTuple):
    """A version of `cube` that cites a version of `target_cube`."""

    cube: bytes
    version: bytes
    role: int
    target: bytes
    target_cube: bytes
    start: int
    end: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """Who did what, when and why. A change of many versions comes in several groups."""

    change: bytes
    user: str | None
    op: str
    principal: bytes | None
    at: int
    reason: str | None
    undoes: bytes | None


class Group(NamedTuple):
    """Versions that one change made in one space, in their order; at most `BATCH`."""

    change: Change
    versions: list[Version]


class Records(Protocol):
    """What can be dumped, loaded, merged and compared."""

    name: str

    def markers(self) -> Iterator[bytes]:
        """Of cubes that were erased."""
        ...

    def edges(self) -> Iterator[Edge]: ...

    def groups(self) -> Iterator[Group]: ...

    def open_blob(self, sha256: str) -> BinaryIO:
        """The content of a large payload. Raises NotFound."""
        ...


Redactor = Callable[[str], str]


class VaultSource:
    """The records of an open vault, or a part of them, as of one transaction.

    spaces: whole ones. cubes: single ones, whichever space they are in; both None: all there is.
    """

    def __init__(
        self,
        vault: Vault,
        transaction: Transaction,
        *,
        spaces: Collection[int] | None = None,
        cubes: Collection[bytes] | None = None,
    ) -> None:
        self.name = vault.database.location
        self._vault, self._transaction = vault, transaction
        self._tenant = vault.tenant
        self._whole = None if spaces is None and cubes is None else frozenset(spaces or ())
        self._cubes = frozenset(cubes or ())
        self._hidden: frozenset[bytes] = frozenset()
        self._hidden_at: dict[int, set[int]] = {}  # seqs of their versions, by space
        rows = transaction.rows(reading.models, {"t": self._tenant})
        self.models = {number: (name, dim) for number, name, dim, _ in rows}
        self._blobs: dict[str, Blob] = {}

    def markers(self) -> Iterator[bytes]:
        for (marker,) in self._transaction.rows(_markers, {"t": self._tenant}):
            yield bytes(marker)

    def edges(self) -> Iterator[Edge]:
        for space in self.spaces():
            for cube, version, role, target, target_cube, start, end in self._transaction.rows(
                _edges, {"t": self._tenant, "s": space}
            ):
                if self._has(space, bytes(cube)):
                    yield Edge(
                        bytes(cube), bytes(version), role, bytes(target), bytes(target_cube), start, end
                    )

    def groups(self) -> Iterator[Group]:
        for space in self.spaces():
            yield from self._groups_of(space)

    def open_blob(self, sha256: str) -> BinaryIO:
        return self._vault.open_content(self._blobs[sha256])

    def spaces(self) -> list[int]:
        """The spaces that it reads from."""
        found = self._transaction.rows(reading.spaces, {"t": self._tenant})
        return [row[0] for row in found if self._cubes or self._whole is None or row[0] in self._whole]

    def touched(self) -> list[int]:
        """The spaces that something is read from."""
        if not self._cubes:
            return self.spaces()
        params = {"t": self._tenant}
        found = self._transaction.rows_in(reading.spaces_of, params, sorted(self._cubes))
        return sorted({int(row[0]) for row in found} | (self._whole or frozenset()))

    def hide(self, cubes: Collection[bytes]) -> None:
        """Leave these out, and the reason of each change that was of one of them too: it may speak of it."""
        self._hidden, self._hidden_at = frozenset(cubes), {}
        for space, seq in self._transaction.rows_in(_seqs_of, {"t": self._tenant}, sorted(self._hidden)):
            self._hidden_at.setdefault(int(space), set()).add(int(seq))

    def _has(self, space: int, cube: bytes) -> bool:
        if cube in self._hidden:
            return False
        return self._whole is None or space in self._whole or cube in self._cubes

    def _groups_of(self, space: int) -> Iterator[Group]:
        (name,) = self._transaction.row(reading.user_of_space, {"t": self._tenant, "s": space}) or (None,)
        user = None if name is None else bytes(name).decode()
        changes = self._changes(space, user)
        end, change = next(changes, (0, None))
        group: list[Version] = []
        for seq, version in self._versions(space):
            while change is not None and seq > end:
                if group:
                    yield Group(change, group)
                    group = []
                end, change = next(changes, (0, None))
            if change is None:  # no change accounts for it: `doctor` reports such a vault
                return
            group.append(version)
            if len(group) == BATCH:
                yield Group(change, group)
                group = []
        if group and change is not None:
            yield Group(change, group)

    def _changes(self, space: int, user: str | None) -> Iterator[tuple[int, Change]]:
        after, hidden = 0, self._hidden_at.get(space, set())
        while rows := self._transaction.rows(
            _changes, {"t": self._tenant, "s": space, "seq": after, "n": BATCH}
        ):
            for seq, id_, op, principal, at, reason, undoes in rows:
                if hidden and not hidden.isdisjoint(range(after + 1, seq + 1)):
                    reason = None
                after = seq
                yield (
                    seq,
                    Change(
                        change=bytes(id_),
                        user=user,
                        op=op,
                        principal=_bytes(principal),
                        at=at,
                        reason=None if reason is None else bytes(reason).decode(),
                        undoes=_bytes(undoes),
                    ),
                )

    def _versions(self, space: int) -> Iterator[tuple[int, Version]]:
        scopes = {n: names for (_, n), names in self._vault._all_scopes(self._transaction, space).items()}
        after = 0
        while rows := self._transaction.rows(
            _versions, {"t": self._tenant, "s": space, "seq": after, "n": BATCH}
        ):
            features: dict[int, dict[str, bytes]] = {}
            span = {"t": self._tenant, "s": space, "seq": after, "upto": rows[-1][0]}
            for seq, model, data in self._transaction.rows(_features, span):
                if model in self.models:
                    features.setdefault(seq, {})[self.models[model][0]] = bytes(data)
            for row in rows:
                if self._has(space, bytes(row[2])):
                    yield row[0], self._version(row, scopes[row[4]], features.get(row[0], {}))
            after = rows[-1][0]

    def _version(self, row: tuple[Any, ...], scope: Scope, features: Mapping[str, bytes]) -> Version:
        _, version, cube, parent, _, kind, origin, deleted, at, recorded_at, *times, header, payload, blob = (
            row
        )
        known = without_digests(json.loads(header))
        if blob is not None:
            large = known["blob"]
            self._blobs[large["sha256"]] = Blob(id=bytes(blob).hex(), **large)
        return Version(
            version=bytes(version),
            cube=bytes(cube),
            parent=_bytes(parent),
            user=scope.user,
            agent=scope.agent,
            session=scope.session,
            kind=kind,
            origin=origin,
            deleted=deleted,
            at=at,
            recorded_at=recorded_at,
            valid_from=times[0],
            valid_to=times[1],
            expires_at=times[2],
            header=known,
            payload=bytes(payload),
            features=features,
        )


class Redacted:
    """What may be shared of other records: what is live now, with other ids, and texts as `redact` left them.

    History, reasons, citations, the caller's ids, source files and features stay behind: each would tell what
    was taken out. Names of users, agents and sessions stay.
    """

    def __init__(
        self, records: Records, redact: Redactor, recalled: Callable[[str], Sequence[tuple[int, int]]]
    ) -> None:
        self.name = records.name
        self._records, self._redact, self._recalled = records, redact, recalled

    def markers(self) -> Iterator[bytes]:
        return iter(())

    def edges(self) -> Iterator[Edge]:
        return iter(())

    def groups(self) -> Iterator[Group]:
        heads = current(self._records)
        for change, versions in self._records.groups():
            kept = [
                self._redacted(one)
                for one in versions
                if heads[one.cube] == (one.recorded_at, one.version) and not one.deleted
            ]
            if kept:
                hidden = Change(
                    change=_other(change.change), user=change.user, op=change.op, principal=None,
                    at=change.at, reason=None, undoes=None,
                )  # fmt: skip
                yield Group(hidden, kept)

    def open_blob(self, sha256: str) -> BinaryIO:
        return self._records.open_blob(sha256)

    def _redacted(self, one: Version) -> Version:
        said: dict[str, Any] = {key: one.header[key] for key in _SHARED if key in one.header}
        if "labels" in said:
            said["labels"] = list(dict.fromkeys(map(self._redact, said["labels"])))
        if "name" in one.header:
            said["name"] = self._redact(one.header["name"])
        if "metadata" in one.header:
            said["metadata"] = {
                key: self._redact(value) if isinstance(value, str) else value
                for key, value in one.header["metadata"].items()
            }
        payload = one.payload
        if one.kind == 0:
            text = self._redact(payload.decode())
            payload = text.encode()
            if spans := self._recalled(text):
                said["recalled"] = [list(span) for span in spans]
        return Version(
            version=_other(one.version),
            cube=_other(one.cube),
            parent=None,
            user=one.user,
            agent=one.agent,
            session=one.session,
            kind=one.kind,
            origin=one.origin,
            deleted=0,
            at=one.at,
            recorded_at=one.recorded_at,
            valid_from=one.valid_from,
            valid_to=one.valid_to,
            expires_at=one.expires_at,
            header=said,
            payload=payload,
        )


def current(records: Records) -> dict[bytes, tuple[int, bytes]]:
    """The served head of each cube, as (recorded_at, version). O(versions), memory O(cubes)."""
    heads: dict[bytes, tuple[int, bytes]] = {}
    for _, versions in records.groups():
        for one in versions:
            place = (one.recorded_at, one.version)
            if place > heads.get(one.cube, (-(1 << 63), b"")):
                heads[one.cube] = place
    return heads


def cited(header: Mapping[str, Any]) -> bool:
    """Whether a header names what its cube was made from, or ended by."""
    return bool(header.get("sources") or header.get("ended_by"))


def with_digests(header: dict[str, Any], digests: Mapping[str, str]) -> dict[str, Any]:
    """A header with this vault's digests of what it cites, by version id, where they are known."""

    def known(one: dict[str, Any]) -> dict[str, Any]:
        return {**one, "digest": digests[one["version_id"]]} if one["version_id"] in digests else one

    out = dict(header)
    if "sources" in out:
        out["sources"] = [known(one) for one in out["sources"]]
    if "ended_by" in out:
        out["ended_by"] = known(out["ended_by"])
    return out


def without_digests(header: dict[str, Any]) -> dict[str, Any]:
    """A header as every vault can read it."""
    out = dict(header)
    if "sources" in out:
        out["sources"] = [
            {key: value for key, value in one.items() if key != "digest"} for one in out["sources"]
        ]
    if "ended_by" in out:
        out["ended_by"] = {key: value for key, value in out["ended_by"].items() if key != "digest"}
    return out


def _bytes(value: Any) -> bytes | None:
    return None if value is None else bytes(value)


def _other(id_: bytes) -> bytes:
    """The id that a redacted copy bears: always the same, and not that of the original."""
    return named_id(b"redacted " + id_)
