"""Load and merge, one operation: the union of a vault with records of another, in one transaction.

Versions, citations, changes and markers are immutable and named by global ids, so the union is commutative,
associative and idempotent; seqs, heads, conflicts, staleness and keyed digests are made anew. Two states of
which neither follows the other are both kept; when they say different things the cube is in conflict, and the
later one is served. Erasing wins: what either side erased, and all made from it, is on neither afterwards.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import sqlalchemy as sa

from mnemic.cube.errors import DumpDamaged
from mnemic.cube.ids import id_bytes, id_text, new_ids
from mnemic.cube.model import Blob, Scope, State, check_scope_field
from mnemic.vault import blobs, deriving, destroying, erasing, heads, jobs, lineage, log, reading, tables
from mnemic.vault.codec import Stored, client_key, digest, erased_marker
from mnemic.vault.database import Deed, InStatement, Statement, Transaction
from mnemic.vault.heads import AGREE, Head, heads_of
from mnemic.vault.records import BATCH, Change, Edge, Group, Records, Version, cited, with_digests
from mnemic.vault.vault import Vault
from mnemic.vault.writing import REBUILD, Target

Progress = Callable[[int, int], None]
SlotOf = Callable[[Version], tuple[str, str] | None]

_p = sa.bindparam
_version, _change, _cube, _edge = tables.version, tables.change, tables.cube, tables.edge

_all_cubes = Statement(sa.select(_cube.c.cube).where(_cube.c.tenant == _p("t")))
_all_cited = Statement(sa.select(_edge.c.target_cube).distinct().where(_edge.c.tenant == _p("t")))
_markers = Statement(sa.select(tables.erased.c.marker).where(tables.erased.c.tenant == _p("t")))
_places = InStatement(
    lambda values: sa.select(_version.c.version, _version.c.space).where(
        _version.c.tenant == _p("t"), _version.c.cube.in_(values)
    )
)
_rows = InStatement(
    lambda values: sa.select(_cube.c.cube, _cube.c.space).where(
        _cube.c.tenant == _p("t"), _cube.c.cube.in_(values)
    )
)
_taken = InStatement(
    lambda values: sa.select(_cube.c.client_key).where(
        _cube.c.tenant == _p("t"),
        _cube.c.space == _p("s"),
        _cube.c.scope == _p("sc"),
        _cube.c.client_key.in_(values),
    )
)
_insert_version = Statement(sa.insert(_version))
_insert_change = Statement(sa.insert(_change))
_insert_cube = Statement(sa.insert(_cube))
_insert_feature = Statement(sa.insert(tables.feature))
_add_edge = Statement(
    sa.text(
        "INSERT INTO edge (tenant, space, version, role, target, span_start, span_end, target_cube, "
        "target_digest) VALUES (:t, :s, :v, :role, :target, :start, :end_, :cube, NULL) "
        "ON CONFLICT DO NOTHING"
    )
)
# Citations of what has come meanwhile: each vault has digests of its own.
_settle = Statement(
    sa.update(_edge)
    .where(_edge.c.tenant == _p("t"), _edge.c.target_digest.is_(None))
    .values(
        target_digest=sa.select(_version.c.digest)
        .where(
            _version.c.tenant == _edge.c.tenant,
            _version.c.cube == _edge.c.target_cube,
            _version.c.version == _edge.c.target,
        )
        .limit(1)
        .scalar_subquery()
    )
)
_derived = Statement(
    sa.select(_cube.c.cube)
    .distinct()
    .select_from(
        _edge.join(
            _cube,
            sa.and_(
                _cube.c.tenant == _edge.c.tenant,
                _cube.c.space == _edge.c.space,
                _cube.c.head == _edge.c.version,
            ),
        )
    )
    .where(_edge.c.tenant == _p("t"))
)
_stale = Statement(sa.select(_cube.c.cube).where(_cube.c.tenant == _p("t"), _cube.c.stale_since.is_not(None)))
_dangling = Statement(
    sa.select(_edge.c.space, _edge.c.version)
    .distinct()
    .where(_edge.c.tenant == _p("t"), _edge.c.target_digest.is_(None), _edge.c.role != lineage.PARENT)
)
_digests = Statement(
    sa.select(_edge.c.target, _edge.c.target_digest).where(
        _edge.c.tenant == _p("t"), _edge.c.space == _p("s"), _edge.c.version == _p("v")
    )
)
_seq_of = InStatement(
    lambda values: sa.select(_version.c.seq, _version.c.version).where(
        _version.c.tenant == _p("t"), _version.c.space == _p("s"), _version.c.version.in_(values)
    )
)
_in_place = (_version.c.tenant == _p("t"), _version.c.space == _p("s"), _version.c.seq == _p("seq"))
_header = Statement(sa.select(_version.c.header, _version.c.seq).where(*_in_place))
_set_header = Statement(
    sa.update(_version)
    .where(_version.c.tenant == _p("t"), _version.c.space == _p("space"), _version.c.seq == _p("seq"))
    .values(header=_p("header_"))
)
_raise_last_time = Statement(
    sa.update(tables.space)
    .where(
        tables.space.c.tenant == _p("t"),
        tables.space.c.space == _p("s"),
        tables.space.c.last_time < _p("time", type_=sa.BigInteger),
    )
    .values(last_time=_p("time", type_=sa.BigInteger))
)
_raise_epoch = Statement(
    sa.update(tables.space)
    .where(tables.space.c.tenant == _p("t"), tables.space.c.space == _p("s"))
    .values(epoch=tables.space.c.epoch + 1)
)
_silent = InStatement(
    lambda values: sa.select(_change.c.change_id).where(
        _change.c.tenant == _p("t"), _change.c.change_id.in_(values), _change.c.reason.is_(None)
    )
)


@dataclass(slots=True)
class Merged:
    """The account of a load or merge.

    stored, existing, erased: versions that came, were here, or belong to something erased. cubes: those that
    are new here. conflicts: ids of cubes with two states that say different things; the later is served.
    gone: cubes of this vault that the other had erased. waits_for: see `Certificate`.
    """

    name: str
    stored: int = 0
    existing: int = 0
    erased: int = 0
    cubes: int = 0
    gone: int = 0
    users: set[str | None] = field(default_factory=set)
    conflicts: list[str] = field(default_factory=list)
    waits_for: str | None = None


def merge(
    vault: Vault, records: Records, *, slot_of: SlotOf | None = None, progress: Progress | None = None
) -> Merged:
    """Take in what another vault knew. All or nothing, in one transaction; other writers wait for it.

    slot_of: the subject and attribute that a version is a fact about, if it is one: derivers find it then.
    Raises DumpDamaged; then nothing was loaded. O(records), memory for one batch, for ids of what cites
    something erased, and for markers.
    """
    account = Merged(records.name)
    with vault.database.write() as transaction:
        transaction.deeds.append(Deed("load"))
        work = _Work(vault, transaction, account, slot_of)
        work.erase_and_skip(records)
        for batch in _batches(records.groups()):
            work.take(batch, records)
            if progress:
                done = account.stored + account.existing + account.erased
                progress(done, done)
        work.cite(records.edges())
        work.settle()
    for user in account.users:
        vault._interned.forget(user)
    if account.gone:
        _, account.waits_for = erasing.finish(vault)
    return account


def _packed(header: Mapping[str, Any]) -> bytes:
    return json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()


def _several(edges: Iterable[Edge]) -> Iterator[list[Edge]]:
    left = iter(edges)
    while batch := list(islice(left, BATCH)):
        yield batch


def _batches(groups: Iterable[Group]) -> Iterator[list[Group]]:
    batch: list[Group] = []
    held = 0
    for group in groups:
        batch.append(group)
        held += len(group.versions)
        if held >= BATCH:
            yield batch
            batch, held = [], 0
    if batch:
        yield batch


class _Work:
    """One merge, inside its transaction."""

    def __init__(
        self, vault: Vault, transaction: Transaction, account: Merged, slot_of: SlotOf | None
    ) -> None:
        self._vault, self._transaction, self._account = vault, transaction, account
        self._slot_of = slot_of or (lambda _: None)
        self._citing: dict[tuple[int, bytes], int] = {}  # (space, version) -> seq: they hold digests
        self._tenant, self._key = vault.tenant, vault._key
        self._skip: set[bytes] = set()  # cubes that do not come in
        self._erased: set[bytes] = set()  # markers of all that either side erased
        self._orphans: dict[bytes, destroying.Row] = {}  # versions merged into what does not come in
        self._of_orphans: dict[tuple[int, int], set[bytes]] = {}  # changes (space, seq) that made only these
        self._silenced: set[bytes] = set()  # changes whose reason may speak of what was erased
        self._targets: dict[Scope, Target] = {}
        self._blobs: dict[tuple[int, str], Blob] = {}
        self._before: set[int] = set()
        self._erases = False
        vault.hold_tenant(transaction)
        for row in transaction.rows(reading.spaces, {"t": self._tenant}):
            log.hold(transaction, self._tenant, row[0])
            self._before.add(row[0])
        models = transaction.rows(reading.models, {"t": self._tenant})
        self._models = {name: number for number, name, _, _ in models}

    # --- what was erased, here or there

    def erase_and_skip(self, records: Records) -> None:
        """Erase here what was erased there, and find what of theirs must not come in."""
        here = {bytes(row[0]) for row in self._transaction.rows(_markers, {"t": self._tenant})}
        new = {marker for marker in records.markers() if marker not in here}
        erased = here | new
        self._erases = bool(erased)
        if not erased:
            return
        mine = self._cubes_erased(erased) if new else set()
        victims: set[bytes] = set()
        while True:
            victims, _ = destroying.made_from_any(self._transaction, self._tenant, mine | self._skip)
            victims |= mine
            known = {erased_marker(cube) for cube in victims} | erased
            theirs = self._cubes_citing(records, known)
            if theirs <= self._skip:
                break
            self._skip |= theirs
        for change, versions in records.groups():
            gone = {
                one.cube for one in versions if one.cube in self._skip or erased_marker(one.cube) in known
            }
            if gone:
                self._skip |= gone
                self._silenced.add(change.change)
        self._destroy(victims)
        self._erased = known | {erased_marker(cube) for cube in self._skip}
        for marker in sorted(self._erased - here):
            destroying.mark(self._transaction, self._tenant, self._key, marker, 0, 0)

    def _cubes_erased(self, markers: set[bytes]) -> set[bytes]:
        """Cubes that this vault holds, or only cites, that were erased there."""
        out = set()
        for statement in (_all_cubes, _all_cited):
            for (cube,) in self._transaction.rows(statement, {"t": self._tenant}):
                if erased_marker(bytes(cube)) in markers:
                    out.add(bytes(cube))
        return out

    def _cubes_citing(self, records: Records, markers: set[bytes]) -> set[bytes]:
        """Theirs that were made from what was erased, directly or through others."""
        out = set(self._skip)
        while True:
            more = {
                edge.cube
                for edge in records.edges()
                if edge.role in lineage.QUOTES
                and edge.cube not in out
                and (edge.target_cube in out or erased_marker(edge.target_cube) in markers)
            }
            if not more:
                return out
            out |= more

    def _destroy(self, victims: set[bytes]) -> None:
        held = {
            bytes(row[0]) for row in self._transaction.rows_in(_rows, {"t": self._tenant}, sorted(victims))
        }
        if not held:
            return
        plan = destroying.plan_of(self._transaction, self._tenant, sorted(held), ())
        (id_,) = new_ids(1)
        destroying.destroy(
            self._transaction, self._tenant, self._key, plan, erasure=id_, at=self._transaction.clock()
        )
        self._account.gone = len(plan.cubes)

    # --- what comes in

    def take(self, batch: Sequence[Group], records: Records) -> None:
        """Store the versions of some changes that are not here yet."""
        cubes = {version.cube for group in batch for version in group.versions}
        rows = self._transaction.rows_in(_places, {"t": self._tenant}, sorted(cubes - self._skip))
        known = {bytes(row[0]) for row in rows}
        touched: dict[bytes, Version] = {}
        for change, versions in batch:
            fresh = []
            for version in versions:
                if version.cube in self._skip:
                    self._account.erased += 1
                elif version.version in known:
                    self._account.existing += 1
                else:
                    known.add(version.version)
                    fresh.append(version)
                    touched[version.cube] = version
            if fresh:
                self._store(change, fresh, records)
        self._settle_heads(touched)

    def _store(self, change: Change, versions: Sequence[Version], records: Records) -> None:
        space = self._target(versions[0]).space
        latest = max(version.recorded_at for version in versions)
        taken = log.allocate(self._transaction, self._tenant, space, len(versions), 0)
        if taken is None:
            raise DumpDamaged(f"{records.name}: the user of {id_text(versions[0].cube)} is unknown")
        self._transaction.run(_raise_last_time, {"t": self._tenant, "s": space, "time": latest})
        first = taken.last_seq - len(versions) + 1
        rows, features, named = [], [], []
        for seq, version in enumerate(versions, start=first):
            target = self._target(version)
            if target.space != space:
                raise DumpDamaged(f"{records.name}: change {id_text(change.change)} is of several users")
            blob = self._blob(version, records)
            rows.append(self._row(seq, target, version, blob))
            features += [
                {
                    "tenant": self._tenant,
                    "space": space,
                    "seq": seq,
                    "model": self._models[name],
                    "data": data,
                }
                for name, data in version.features.items()
                if name in self._models
            ]
            if blob is not None:
                named.append((seq, blob))
            if self._is_orphan(version):
                self._orphans[version.version] = (seq, version.version, version.cube, target.scope, None)
            if cited(version.header):
                self._citing[space, version.version] = seq
            if (slot := self._slot_of(version)) is not None:
                key = deriving.slot_key(self._vault, target.names, *slot)
                deriving.take_place(self._transaction, self._tenant, space, key, version.cube)
        self._transaction.many(_insert_version, rows)
        self._transaction.many(_insert_feature, features)
        blobs.name(self._transaction, self._tenant, space, named)
        silent = change.reason is None or change.change in self._silenced or self._is_silent(change.change)
        self._transaction.many(
            _insert_change,
            [
                {
                    "tenant": self._tenant,
                    "space": space,
                    "seq": taken.last_seq,
                    "change_id": change.change,
                    "op": change.op,
                    "principal": change.principal,
                    "at": change.at,
                    "reason": None if silent else str(change.reason).encode(),
                    "undoes": change.undoes,
                }
            ],
        )
        made = {version.version for version in versions}
        if made <= self._orphans.keys():
            self._of_orphans[space, taken.last_seq] = made
        self._account.stored += len(versions)
        self._account.users.add(versions[0].user)

    def _is_orphan(self, version: Version) -> bool:
        """It says only that its cube was fused into one that was erased."""
        into = version.header.get("merged_into")
        return into is not None and erased_marker(id_bytes(into)) in self._erased

    def _is_silent(self, change: bytes) -> bool:
        """Another part of the change is here, and has lost its reason to an erase."""
        return self._erases and any(self._transaction.rows_in(_silent, {"t": self._tenant}, [change]))

    def _row(self, seq: int, target: Target, version: Version, blob: Blob | None) -> dict[str, Any]:
        header = _packed(version.header)
        stored = None if blob is None else bytes.fromhex(blob.id)
        row = Stored(
            seq, version.cube, version.version, target.scope, version.kind, version.origin, version.deleted,
            version.at, version.recorded_at, version.valid_from, version.valid_to, version.expires_at, header,
            version.payload, stored, 0,
        )  # fmt: skip
        try:
            said = digest(self._key, row.draft())
        except (TypeError, ValueError, KeyError) as error:
            raise DumpDamaged(f"version {id_text(version.version)} cannot be read ({error})") from error
        return {
            "tenant": self._tenant,
            "space": target.space,
            "seq": seq,
            "cube": version.cube,
            "version": version.version,
            "parent": version.parent,
            "scope": target.scope,
            "kind": version.kind,
            "origin": version.origin,
            "deleted": version.deleted,
            "at": version.at,
            "recorded_at": version.recorded_at,
            "valid_from": version.valid_from,
            "valid_to": version.valid_to,
            "expires_at": version.expires_at,
            "digest": said,
            "header": header,
            "payload": version.payload,
            "blob": stored,
        }

    def _target(self, version: Version) -> Target:
        scope = version.scope_in(self._tenant)
        if (found := self._targets.get(scope)) is None:
            for name in ("user", "agent", "session"):
                check_scope_field(name, getattr(scope, name))
            found = self._targets[scope] = self._vault.find_target(self._transaction, scope)
        return found

    def _blob(self, version: Version, records: Records) -> Blob | None:
        said = version.header.get("blob")
        if said is None:
            return None
        place = (self._target(version).space, said["sha256"])
        if place not in self._blobs:
            with records.open_blob(said["sha256"]) as source:
                self._blobs[place] = self._vault.put_blob(
                    version.scope_in(self._tenant), source, within=self._transaction
                )
            if self._blobs[place].sha256 != said["sha256"]:
                raise DumpDamaged(f"{records.name}: the payload {said['sha256'][:16]}… was altered")
        return self._blobs[place]

    # --- what follows from it

    def _settle_heads(self, touched: Mapping[bytes, Version]) -> None:
        """The head of each cube anew, from all its versions."""
        found = heads_of(self._transaction, self._tenant, touched)
        held = {
            bytes(cube): space
            for cube, space in self._transaction.rows_in(_rows, {"t": self._tenant}, sorted(touched))
        }
        moved, made = {}, []
        for cube, head in found.items():
            if head.conflict:
                self._account.conflicts.append(id_text(cube))
            if cube in held:
                if held[cube] != head.space:
                    raise DumpDamaged(f"cube {id_text(cube)} belongs to another user in this vault")
                moved[cube] = head
            else:
                made.append(self._new_cube(cube, head, touched[cube]))
        heads.move(self._transaction, self._tenant, moved)
        self._transaction.many(_insert_cube, made)
        self._account.cubes += len(made)

    def _new_cube(self, cube: bytes, head: Head, version: Version) -> dict[str, Any]:
        keyed = None
        if (said := version.header.get("client_id")) is not None:
            part = (version.header.get("place") or {}).get("part", 0)
            keyed = client_key(self._key, said, part)
            place = {"t": self._tenant, "s": head.space, "sc": head.scope}
            if any(self._transaction.rows_in(_taken, place, [keyed])):
                keyed = None  # told here under the same id, as another cube
        return {
            "tenant": self._tenant,
            "cube": cube,
            "space": head.space,
            "scope": head.scope,
            "head": head.version,
            "head_seq": head.seq,
            "deleted": head.deleted,
            "state": int(State.generated),
            "stale_since": None,
            "conflict": int(head.conflict),
            "client_key": keyed,
        }

    def cite(self, edges: Iterable[Edge]) -> None:
        """Citations of the versions that came, with digests to be filled in by `settle`."""
        for batch in _several(edges):
            cubes = {edge.cube for edge in batch} - self._skip
            rows = self._transaction.rows_in(_places, {"t": self._tenant}, sorted(cubes))
            spaces = {bytes(version): space for version, space in rows}
            for edge in batch:
                if edge.version in spaces:
                    self._transaction.run(
                        _add_edge,
                        {"t": self._tenant, "s": spaces[edge.version], "v": edge.version,
                         "role": edge.role, "target": edge.target, "start": edge.start, "end_": edge.end,
                         "cube": edge.target_cube},
                    )  # fmt: skip

    def settle(self) -> None:
        """Digests of what is cited, what is stale now, and a new epoch where indexes know too little."""
        if not self._account.stored and not self._account.gone:
            return
        self._bring_back()
        dangling = {
            (space, bytes(version))
            for space, version in self._transaction.rows(_dangling, {"t": self._tenant})
        }
        self._transaction.run(_settle, {"t": self._tenant})
        self._settle_headers(dangling)
        self._settle_conflicts()
        derived = {
            bytes(row[0])
            for statement in (_derived, _stale)
            for row in self._transaction.rows(statement, {"t": self._tenant})
        }
        at = self._transaction.clock()
        if lineage.restate(self._transaction, self._tenant, derived, at):
            for space in sorted({target.space for target in self._targets.values()}):
                jobs.ask(self._transaction, self._tenant, space, REBUILD, at=at)
        self._vault.blobs.hold(self._transaction, list(self._blobs.values()))
        for space in sorted({target.space for target in self._targets.values()} & self._before):
            self._transaction.run(_raise_epoch, {"t": self._tenant, "s": space})

    def _bring_back(self) -> None:
        """What was fused into something that is erased says again what it said before, here as there."""
        orphans, gone = {row[2] for row in self._orphans.values()}, set[bytes]()
        for head in heads_of(self._transaction, self._tenant, orphans).values():
            for version in self._orphans.keys() & head.last:
                destroying.bring_back(self._transaction, self._tenant, head.space, [self._orphans[version]])
                gone.add(version)
        for (space, seq), made in self._of_orphans.items():
            if made <= gone:
                params = {"t": self._tenant, "s": space}
                self._transaction.run_in(destroying.drop_changes, params, [seq])
        self._account.stored -= len(gone)
        self._account.erased += len(gone)

    def _settle_headers(self, dangling: set[tuple[int, bytes]]) -> None:
        """Digests of what is cited stand in headers too; also in those that waited for what has come now."""
        waited: dict[int, list[bytes]] = {}
        for space, version in dangling - self._citing.keys():
            waited.setdefault(space, []).append(version)
        for space, versions in waited.items():
            params = {"t": self._tenant, "s": space}
            for seq, version in self._transaction.rows_in(_seq_of, params, sorted(versions)):
                self._citing[space, bytes(version)] = seq
        for (space, version), seq in self._citing.items():
            rows = self._transaction.rows(_digests, {"t": self._tenant, "s": space, "v": version})
            digests = {id_text(bytes(target)): bytes(said).hex() for target, said in rows if said is not None}
            found = self._transaction.row(_header, {"t": self._tenant, "s": space, "seq": seq})
            if found is not None and digests:
                header = with_digests(json.loads(found[0]), digests)
                self._transaction.run(
                    _set_header, {"t": self._tenant, "space": space, "seq": seq, "header_": _packed(header)}
                )

    def _settle_conflicts(self) -> None:
        """Again, now that citations are here: a later version may follow both."""
        found = heads_of(self._transaction, self._tenant, {id_bytes(id_) for id_ in self._account.conflicts})
        agreed = [cube for cube, head in found.items() if not head.conflict]
        self._transaction.many(AGREE, [{"t": self._tenant, "c": cube} for cube in agreed])
        self._account.conflicts = sorted(id_text(cube) for cube, head in found.items() if head.conflict)
