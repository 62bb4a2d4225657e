"""Dates as people write them in headings, file names and front matter."""

from __future__ import annotations

import re
from datetime import datetime, tzinfo
from typing import Final

_MONTHS: Final = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_MONTH: Final = (
    r"(?P<month>jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?|sept?(?:ember)?"
    r"|oct(?:ober)?|nov(?:ember)?|dec(?:ember)?)\.?"
)
_DAY: Final = r"(?P<day>\d{1,2})(?:st|nd|rd|th)?"
_CLOCK: Final = (
    r"(?:(?:\s*[,T]?\s*|\s+at\s+)(?P<hour>\d{1,2})[:.](?P<minute>\d{2})(?:[:.](?P<second>\d{2}))?)?"
)
_FORMS: Final = tuple(
    re.compile(rf"(?:(?:mon|tue|wed|thu|fri|sat|sun)[a-z]*\.?,?\s+)?{form}{_CLOCK}(?![\w])", re.IGNORECASE)
    for form in (
        r"(?P<year>\d{4})[-/.](?P<month>\d{1,2})[-/.](?P<day>\d{1,2})",
        rf"{_DAY}\.?\s+{_MONTH},?\s+(?P<year>\d{{4}})",
        rf"{_MONTH}\s+{_DAY},?\s+(?P<year>\d{{4}})",
    )
)
_COMPACT = re.compile(r"(?P<year>(?:19|20)\d{2})(?P<month>\d{2})(?P<day>\d{2})(?!\d)")


def leading_date(text: str, zone: tzinfo) -> datetime | None:
    """The date that `text` begins with: "2024-05-03 Lisbon", "Friday, 3 May 2024", "May 3rd, 2024 10:15"."""
    for form in _FORMS:
        found = form.match(text.strip())
        if found and (moment := _moment(found, zone)):
            return moment
    return None


def date_in_name(stem: str, zone: tzinfo) -> datetime | None:
    """The date that a file's name begins with, such as "2024-05-03", "20240503 notes" or "2024_05_03"."""
    found = _COMPACT.match(stem)
    return _moment(found, zone) if found else leading_date(stem.replace("_", "-", 2).replace("_", " "), zone)


def _moment(found: re.Match[str], zone: tzinfo) -> datetime | None:
    parts = found.groupdict()
    month = parts["month"]
    number = int(month) if month.isdigit() else _MONTHS.index(month[:3].lower()) + 1
    hour, minute, second = (int(parts.get(key) or 0) for key in ("hour", "minute", "second"))
    try:
        return datetime(int(parts["year"]), number, int(parts["day"]), hour, minute, second, tzinfo=zone)
    except ValueError:
        return None
