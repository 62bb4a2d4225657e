"""Which strategy for which length: the boundaries, and that a history near one does not flip."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mnemic.cube.errors import InvalidOption
from mnemic.plaintext.compose.policy import STRATEGIES, ContextOptions, choose

OPTIONS = ContextOptions()


@pytest.mark.parametrize(
    ("history", "previous", "expected"),
    [
        (1000, None, "full"),
        (1001, None, "hybrid"),
        (10_000, None, "hybrid"),
        (10_001, None, "retrieval"),
        (1000, "full", "full"),
        (1000, "hybrid", "hybrid"),  # back to full only below 0.8 of the limit
        (801, "hybrid", "hybrid"),
        (800, "hybrid", "full"),
        (10_000, "retrieval", "retrieval"),  # and likewise back to hybrid
        (8000, "retrieval", "hybrid"),
    ],
)
def test_boundaries_and_hysteresis(history: int, previous: str | None, expected: str) -> None:
    choice = choose(history, budget=1000, options=OPTIONS, previous=previous)
    assert choice.strategy == expected
    assert f"{history:,}" in choice.reason
    assert "1,000" in choice.reason


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (ContextOptions(window=900, reserve=100), "window of 900"),
        (ContextOptions(reliable=800), "reliable length of 800"),
    ],
)
def test_the_reader_counts_as_well_as_the_budget(options: ContextOptions, named: str) -> None:
    choice = choose(900, budget=5000, options=options)
    assert choice.strategy == "hybrid"
    assert named in choice.reason


@given(
    lengths=st.lists(st.integers(960, 1040), min_size=2, max_size=30),
)
def test_a_history_that_hovers_at_the_limit_switches_once_at_most(lengths: list[int]) -> None:
    previous, switches = "full", 0
    for length in lengths:
        chosen = choose(length, budget=1000, options=OPTIONS, previous=previous).strategy
        switches += chosen != previous
        previous = chosen
    assert switches <= 1


@given(
    history=st.integers(0, 10**7),
    more=st.integers(0, 10**6),
    budget=st.integers(1, 10**5),
    previous=st.sampled_from([None, *STRATEGIES]),
)
def test_more_history_never_shows_a_larger_part_of_it(
    history: int, more: int, budget: int, previous: str | None
) -> None:
    first = choose(history, budget=budget, options=OPTIONS, previous=previous).strategy
    second = choose(history + more, budget=budget, options=OPTIONS, previous=previous).strategy
    assert STRATEGIES.index(first) <= STRATEGIES.index(second)


@pytest.mark.parametrize(
    "wrong",
    [
        {"window": 0},
        {"window": 1024},
        {"keep": 0},
        {"keep": 1.5},
        {"reach": -1},
        {"recent": 0.7, "gist": 0.6},
        {"beside": float("nan")},
        {"depth": 0},
    ],
)
def test_options_that_make_no_sense_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidOption):
        ContextOptions(**wrong)
