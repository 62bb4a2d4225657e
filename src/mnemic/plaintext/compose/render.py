"""Cubes as the lines of a marked block: dates as headings, then "[ref] 14:05 Ana: …", in the order said.

A line's own breaks are indented, so that no stored text can pass for another line or heading.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from mnemic.cube.model import MemCube, Scope
from mnemic.plaintext.ingest.cut import Span
from mnemic.plaintext.ingest.features import speaker_of
from mnemic.plaintext.ingest.recalled import CLOSING, OPENING, escape_recalled

REF_LENGTH: Final = 4  # hex digits, each a token for most readers: what they cost is evidence left out
CUT: Final = "…"  # stands where a cube's text was left out
_DAYS: Final = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS: Final = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_BREAK: Final = re.compile(r"(\r\n|[\n\r\v\f\x1c-\x1e\x85\u2028\u2029])")


@dataclass(frozen=True, slots=True)
class Shown:
    """One cube in a context: its text as said, and the span of it that is shown (None: all)."""

    row: int
    cube: MemCube
    text: str
    span: Span | None = None

    @property
    def scope(self) -> Scope:
        return self.cube.header.scope

    @property
    def at(self) -> datetime:
        return self.cube.header.at

    @property
    def piece(self) -> str:
        if self.span is None:
            return self.text
        start, end = self.span
        return (
            f"{CUT + ' ' if start else ''}{self.text[start:end]}{' ' + CUT if end < len(self.text) else ''}"
        )


def make_refs(ids: Iterable[str]) -> dict[str, str]:
    """A short reference for each id: its last hex digits, more of them where two would clash. O(ids)."""
    refs: dict[str, str] = {}
    open_ids, length = {cube: cube.replace("-", "") for cube in ids}, REF_LENGTH
    while open_ids:
        taken: dict[str, list[str]] = {}
        for cube, digits in open_ids.items():
            taken.setdefault(digits[-length:], []).append(cube)
        for ref, holders in taken.items():
            if len(holders) == 1:
                refs[holders[0]] = ref
                del open_ids[holders[0]]
        length += 2
    return refs


def chronological(shown: Iterable[Shown]) -> list[Shown]:
    """Day by day, session by session within a day, and by time within a session."""
    kept = list(shown)
    starts: dict[tuple[object, ...], datetime] = {}
    for one in kept:
        key = (one.at.date(), one.scope)
        starts[key] = min(one.at, starts.get(key, one.at))

    def place(one: Shown) -> tuple[object, ...]:
        names = [name or "" for name in one.scope]
        return one.at.date(), starts[one.at.date(), one.scope], names, one.at, one.row

    return sorted(kept, key=place)


def render(shown: Sequence[Shown], refs: Mapping[str, str]) -> str:
    """The marked block, or "" for nothing. `shown` is in the order of `chronological`."""
    if not shown:
        return ""
    many_users = len({one.scope.user for one in shown}) > 1
    named = _is_named(shown)
    lines = []
    group: object = None
    clock = ""
    for one in shown:
        if (one.at.date(), one.scope) != group:
            group, clock = (one.at.date(), one.scope), ""
            lines.append(heading(one, with_user=many_users))
        now = _clock(one.at)
        lines.append(line(one, refs[one.cube.id], clock=now if now != clock else "", named=named))
        clock = now
    return "\n".join([OPENING, *(escape_recalled(text) for text in lines), CLOSING])


def heading(one: Shown, *, with_user: bool = False) -> str:
    """Such as "## Mon 8 May 2023"; with whose memory it is where several people's are shown."""
    at = one.at
    date = f"## {_DAYS[at.weekday()]} {at.day} {_MONTHS[at.month - 1]} {at.year}"
    return f"{date}, {_plain(one.scope.user or 'no user')}" if with_user else date


def line(one: Shown, ref: str, *, clock: str, named: bool = True) -> str:
    """Such as "[a3f9] 14:05 Ana: I moved to Porto.";

    the time only where it differs from the line before.
    """
    speaker = speaker_of(one.cube.header)
    head = [f"[{ref}]", clock, f"{_plain(speaker)}:" if named and speaker else ""]
    return " ".join(part for part in (*head, _BREAK.sub(r"\1  ", one.piece)) if part)


def _is_named(shown: Sequence[Shown]) -> bool:
    """Whether it must be said who spoke: not in notes of one person without a name."""
    headers = [one.cube.header for one in shown]
    return any(header.name for header in headers) or len({header.role for header in headers}) > 1


def _clock(at: datetime) -> str:
    """Hours and minutes; "" at midnight sharp, where only a date was given."""
    return "" if (at.hour, at.minute, at.second, at.microsecond) == (0, 0, 0, 0) else f"{at:%H:%M}"


def _plain(name: str) -> str:
    return " ".join(name.split())
