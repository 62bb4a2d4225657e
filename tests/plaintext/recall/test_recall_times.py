"""Expressions of time in a question."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mnemic.plaintext.recall.question import event_clause
from mnemic.plaintext.recall.times import time_windows

ASKED = int(datetime(2024, 3, 13, 15, tzinfo=UTC).timestamp()) * 1_000_000  # a Wednesday


def days(question: str, asked_at: int = ASKED) -> list[tuple[str, str]]:
    """First and last day of each window."""
    return [
        (
            datetime.fromtimestamp(one.start / 1e6, UTC).date().isoformat(),
            datetime.fromtimestamp((one.end - 1) / 1e6, UTC).date().isoformat(),
        )
        for one in time_windows(question, asked_at)
    ]


@pytest.mark.parametrize(
    ("question", "first", "last"),
    [
        ("What happened on 7 May 2023?", "2023-05-07", "2023-05-07"),
        ("What happened on the 7th of May, 2023?", "2023-05-07", "2023-05-07"),
        ("What happened on May 7th, 2023?", "2023-05-07", "2023-05-07"),
        ("What happened on 2023-05-07?", "2023-05-07", "2023-05-07"),
        ("What did she do in May 2023?", "2023-05-01", "2023-05-31"),
        ("What did she do in Feb. 2024?", "2024-02-01", "2024-02-29"),
        ("Where was he last summer?", "2023-06-01", "2023-08-31"),
        ("Where was he in the winter of 2022?", "2022-12-01", "2023-02-28"),
        ("Where did they live in 2019?", "2019-01-01", "2019-12-31"),
        ("What did I say yesterday?", "2024-03-12", "2024-03-12"),
        ("What did I do last week?", "2024-03-04", "2024-03-10"),
        ("What did I do this week?", "2024-03-11", "2024-03-17"),
        ("What did I do last weekend?", "2024-03-08", "2024-03-10"),
        ("What did I do last month?", "2024-02-01", "2024-02-29"),
        ("What did I do last year?", "2023-01-01", "2023-12-31"),
        ("Whom did I meet last Monday?", "2024-03-11", "2024-03-11"),
        ("Whom did I meet on Wednesday?", "2024-03-06", "2024-03-06"),
        ("What did I buy two weeks ago?", "2024-02-25", "2024-03-02"),
        ("What did I buy 3 days ago?", "2024-03-10", "2024-03-10"),
    ],
)
def test_one_window(question: str, first: str, last: str) -> None:
    assert days(question) == [(first, last)]


def test_a_month_without_a_year_is_any_of_the_last_ones() -> None:
    found = days("What did she paint in May?")
    assert ("2023-05-01", "2023-05-31") in found
    assert len(found) == 6


@pytest.mark.parametrize(
    "question",
    [
        "What may she do?",
        "Will they march on?",
        "Who is Ana?",
        "What is in room 2023b?",
        "",
    ],
)
def test_no_window(question: str) -> None:
    assert days(question) == []


def test_the_year_begins_before_the_month_does() -> None:
    january = int(datetime(2024, 1, 2, tzinfo=UTC).timestamp()) * 1_000_000
    assert days("last month?", january) == [("2023-12-01", "2023-12-31")]


def test_an_impossible_day_is_read_as_its_month() -> None:
    assert days("31 February 2023?") == [("2023-02-01", "2023-02-28")]


@given(st.text(), st.integers(-62_000_000_000_000_000, 253_000_000_000_000_000))
def test_windows_are_never_empty_and_no_text_breaks_them(text: str, asked_at: int) -> None:
    for one in time_windows(f"{text} ago, in {text} 2023, last winter, in May, 90 years ago", asked_at):
        assert one.start < one.end
        assert one.soft > 0


@pytest.mark.parametrize(
    ("question", "found"),
    [
        ("What did she do before she moved to Porto?", ("she moved to Porto", True)),
        ("How did Ana feel after the race, and why?", ("the race", False)),
        ("What has he read since the accident?", ("the accident", False)),
        ("What did he do before May 2023?", None),
        ("Who looked after?", None),
        ("Where is Ana?", None),
    ],
)
def test_what_before_and_after_count_from(question: str, found: tuple[str, bool] | None) -> None:
    assert event_clause(question, ASKED) == found
