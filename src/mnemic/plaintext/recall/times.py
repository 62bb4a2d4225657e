"""Expressions of time in a question, as windows on the time line: "on 7 May 2023", "last summer", "in March",
"two weeks ago". English; UTC. Events ("before she moved") are for `question` and `signals.sequence`.
"""

from __future__ import annotations

import re
from calendar import monthrange
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple

DAY: Final = 86_400_000_000  # µs
EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
YEARS_BACK: Final = 5  # how many occurrences of "in May", without a year, are considered

_MONTHS: Final = {
    name: number
    for number, names in enumerate(
        (
            *("january jan", "february feb", "march mar", "april apr", "may", "june jun", "july jul"),
            *("august aug", "september sep sept", "october oct", "november nov", "december dec"),
        ),
        start=1,
    )
    for name in names.split()
}
_MONTH: Final = "(" + "|".join(sorted(_MONTHS, key=len, reverse=True)) + r")\b\.?"
_YEAR: Final = r"((?:19|20)\d\d)\b"
_SEASONS: Final = {"winter": 12, "spring": 3, "summer": 6, "autumn": 9, "fall": 9}  # northern; first month
_SEASON: Final = "(winter|spring|summer|autumn|fall)"
_WEEKDAYS: Final = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
_NUMBERS: Final = {
    name: number
    for number, name in enumerate(
        ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"), start=1
    )
} | {"a": 1, "an": 1}
_UNITS: Final = {"day": 1.0, "week": 7.0, "month": 30.44, "year": 365.25}

_ISO: Final = re.compile(rf"\b{_YEAR}-(\d\d)-(\d\d)\b")
_DAY_MONTH: Final = re.compile(rf"\b(\d{{1,2}})(?:st|nd|rd|th)?\s+(?:of\s+)?{_MONTH},?\s*(?:{_YEAR})?")
_MONTH_DAY: Final = re.compile(rf"\b{_MONTH}\s+(\d{{1,2}})(?:st|nd|rd|th)?\b(?!\d),?\s*(?:{_YEAR})?")
_MONTH_ONLY: Final = re.compile(
    rf"\b(in|of|during|since|until|late|early|mid|last|this|by|from)?[\s-]*\b{_MONTH},?\s*(?:of\s+)?(?:{_YEAR})?"
)
_SEASON_ONLY: Final = re.compile(
    rf"\b(in|last|this|that|the|of|during|early|late)\s+(?:the\s+)?{_SEASON}\b,?\s*(?:of\s+)?(?:{_YEAR})?"
)
_YEAR_ONLY: Final = re.compile(rf"\b(?:in|of|during|since|by|year)\s+{_YEAR}")
_AGO: Final = re.compile(rf"\b(\d+|{'|'.join(_NUMBERS)}|few|couple of)\s+(day|week|month|year)s?\s+ago\b")
_SPAN: Final = re.compile(r"\b(last|past|this|previous)\s+(week|weekend|month|year)\b")
_LAST_DAY: Final = re.compile(rf"\b(?:last|on|this)\s+({'|'.join(_WEEKDAYS)})\b")


class Window(NamedTuple):
    """[start, end) in µs UTC. What is outside counts less: 1/e at `soft` µs after it or half that before."""

    start: int
    end: int
    soft: int


def time_windows(text: str, asked_at: int) -> tuple[Window, ...]:
    """The windows that a question names, the most exact kind only. O(characters)."""
    lowered = text.lower()
    now = EPOCH + timedelta(microseconds=asked_at)
    if not 200 < now.year < 9000:
        return ()  # no calendar to count in
    for read in (_days, _relative, _months, _seasons, _years):
        if found := tuple(read(lowered, now)):
            return found
    return ()


def _window(start: datetime, days: float, soft_days: float) -> Window:
    first = int(start.timestamp()) * 1_000_000
    return Window(first, first + int(days * DAY), int(soft_days * DAY))


def _day(year: int, month: int, day: int) -> Iterator[Window]:
    if 1 <= month <= 12 and 1 <= day <= monthrange(year, month)[1]:
        yield _window(datetime(year, month, day, tzinfo=UTC), 1, 4)


def _month(year: int, month: int, months: int = 1, soft_days: float = 10) -> Window:
    year, month = year + (month - 1) // 12, (month - 1) % 12 + 1
    last = month + months - 1
    end_year, end_month = year + (last - 1) // 12, (last - 1) % 12 + 1
    end = datetime(end_year, end_month, monthrange(end_year, end_month)[1], tzinfo=UTC) + timedelta(days=1)
    start = datetime(year, month, 1, tzinfo=UTC)
    return _window(start, (end - start).days, soft_days)


def _recent(now: datetime, year: str | None) -> list[int]:
    return [int(year)] if year else list(range(now.year - YEARS_BACK, now.year + 1))


def _days(text: str, now: datetime) -> Iterator[Window]:
    for year, month, day in _ISO.findall(text):
        yield from _day(int(year), int(month), int(day))
    named = [(day, month, year) for day, month, year in _DAY_MONTH.findall(text)]
    named += [(day, month, year) for month, day, year in _MONTH_DAY.findall(text)]
    for day, month, year in named:
        for one in _recent(now, year):
            yield from _day(one, _MONTHS[month], int(day))


def _relative(text: str, now: datetime) -> Iterator[Window]:
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
    for name, back in (
        ("today", 0),
        ("tonight", 0),
        ("this morning", 0),
        ("yesterday", 1),
        ("last night", 1),
    ):
        if re.search(rf"\b{name}\b", text):
            yield _window(midnight - timedelta(days=back), 1, 1)
    for number, unit in _AGO.findall(text):
        count = int(number) if number.isdigit() else _NUMBERS.get(number, 3 if number == "few" else 2)
        ago, width = count * _UNITS[unit], _UNITS[unit]
        if ago < 365 * 100:
            yield _window(midnight - timedelta(days=ago + width / 2 - 0.5), width, width)
    for which, unit in _SPAN.findall(text):
        if unit in ("month", "year"):
            months = 1 if unit == "month" else 12
            first = now.year * 12 + (now.month - 1 if unit == "month" else 0)
            first -= 0 if which == "this" else months
            yield _month(first // 12, first % 12 + 1, months)
        else:
            monday = midnight - timedelta(days=midnight.weekday())
            monday -= timedelta(days=0 if which == "this" else 7)
            yield _window(monday, 7, 4) if unit == "week" else _window(monday + timedelta(days=4), 3, 3)
    for name in _LAST_DAY.findall(text):
        back = (midnight.weekday() - _WEEKDAYS.index(name) - 1) % 7 + 1
        yield _window(midnight - timedelta(days=back), 1, 3)


def _months(text: str, now: datetime) -> Iterator[Window]:
    for before, name, year in _MONTH_ONLY.findall(text):
        if name in ("may", "mar", "sep", "dec", "march") and not (before or year):
            continue  # a verb or a cut word more often than a month
        for one in _recent(now, year):
            yield _month(one, _MONTHS[name])


def _seasons(text: str, now: datetime) -> Iterator[Window]:
    for which, name, year in _SEASON_ONLY.findall(text):
        first = _SEASONS[name]
        years = _recent(now, year)
        if which in ("last", "this") and not year:
            years = [
                max(y for y in (now.year - 2, now.year - 1, now.year) if (y, first) <= (now.year, now.month))
            ]
        for one in years:
            yield _month(one, first, 3, 20)


def _years(text: str, now: datetime) -> Iterator[Window]:  # noqa: ARG001  (one signature for all readers)
    for year in _YEAR_ONLY.findall(text):
        yield _month(int(year), 1, 12, 30)
