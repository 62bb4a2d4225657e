"""One record of a file as `Told`, or `Skipped` with the reason; and ids for records that have none."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, Final

from mnemic.cube.errors import InvalidInput
from mnemic.cube.model import Origin
from mnemic.cube.times import TimeLike
from mnemic.plaintext.ingest.checked import (
    MAX_NAME_CHARS,
    ORIGINS,
    check_labels,
    check_metadata,
    check_role,
    check_text,
    check_time,
)
from mnemic.plaintext.ingest.told import Skipped, Told

_UNSTORABLE: Final = {0: "\ufffd", **dict.fromkeys(range(0xD800, 0xE000), "\ufffd")}


def record_id(kind: str, session: str | None, position: object, text: str) -> str:
    """The same id for the same record each time its file is imported: `kind:` and 128 bits of SHA-256."""
    digest = hashlib.sha256()
    for field in (kind, session or "", str(position), text):
        data = field.encode(errors="surrogatepass")
        digest.update(len(data).to_bytes(8, "big") + data)
    return f"{kind}:{digest.hexdigest()[:32]}"


def as_name(value: object) -> str | None:
    """Text as a name, id or title that can be stored, or None when there is none in it."""
    if isinstance(value, bool) or not isinstance(value, str | int):
        return None
    text = str(value).translate(_UNSTORABLE).strip()
    return text[:MAX_NAME_CHARS] or None


def tell_record(
    source: str,
    line: int,
    text: object,
    *,
    kind: str,
    position: object,
    what: str = "",
    role: str = "user",
    name: object = None,
    at: TimeLike | None = None,
    id: object = None,
    session: str | None = None,
    origin: Origin | None = None,
    labels: tuple[str, ...] = (),
    metadata: Mapping[str, Any] | None = None,
) -> Told | Skipped:
    """Check one record and return it, or `Skipped` at `source:line`, named by `what` where a line holds many.

    Without an id of its own it gets `record_id(kind, session, position, text)`. Names and text in metadata
    are repaired where they hold what cannot be stored; the text itself never is.
    """
    own_id = as_name(id)
    try:
        if not isinstance(text, str):
            raise InvalidInput(f"has no text (found {type(text).__name__})")
        return Told(
            text=check_text(text, limit=None),
            role=check_role(role),
            name=as_name(name),
            at=check_time(at),
            id=own_id or record_id(kind, session, position, text),
            session=session,
            origin=ORIGINS[role] if origin is None else origin,
            labels=check_labels(tuple(label for label in map(as_name, labels) if label)),
            metadata=check_metadata(
                {key: _storable(value) for key, value in (metadata or {}).items() if value}
            ),
            source=source,
            line=line,
        )
    except InvalidInput as error:
        return skip(source, line, error, what=what, id=own_id)


def skip(source: str, line: int, reason: object, *, what: str = "", id: str | None = None) -> Skipped:
    return Skipped(where=f"{source}:{line}", reason=f"{what}: {reason}" if what else str(reason), id=id)


def _storable(value: object) -> object:
    if isinstance(value, str):
        return value.translate(_UNSTORABLE)
    if isinstance(value, list | tuple):
        return [_storable(item) for item in value]
    return value
