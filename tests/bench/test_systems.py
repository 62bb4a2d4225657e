"""Each system that is measured, by the interface that all share."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from mnemic.bench.baselines import BM25, FullContext, Recent, terms
from mnemic.bench.locomo import Turn, load
from mnemic.bench.pack import pack, render
from mnemic.bench.systems import SYSTEMS, make, missing
from mnemic.bench.tokens import count_tokens
from mnemic.cube.errors import InvalidOption

LOCAL = ["bm25", "dense-static", "dense-minilm", "recent", "full-context", "mem0", "chroma", "langgraph"]


def turn(number: int, text: str, session: int = 1) -> Turn:
    return Turn(
        id=f"D{session}:{number}",
        session=f"session_{session}",
        speaker="Ana",
        text=text,
        at="2023-05-08T13:56:00",
    )


@pytest.mark.parametrize("name", SYSTEMS)
def test_every_row_of_the_table_names_a_system_that_says_what_it_needs(name: str) -> None:
    if name.startswith("mnemic"):
        pytest.importorskip("mnemic.memory")
    system = make(name)
    assert system.name == name
    reason = missing(system)
    assert reason is None or reason == f"not installed: pip install {system.install}"


def test_an_unknown_system_is_refused_with_those_there_are() -> None:
    with pytest.raises(InvalidOption, match="full-context"):
        make("mem1")


@pytest.mark.parametrize("name", LOCAL)
def test_a_system_finds_what_was_said_and_keeps_to_the_budget(name: str, data: Path, tmp_path: Path) -> None:
    system = make(name)
    if reason := missing(system):
        pytest.skip(reason)
    turns = load(data)[0].turns
    system.open(tmp_path)
    try:
        system.add(turns)
        found = system.search("Who moved to Lisbon?", 3)
        assert len(found) == 3
        assert set(found) <= {t.id for t in turns}
        if name not in ("recent", "full-context"):
            assert found[0] == "D2:2"
            assert count_tokens(system.context("Who moved to Lisbon?", 40)) <= 40
            assert "moved to Lisbon" in system.context("Who moved to Lisbon?", 40)
        assert system.describe()
    finally:
        system.close()


def test_bm25_is_the_formula() -> None:
    said = [turn(1, "cats purr"), turn(2, "dogs bark at cats"), turn(3, "it rains")]
    system = BM25()
    system.add(said)
    assert system.search("cat", 3) == ["D1:1", "D1:2", "D1:3"]
    places, weights = system.postings[terms("cats")[0]]
    idf = math.log(1 + (3 - 2 + 0.5) / (2 + 0.5))
    mean = (3 + 5 + 3) / 3  # the speaker's name is a word of each
    expected = [idf * 1.9 / (1 + 0.9 * (0.6 + 0.4 * length / mean)) for length in (3, 5)]
    assert list(places) == [0, 1]
    assert list(weights) == pytest.approx(expected)


def test_recent_is_newest_first_and_full_context_is_everything() -> None:
    said = [turn(n, f"word{n}") for n in range(1, 30)]
    recent, full = Recent(), FullContext()
    recent.add(said)
    full.add(said)
    assert recent.search("x", 2) == ["D1:29", "D1:28"]
    assert all(t.line in full.context("x", 1) for t in said)


def test_packing_keeps_the_best_that_fit_in_the_order_they_were_said() -> None:
    said = [
        turn(2, "second", 2),
        turn(1, "first"),
        turn(1, "x " * 500, 2),
        turn(10, "last", 2),
        turn(9, "late", 2),
    ]
    assert pack(said, 100) == render(t for t in said if len(t.text) < 500)
    assert pack(said, 100).splitlines() == [
        "[2023-05-08 13:56]",
        "Ana: first",
        "[2023-05-08 13:56]",
        "Ana: second",
        "Ana: late",
        "Ana: last",
    ]
    for budget in range(5, 80, 5):
        assert count_tokens(pack(said, budget)) <= budget
