"""Checks that every way in shares: text, ids, labels, metadata. Each error says what to do."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, Final

from mnemic.cube.errors import InvalidInput, InvalidOption, InvalidText
from mnemic.cube.model import Origin
from mnemic.cube.times import TimeLike, to_micros

MAX_TEXT_CHARS: Final = 10_000_000
MAX_NAME_CHARS: Final = 512
MAX_REASON_CHARS: Final = 10_000
_INT64: Final = 2**63

ORIGINS: Final[Mapping[str, Origin]] = {
    "user": Origin.user,
    "assistant": Origin.model,
    "system": Origin.user,
    "developer": Origin.user,
    "tool": Origin.imported,
    "function": Origin.imported,
}


def check_text(text: object, *, limit: int | None = MAX_TEXT_CHARS) -> str:
    """Return `text` unchanged. Raises InvalidText: blank, over `limit` characters, or not Unicode."""
    if not isinstance(text, str):
        raise InvalidText(f"it must be text, not {type(text).__name__}")
    if not text.strip():
        raise InvalidText(
            "the text is empty. Leave the message out, or give it at least one visible character."
        )
    if limit is not None and len(text) > limit:
        raise InvalidText(
            f"the text has {len(text):,} characters, more than {limit:,}. "
            "Save it as a .txt or .md file and import it."
        )
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InvalidText(
            f"character {error.start} is {text[error.start]!r}, half of a surrogate pair, which UTF-8 "
            "cannot hold. Decode the text with errors='replace', or repair it where it was cut."
        ) from error
    return text


def check_role(role: object) -> str:
    if not isinstance(role, str) or role not in ORIGINS:
        raise InvalidInput(f"role={role!r:.80} is not one of {', '.join(ORIGINS)}")
    return role


def check_short(field: str, value: object) -> str | None:
    """An id, name or label: 1 to 512 characters without NUL, or None. Raises InvalidOption."""
    if value is None:
        return None
    if not isinstance(value, str) or not value.strip() or len(value) > MAX_NAME_CHARS or "\x00" in value:
        raise InvalidOption(
            f"{field}={value!r:.80} must be text of 1 to {MAX_NAME_CHARS} characters without NUL"
        )
    _encodable(field, value)
    return value


def check_reason(reason: object) -> str | None:
    """Why something is changed: text of up to 10,000 characters, or None. Raises InvalidOption."""
    if reason is None:
        return None
    if not isinstance(reason, str) or len(reason) > MAX_REASON_CHARS:
        raise InvalidOption(f"reason={reason!r:.80} must be text of up to {MAX_REASON_CHARS:,} characters")
    _encodable("reason", reason)
    return reason


def check_labels(labels: object) -> tuple[str, ...]:
    """One label or several, as a tuple without repeats, in the order given. Raises InvalidOption."""
    if isinstance(labels, str):
        labels = (labels,)
    if labels is None:
        return ()
    if not isinstance(labels, Iterable) or isinstance(labels, bytes | Mapping):
        raise InvalidOption(f"labels={labels!r:.80} must be a list of text")
    out: dict[str, None] = {}
    for label in labels:
        checked = check_short("label", label)
        if checked is None:
            raise InvalidOption("labels may not hold None")
        out[checked] = None
    return tuple(out)


def check_metadata(metadata: object) -> dict[str, Any]:
    """A flat dict of text, numbers, bools, None or lists of those. Raises InvalidOption naming the key."""
    if metadata is None:
        return {}
    if not isinstance(metadata, Mapping):
        raise InvalidOption(f"metadata={metadata!r:.80} must be a dict")
    out: dict[str, Any] = {}
    for key, value in metadata.items():
        check_short("metadata key", key)
        if key is None:
            raise InvalidOption("a metadata key may not be None")
        if isinstance(value, list | tuple):
            out[key] = [_scalar(f"metadata[{key!r}]", item) for item in value]
        else:
            out[key] = _scalar(f"metadata[{key!r}]", value)
    return out


def check_time(value: TimeLike | None, *, field: str = "at") -> int | None:
    """Microseconds UTC, or None. Raises InvalidTime."""
    return None if value is None else to_micros(value, field=field)


def _scalar(field: str, value: object) -> str | int | float | bool | None:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        if "\x00" in value:
            raise InvalidOption(f"{field} may not hold the character NUL")
        _encodable(field, value)
        return value
    if isinstance(value, int):
        if not -_INT64 <= value < _INT64:
            raise InvalidOption(f"{field} must fit in 64 bits; store larger numbers as text")
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise InvalidOption(f"{field}={value!r} must be a finite number")
        return value
    raise InvalidOption(
        f"{field} is a {type(value).__name__}. Metadata is flat: text, numbers, bools, None, or lists "
        "of those; use a key such as 'place.city' instead of nesting, and ISO 8601 text for times."
    )


def _encodable(field: str, value: str) -> None:
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise InvalidOption(
            f"{field}={value!r:.80} is not valid Unicode (character {error.start})"
        ) from error
