"""A clock that stands still until it is told to move."""

from __future__ import annotations

from datetime import datetime, timedelta

from mnemic.cube.times import EPOCH

HOUR = 3_600_000_000
DAY = 24 * HOUR
START = 1_750_000_000_000_000


class FakeClock:
    """Microseconds, as `mnemic.open(clock=…)` takes them."""

    def __init__(self, at: int = START) -> None:
        self.at = at

    def __call__(self) -> int:
        return self.at

    def forward(self, micros: int) -> None:
        self.at += micros

    def to(self, moment: datetime, after: int = 0) -> None:
        """So long after a moment."""
        self.at = (moment - EPOCH) // timedelta(microseconds=1) + after
