"""What is printed: JSON, tables, and text of others made safe for a terminal."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from datetime import datetime
from enum import Enum
from functools import lru_cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

    from mnemic.cube.model import MemCube

# Control characters (a stored escape sequence must not reach the terminal) and text direction overrides.
_UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
_PLAIN_WIDTH = 120


def console(*, stderr: bool = False) -> Console:
    """Colours and the terminal's width on a terminal; neither elsewhere. NO_COLOR is respected."""
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() else int(os.environ.get("COLUMNS") or _PLAIN_WIDTH)
    return Console(stderr=stderr, width=width, highlight=False, emoji=False, markup=False, soft_wrap=False)


def safe(text: str) -> str:
    """Text as it may be shown: control characters as their visible pictures."""
    return _UNSAFE.sub(lambda found: _picture(found.group()), text)


@lru_cache(64)
def _picture(character: str) -> str:
    code = ord(character)
    return chr(0x2400 + code) if code < 0x20 else "\ufffd"


def short(text: str, limit: int = 280) -> str:
    """One line of at most `limit` characters."""
    line = " ".join(safe(text).split())
    return line if len(line) <= limit else line[: limit - 1].rstrip() + "…"


def day(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%d")


def minute(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%d %H:%M")


def ending(id: str) -> str:
    """The end of an id, which `mnemic show` accepts; the start of ids made in one hour is the same."""
    return id[-8:]


def speaker(cube: MemCube) -> str:
    return safe(cube.header.name or cube.header.role or "")


def cube_json(cube: MemCube) -> dict[str, Any]:
    """A cube as every command prints it."""
    header = cube.header
    return {
        "id": cube.id,
        "version_id": cube.version_id,
        "text": cube.text,
        "user": header.scope.user,
        "agent": header.scope.agent,
        "session": header.scope.session,
        "role": header.role,
        "name": header.name,
        "at": header.at.isoformat(),
        "recorded_at": header.recorded_at.isoformat(),
        "origin": header.origin.name,
        "kind": cube.kind.name,
        "labels": list(header.labels),
        "metadata": plain(header.metadata),
        "client_id": cube.client_id,
        "place": None if header.place is None else header.place.model_dump(exclude_none=True),
        "deleted": cube.deleted,
    }


def plain(value: Any) -> Any:
    """Any value of ours as JSON can hold it."""
    from mnemic.cube.model import MemCube

    if isinstance(value, MemCube):
        return cube_json(value)
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, Enum):
        return value.name
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if is_dataclass(value):
        return {field.name: plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(one) for key, one in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return plain(value._asdict())
    if isinstance(value, Sequence | set | frozenset):
        return [plain(one) for one in value]
    return float(value) if hasattr(value, "__float__") else str(value)


def print_json(value: Any, *, indent: int | None = 1) -> None:
    """One JSON document on standard output; without `indent` on one line."""
    sys.stdout.write(json.dumps(plain(value), ensure_ascii=False, indent=indent) + "\n")
    sys.stdout.flush()


def print_error(kind: str, message: str, *, as_json: bool) -> None:
    """One message on standard error."""
    if as_json:
        sys.stderr.write(json.dumps({"error": kind, "message": message}, ensure_ascii=False) + "\n")
        return
    from rich.text import Text

    text = Text("error: " if kind != "Interrupted" else "", style="bold red").append(
        safe(message), style="red"
    )
    console(stderr=True).print(text, soft_wrap=True)


def note(message: str) -> None:
    """A remark on standard error, so that what is piped stays clean."""
    from rich.text import Text

    console(stderr=True).print(Text(safe(message), style="yellow"), soft_wrap=True)


def write_text(text: str) -> None:
    """Stored text on standard output: verbatim into a pipe, safe on a terminal."""
    shown = safe(text) if sys.stdout.isatty() else text
    sys.stdout.write(shown if shown.endswith("\n") else shown + "\n")
    sys.stdout.flush()
