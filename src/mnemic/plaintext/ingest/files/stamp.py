"""The stamp before each WhatsApp message: which lines carry one, and which number in it is the day."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, tzinfo
from itertools import pairwise
from typing import Final

MARKS: Final = "\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\ufeff"
_DATE: Final = r"(?P<a>\d{1,4})(?P<mark>[./-]) ?(?P<b>\d{1,2})[./-] ?(?P<c>\d{1,4})\.?"
_TIME: Final = r"(?P<hour>\d{1,2})[:.h](?P<minute>\d{2})(?:[:.](?P<second>\d{2}))?"
_HALF: Final = r"(?:[ \u00a0\u202f]?(?P<half>[ap])\.?[ \u00a0\u202f]?m\.?)?"
_BETWEEN: Final = r"(?:,|,? (?:at|klo|um|a las|às|à))? ?"
_IOS = re.compile(rf"[{MARKS}]*\[{_DATE}{_BETWEEN}{_TIME}{_HALF}\] ?(?P<rest>.*)", re.IGNORECASE | re.DOTALL)
_ANDROID = re.compile(
    rf"[{MARKS}]*{_DATE}{_BETWEEN}{_TIME}{_HALF} [-–] (?P<rest>.*)", re.IGNORECASE | re.DOTALL
)
STYLES: Final = {"ios": _IOS, "android": _ANDROID}


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """Whether 3/5 is the third of May. `note` says so where the file leaves it open."""

    day_first: bool
    note: str = ""


def style_of(lines: Iterable[str]) -> str | None:
    """The style of the first line that carries a stamp, or None."""
    for line in lines:
        for style, pattern in STYLES.items():
            if pattern.match(line):
                return style
    return None


def infer_order(dates: list[tuple[str, str, str, str]], *, twelve_hours: bool) -> Order:
    """From a file's distinct dates as they come: a number above 12, else the order in time, else custom."""
    pairs = [(int(a), int(b), c) for a, mark, b, c in dates if len(a) < 3 and mark != "." and len(c) != 3]
    if not pairs:
        return Order(day_first=True)
    days_first = sum(a > 12 for a, _, _ in pairs)
    days_second = sum(b > 12 for _, b, _ in pairs)
    if days_first != days_second:
        return Order(day_first=days_first > days_second)
    back_day_first = _steps_back([(c, b, a) for a, b, c in pairs])
    back_month_first = _steps_back([(c, a, b) for a, b, c in pairs])
    if back_day_first != back_month_first:
        return Order(day_first=back_day_first < back_month_first)
    padded = any(a.startswith("0") or b.startswith("0") for a, _, b, _ in dates)
    day_first = padded or not twelve_hours
    if all(a == b for a, b, _ in pairs):
        return Order(day_first=day_first)
    read_as, other = ("day/month", "False") if day_first else ("month/day", "True")
    return Order(
        day_first=day_first,
        note=f"dates such as {dates[0][0]}/{dates[0][2]} do not show which number is the day; they were "
        f"read as {read_as}. If that is wrong, import again with day_first={other}.",
    )


def moment_of(stamp: re.Match[str], order: Order, zone: tzinfo) -> datetime:
    """The time of one stamp. Raises ValueError when it does not exist, such as 31 April."""
    a, b, c = stamp["a"], stamp["b"], stamp["c"]
    hour = int(stamp["hour"])
    if stamp["half"]:
        if not 1 <= hour <= 12:
            raise ValueError(f"{hour} is no hour of a 12 h clock")
        hour = hour % 12 + (12 if stamp["half"].lower() == "p" else 0)
    if len(a) == 4:
        year, month, day = a, b, c
    else:
        year, (day, month) = c, ((a, b) if order.day_first or stamp["mark"] == "." else (b, a))
    full = int(year) + (2000 if len(year) == 2 else 0)
    return datetime(
        full, int(month), int(day), hour, int(stamp["minute"]), int(stamp["second"] or 0), tzinfo=zone
    )


def _steps_back(dates: list[tuple[str, int, int]]) -> int:
    return sum(before > after for before, after in pairwise([(c[-2:], x, y) for c, x, y in dates]))
