"""Rows to cubes and back: header JSON, keyed digests and keys."""

from __future__ import annotations

import hmac
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any, NamedTuple

from mnemic.cube.errors import Frozen
from mnemic.cube.ids import id_text
from mnemic.cube.model import Blob, Header, Kind, MemCube, Origin, Place, Scope, Source, State
from mnemic.cube.times import to_datetime


class Secret(NamedTuple):
    """What stood in a text where there is now a mark such as "[card]"; start: of the mark."""

    start: int
    mark: str
    said: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """A cube that is not stored yet. Times are microseconds UTC; `features` maps model numbers to bytes.

    `client_id` is the caller's, unique in its exact scope; a long text has several pieces under one client
    id, told apart by `place.part`. `blob` is a large payload that `Vault.put_blob` has stored already.
    """

    payload: bytes
    kind: Kind = Kind.plaintext
    origin: Origin = Origin.user
    at: int | None = None
    valid_from: int | None = None
    valid_to: int | None = None
    expires_at: int | None = None
    role: str | None = None
    name: str | None = None
    labels: tuple[str, ...] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)
    place: Place | None = None
    recalled: tuple[tuple[int, int], ...] = ()
    sources: tuple[Source, ...] = ()
    ended_by: Source | None = None
    method: str | None = None
    fused: tuple[Source, ...] = ()
    merged_into: str | None = None
    frozen: bool = False
    pinned: bool = False
    deleted: bool = False
    client_id: str | None = None
    blob: Blob | None = None
    features: Mapping[int, bytes] = field(default_factory=dict)
    secrets: tuple[Secret, ...] = ()  # kept beside it, sealed; not part of what it says


def mac(key: bytes, *parts: str | bytes | int | None) -> bytes:
    """HMAC-SHA-256, cut to 16 bytes, over an unambiguous encoding: None, "" and ("ab", "c") all differ."""
    message = bytearray()
    for part in parts:
        if part is None:
            message += b"n"
            continue
        raw = part if isinstance(part, bytes) else str(part).encode()
        message += b"%d:" % len(raw)
        message += raw
    return hmac.digest(key, bytes(message), "sha256")[:16]


def digest(key: bytes, draft: Draft) -> bytes:
    """What a cube says, who says it, where it stands in its source and when it ceased to be true:

    equal digests are the same statement.
    """
    place = draft.place
    cut = place is not None and (place.start, place.end) != (0, place.total)
    stands = (place.start, place.total) if place is not None and cut else (0, None)
    ended = () if draft.valid_to is None else ("ended", draft.valid_to)
    large = () if draft.blob is None else ("blob", draft.blob.sha256)
    return mac(key, int(draft.kind), draft.role, draft.name, *stands, draft.payload, *ended, *large)


def client_key(key: bytes, client_id: str, part: int) -> bytes:
    return mac(key, "client", client_id, part)


def erased_marker(cube: bytes) -> bytes:
    """A one-way hash of an erased cube's id, the same in every vault: erasing travels with a merge."""
    return mac(b"mnemic erased cube", cube)


def erased_key(key: bytes, marker: bytes) -> bytes:
    """How a vault looks a marker up."""
    return mac(key, "erased", marker)


def encode_header(draft: Draft) -> bytes:
    """JSON of what differs from the default; scope, times and kinds are columns."""
    more = draft.labels or draft.metadata or draft.place or draft.recalled or draft.sources or draft.blob
    derived = draft.ended_by or draft.method or draft.fused or draft.merged_into
    if not more and not derived and not draft.frozen and not draft.pinned and draft.client_id is None:
        return _who(draft.role, draft.name)
    out: dict[str, Any] = {}
    if draft.role is not None:
        out["role"] = draft.role
    if draft.name is not None:
        out["name"] = draft.name
    if draft.client_id is not None:
        out["client_id"] = draft.client_id
    if draft.labels:
        out["labels"] = draft.labels
    if draft.metadata:
        out["metadata"] = dict(draft.metadata)
    if draft.place is not None:
        out["place"] = draft.place.model_dump(exclude_defaults=True)
    if draft.recalled:
        out["recalled"] = draft.recalled
    if draft.sources:
        out["sources"] = [source.model_dump(exclude_defaults=True) for source in draft.sources]
    if draft.ended_by is not None:
        out["ended_by"] = draft.ended_by.model_dump(exclude_defaults=True)
    if draft.method is not None:
        out["method"] = draft.method
    if draft.fused:
        out["fused"] = [source.model_dump(exclude_defaults=True) for source in draft.fused]
    if draft.merged_into is not None:
        out["merged_into"] = draft.merged_into
    if draft.frozen:
        out["frozen"] = True
    if draft.pinned:
        out["pinned"] = True
    if draft.blob is not None:
        out["blob"] = {"sha256": draft.blob.sha256, "size": draft.blob.size}
    return _json(out)


@lru_cache(maxsize=256)
def _who(role: str | None, name: str | None) -> bytes:
    """The header of most messages, which say nothing else."""
    said = {"role": role, "name": name}
    return _json({key: value for key, value in said.items() if value is not None})


def _json(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


@dataclass(frozen=True, slots=True)
class Stored:
    """One row of `version` with the state of its cube, as the vault reads it."""

    seq: int
    cube: bytes
    version: bytes
    scope: int
    kind: int
    origin: int
    deleted: int
    at: int
    recorded_at: int
    valid_from: int | None
    valid_to: int | None
    expires_at: int | None
    header: bytes
    payload: bytes
    blob: bytes | None
    state: int
    stale_since: int | None = None  # of the head; an older version is never current
    conflict: int = 0

    def draft(self) -> Draft:
        """What it says, ready to be stored again with changes."""
        known = json.loads(self.header)
        place, ended_by = known.get("place"), known.get("ended_by")
        return Draft(
            payload=self.payload,
            kind=Kind(self.kind),
            origin=Origin(self.origin),
            at=self.at,
            valid_from=self.valid_from,
            valid_to=self.valid_to,
            expires_at=self.expires_at,
            role=known.get("role"),
            name=known.get("name"),
            labels=tuple(known.get("labels", ())),
            metadata=known.get("metadata", {}),
            place=Place(**place) if place else None,
            recalled=tuple((start, end) for start, end in known.get("recalled", ())),
            sources=tuple(Source(**source) for source in known.get("sources", ())),
            ended_by=Source(**ended_by) if ended_by else None,
            method=known.get("method"),
            fused=tuple(Source(**source) for source in known.get("fused", ())),
            merged_into=known.get("merged_into"),
            frozen=known.get("frozen", False),
            pinned=known.get("pinned", False),
            deleted=bool(self.deleted),
            client_id=known.get("client_id"),
            blob=None if self.blob is None else Blob(id=bytes(self.blob).hex(), **known["blob"]),
        )

    def says_the_same_as(self, other: Stored) -> bool:
        """Do two versions agree in all that a caller can see, times of recording aside?"""
        return (
            (self.deleted, self.kind, self.origin, self.header, self.payload)
            == (other.deleted, other.kind, other.origin, other.header, other.payload)
        ) and (self.at, self.valid_from, self.valid_to, self.expires_at) == (
            *(other.at, other.valid_from, other.valid_to, other.expires_at),
        )

    def cube_in(self, scope: Scope) -> MemCube:
        return to_cube(self.draft(), self, scope)


def stored(row: Sequence[Any]) -> Stored:
    """A row of the columns that `reading` selects."""
    return Stored(*row)


def tombstone(row: Stored) -> Draft:
    """What follows a version when its cube is deleted: whose it was, and nothing of what it said."""
    draft = row.draft()
    return Draft(payload=b"", kind=draft.kind, origin=draft.origin, client_id=draft.client_id, deleted=True)


def merged_into(header: bytes) -> str | None:
    """The id of the cube that a deleted one was fused into, from its stored header. O(1) for most."""
    return json.loads(header).get("merged_into") if b'"merged_into":' in header else None


def state_of(row: Stored) -> State:
    """Where in its life a cube is: frozen or merged if its version says so, else what is kept beside it."""
    if b'"frozen":true' in row.header and row.draft().frozen:
        return State.frozen
    return State.merged if merged_into(row.header) is not None else State(row.state)


def check_thawed(row: Stored, draft: Draft) -> None:
    """Raises Frozen where a frozen cube would get a version that does more than thaw it."""
    if b'"frozen":true' not in row.header:
        return
    known = row.draft()
    if known.frozen and replace(known, frozen=False, expires_at=None, features={}) != replace(
        draft, frozen=False, expires_at=None, features={}, secrets=()
    ):
        cube = id_text(row.cube)
        raise Frozen(f"cube {cube} is frozen: thaw({cube!r}) first, or leave it. Nothing was changed.")


def to_cube(draft: Draft, row: Stored, scope: Scope) -> MemCube:
    """The public value of a stored draft."""
    return MemCube(
        id=id_text(row.cube),
        version_id=id_text(row.version),
        kind=draft.kind,
        header=Header(
            scope=scope,
            origin=draft.origin,
            at=to_datetime(row.at),
            recorded_at=to_datetime(row.recorded_at),
            role=draft.role,
            name=draft.name,
            valid_from=_moment(row.valid_from),
            valid_to=_moment(row.valid_to),
            expires_at=_moment(row.expires_at),
            state=state_of(row),
            labels=draft.labels,
            sources=draft.sources,
            ended_by=draft.ended_by,
            method=draft.method,
            fused=draft.fused,
            merged_into=draft.merged_into,
            frozen=draft.frozen,
            pinned=draft.pinned,
            place=draft.place,
            recalled=draft.recalled,
            metadata=draft.metadata,
        ),
        payload=row.payload,
        blob=draft.blob,
        conflict=bool(row.conflict),
        client_id=draft.client_id,
        deleted=bool(row.deleted),
        stale_since=_moment(row.stale_since),
    )


def _moment(micros: int | None) -> Any:
    return None if micros is None else to_datetime(micros)
