"""Records as lines of a dump: JSON of only what differs from the default, and what is read back from it."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

from mnemic.cube.ids import id_bytes, id_text
from mnemic.vault.records import Change, Edge, Version


def version_json(one: Version) -> dict[str, Any]:
    """Only what differs from the default; the payload as text where it is text."""
    out: dict[str, Any] = {"version": id_text(one.version), "cube": id_text(one.cube)}
    if one.parent is not None:
        out["parent"] = id_text(one.parent)
    for name in ("user", "agent", "session", "valid_from", "valid_to", "expires_at"):
        if (value := getattr(one, name)) is not None:
            out[name] = value
    for name in ("kind", "origin", "deleted"):
        if value := getattr(one, name):
            out[name] = value
    out |= {"at": one.at, "recorded_at": one.recorded_at}
    if one.header:
        out["header"] = one.header
    try:
        out["text"] = one.payload.decode()
    except UnicodeDecodeError:
        out["data"] = base64.b64encode(one.payload).decode()
    if one.features:
        out["features"] = {name: base64.b64encode(data).decode() for name, data in one.features.items()}
    return out


def version_of(said: Mapping[str, Any]) -> Version:
    """Raises KeyError, TypeError, ValueError or InvalidOption for what is no version."""
    payload = said["text"].encode() if "text" in said else base64.b64decode(said["data"], validate=True)
    features = {
        str(name): base64.b64decode(data, validate=True) for name, data in said.get("features", {}).items()
    }
    return Version(
        version=id_bytes(said["version"]),
        cube=id_bytes(said["cube"]),
        parent=None if said.get("parent") is None else id_bytes(said["parent"]),
        user=_text(said.get("user")),
        agent=_text(said.get("agent")),
        session=_text(said.get("session")),
        kind=_int(said.get("kind", 0)),
        origin=_int(said.get("origin", 0)),
        deleted=_int(said.get("deleted", 0)),
        at=_int(said["at"]),
        recorded_at=_int(said["recorded_at"]),
        valid_from=_int_or_none(said.get("valid_from")),
        valid_to=_int_or_none(said.get("valid_to")),
        expires_at=_int_or_none(said.get("expires_at")),
        header=dict(said.get("header", {})),
        payload=payload,
        features=features,
    )


def change_json(one: Change) -> dict[str, Any]:
    out: dict[str, Any] = {"change": id_text(one.change), "op": one.op, "at": one.at}
    for name in ("user", "reason"):
        if (value := getattr(one, name)) is not None:
            out[name] = value
    for name in ("principal", "undoes"):
        if (raw := getattr(one, name)) is not None:
            out[name] = id_text(raw)
    return out


def change_of(said: Mapping[str, Any]) -> Change:
    return Change(
        change=id_bytes(said["change"]),
        user=_text(said.get("user")),
        op=str(said["op"]),
        principal=None if said.get("principal") is None else id_bytes(said["principal"]),
        at=_int(said["at"]),
        reason=_text(said.get("reason")),
        undoes=None if said.get("undoes") is None else id_bytes(said["undoes"]),
    )


def edge_json(one: Edge) -> list[Any]:
    ids = [id_text(raw) for raw in (one.cube, one.version, one.target_cube, one.target)]
    return [*ids, one.role, one.start, one.end]


def edge_of(said: list[Any]) -> Edge:
    cube, version, target_cube, target, role, start, end = said
    return Edge(
        id_bytes(cube),
        id_bytes(version),
        _int(role),
        id_bytes(target),
        id_bytes(target_cube),
        _int(start),
        _int_or_none(end),
    )


def _int(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not -(1 << 63) <= value < 1 << 63:
        raise ValueError(f"{value!r:.40} is not a whole number of 64 bits")
    return value


def _int_or_none(value: Any) -> int | None:
    return None if value is None else _int(value)


def _text(value: Any) -> str | None:
    if value is not None and not isinstance(value, str):
        raise ValueError(f"{value!r:.40} is not text")
    return value
