"""JSON lines, one message each: the keys of a message, `session`, and `text` as another name of `content`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, Final

from mnemic.cube.errors import InvalidInput, InvalidOption
from mnemic.cube.model import check_scope_field
from mnemic.plaintext.ingest.files.record import record_id, skip
from mnemic.plaintext.ingest.files.source import Source, open_streams
from mnemic.plaintext.ingest.messages import tell
from mnemic.plaintext.ingest.told import Skipped, Told

_TIMES: Final = ("timestamp", "created_at", "date")
_SCOPE: Final = ("user", "user_id", "agent", "tenant")


def read(source: Source) -> Iterator[Told | Skipped]:
    for stream in open_streams(source, None, "JSONL file"):
        for number, line in enumerate(stream.lines(), start=1):
            if line.strip(b"\xef\xbb\xbf \t\r"):
                yield _record(stream.name, number, line.removeprefix(b"\xef\xbb\xbf"))
        if stream.damage:
            yield skip(stream.name, number, stream.damage)


def _record(file: str, number: int, line: bytes) -> Told | Skipped:
    id: str | None = None
    try:
        record = _parse(line)
        session = check_scope_field("session", _as_text(record.pop("session", None)))
        id = record["id"] = _as_text(record.get("id"))
        (told,) = tell(record)
    except InvalidInput as error:
        return skip(file, number, error, id=id if isinstance(id, str) else None)
    content = json.dumps([told.role, told.name, told.at, told.text])
    made = id or record_id("jsonl", session, f"{file}:{number}", content)
    return replace(told, id=made, session=session, source=file, line=number)


def _parse(line: bytes) -> dict[str, Any]:
    try:
        record = json.loads(line.decode())
    except UnicodeDecodeError as error:
        raise InvalidInput(f"is not UTF-8 (byte {error.start} of the line)") from error
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"is not valid JSON: {error}") from error
    if not isinstance(record, Mapping):
        raise InvalidInput(
            f"is a JSON {type(record).__name__}; expected an object such as {{'role': …, 'content': …}}"
        )
    out = dict(record)
    for alias, key in (("text", "content"), *((time, "at") for time in _TIMES)):
        if alias in out:
            if key in out:
                raise InvalidOption(f"{alias!r} and {key!r} mean the same; give one of them")
            out[key] = out.pop(alias)
    named = next((key for key in _SCOPE if key in out), None)
    if named:
        raise InvalidOption(
            f"unknown key {named!r}: whose memory it goes to is said in the import, not in the file"
        )
    return out


def _as_text(value: object) -> Any:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value
