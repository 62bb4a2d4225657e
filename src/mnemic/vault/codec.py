"""Rows to cubes and back: header JSON, keyed digests and keys."""

from __future__ import annotations

import hmac
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from mnemic.cube.ids import id_text
from mnemic.cube.model import Header, Kind, MemCube, Origin, Place, Scope, Source, State
from mnemic.cube.times import to_datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """A cube that is not stored yet. Times are microseconds UTC; `features` maps model numbers to bytes.

    `client_id` is the caller's, unique in its exact scope; a long text has several pieces under one client
    id, told apart by `place.part`.
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
    client_id: str | None = None
    features: Mapping[int, bytes] = field(default_factory=dict)


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
    """What a cube says, who says it and where it stands in its source:

    equal digests are the same statement.
    """
    place = draft.place
    cut = place is not None and (place.start, place.end) != (0, place.total)
    stands = (place.start, place.total) if place is not None and cut else (0, None)
    return mac(key, int(draft.kind), draft.role, draft.name, *stands, draft.payload)


def client_key(key: bytes, client_id: str, part: int) -> bytes:
    return mac(key, "client", client_id, part)


def encode_header(draft: Draft) -> bytes:
    """JSON of what differs from the default; scope, times and kinds are columns."""
    more = draft.labels or draft.metadata or draft.place or draft.recalled or draft.sources
    if not more and draft.client_id is None:
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
    state: int

    def draft(self) -> Draft:
        """What it says, ready to be stored again with changes."""
        known = json.loads(self.header)
        place, sources = known.get("place"), known.get("sources", ())
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
            sources=tuple(Source(**source) for source in sources),
            client_id=known.get("client_id"),
        )

    def cube_in(self, scope: Scope) -> MemCube:
        return to_cube(self.draft(), self, scope)


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
            state=State(row.state),
            labels=draft.labels,
            sources=draft.sources,
            place=draft.place,
            recalled=draft.recalled,
            metadata=draft.metadata,
        ),
        payload=row.payload,
        client_id=draft.client_id,
        deleted=bool(row.deleted),
    )


def _moment(micros: int | None) -> Any:
    return None if micros is None else to_datetime(micros)
