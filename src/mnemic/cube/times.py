"""Times: whole microseconds since 1970 in UTC inside, aware datetimes outside."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from mnemic.cube.errors import InvalidTime

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MIN = int((datetime(1, 1, 2, tzinfo=UTC) - EPOCH) / timedelta(microseconds=1))
_MAX = int((datetime(9999, 12, 30, tzinfo=UTC) - EPOCH) / timedelta(microseconds=1))

TimeLike = str | int | float | datetime
Clock = Callable[
    [], int
]  # microseconds since 1970 in UTC; `now`, unless a test or a simulation brings its own


def now() -> int:
    """The wall clock in microseconds."""
    return time.time_ns() // 1000


def to_datetime(micros: int) -> datetime:
    return EPOCH + timedelta(microseconds=micros)


def to_micros(value: TimeLike, *, field: str = "at") -> int:
    """Read ISO 8601 text, an epoch in seconds or a datetime; times without a zone are taken as UTC.

    Raises InvalidTime on anything else, on NaN and on years outside 1-9999.
    """
    if isinstance(value, bool):
        raise InvalidTime(_advice(field, value))
    if isinstance(value, datetime):
        moment = value if value.tzinfo else value.replace(tzinfo=UTC)
        micros = (moment - EPOCH) // timedelta(microseconds=1)
        if not _MIN <= micros <= _MAX:  # at the very edge of years 1 and 9999 it could not be given back
            raise InvalidTime(_advice(field, value))
        return micros
    if isinstance(value, int | float):
        if not _MIN <= value * 1_000_000 <= _MAX:  # also false of NaN
            raise InvalidTime(_advice(field, value))
        return round(value * 1_000_000)
    if isinstance(value, str):
        try:
            return to_micros(datetime.fromisoformat(value.strip()), field=field)
        except (ValueError, OverflowError) as error:
            raise InvalidTime(_advice(field, value)) from error
    raise InvalidTime(_advice(field, value))


def _advice(field: str, value: object) -> str:
    shown = "a number of many digits" if isinstance(value, int) and abs(value) > 10**80 else repr(value)
    return (
        f"{field}={shown:.80} is not a time. Use ISO 8601 such as '2025-03-09T10:00Z', seconds since 1970, "
        "or a datetime."
    )
