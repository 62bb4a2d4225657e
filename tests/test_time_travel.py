"""`as_of`: a memory as it was. What is found is what a memory finds that was never told the rest."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import mnemic
from mnemic.cube.errors import InvalidTime, MnemicError

WORDS = ["I live in Lisbon.", "I moved to Porto.", "I work at Acme.", "Mochi is a cat.", "I live in Faro."]
Step = tuple[str, int, int]
steps = st.lists(
    st.tuples(
        st.sampled_from(["tell", "tell", "tell", "update", "delete", "undo", "derive"]),
        st.integers(0, 4),
        st.integers(0, 9),
    ),
    min_size=1,
    max_size=10,
)


def act(memory: mnemic.Memory, step: Step, told: list[str], changes: list[str]) -> None:
    what, number, when = step
    try:
        if what == "tell":
            added = memory.add(WORDS[number], user="ana", session=f"s{when % 2}", at=f"201{when}-01-01")
            told.append(added[0].id)
            changes.append(str(added.change_id))
        elif what == "derive":
            memory.flush()
        elif what == "undo" and changes:
            changes.append(memory.undo(changes[when % len(changes)]).id or changes[-1])
        elif told:
            one = told[when % len(told)]
            change = memory.delete(one) if what == "delete" else memory.update(one, WORDS[number])
            changes.append(change.id or changes[-1])
    except MnemicError:
        pass


def seen(memory: mnemic.Memory, as_of: datetime | None) -> Any:
    """All that a caller can find, but ids and when it was recorded."""
    found = memory.search(
        "Where does Ana live and work?", user="ana", k=50, as_of=as_of, asked_at="2025-01-01"
    )
    told = [
        (hit.text, hit.cube.header.at, round(hit.score, 9), [(one.value, one.now) for one in hit.superseded])
        for hit in found
    ]
    facts = [(one.value, one.since, one.until) for one in memory.facts(user="ana", past=True, as_of=as_of)]
    session = memory.search("Lisbon", user="ana", session="s1", as_of=as_of)
    return told, facts, [(hit.text, round(hit.score, 9)) for hit in session]


@settings(max_examples=40)
@given(done=steps)
@pytest.mark.parametrize("kind", ["sqlite"])
def test_as_of_sees_what_a_memory_sees_that_was_told_no_more(
    fresh_database: Callable[[str], str], kind: str, done: list[Step]
) -> None:
    with mnemic.open(fresh_database(kind)) as memory, mnemic.open(fresh_database(kind)) as replayed:
        ours: tuple[list[str], list[str]] = ([], [])
        theirs: tuple[list[str], list[str]] = ([], [])
        moments = []
        for memory_ in (memory, replayed):
            memory_._worker.close()  # the background work is done where a step says so, and nowhere else
        expected = []
        for step in done:
            act(memory, step, *ours)
            act(replayed, step, *theirs)
            log = memory.changes(user="ana")
            versions = [cube for one in log for id in one.cubes for cube in memory.history(id)]
            moments.append(
                max(
                    (cube.header.recorded_at for cube in versions),
                    default=datetime.fromisoformat("2020-01-01T00:00Z"),
                )
            )
            expected.append(seen(replayed, None))
        for moment, then in zip(moments, expected, strict=True):
            assert seen(memory, moment) == then


def test_before_anything_was_told_nothing_is_known(tmp_path: Path) -> None:
    with mnemic.open(tmp_path / "v.db") as memory:
        memory.add("I live in Lisbon.", user="ana")
        memory.flush()
        for reads in (memory.search, memory.context):
            found = reads("Lisbon", user="ana", as_of="2001-01-01")
            assert not (found if isinstance(found, list) else found.cubes)  # type: ignore[union-attr]
        assert memory.list(user="ana", as_of="2001-01-01") == []
        assert memory.facts(user="ana", as_of="2001-01-01") == []
        assert len(memory.search("Lisbon", user="ana", as_of="2999-01-01")) == 1


def test_valid_at_sees_what_was_true(database: str) -> None:
    with mnemic.open(database) as memory:
        memory.add("I live in Lisbon.", user="ana", at="2020-01-01")
        memory.add("The weather was awful.", user="ana", at="2021-01-01")
        memory.add("I moved to Porto.", user="ana", at="2023-01-01")
        memory.flush()
        for moment, there, gone in (("2021-06-01", "Lisbon", "Porto"), ("2024-01-01", "Porto", "Lisbon")):
            found = [hit.text for hit in memory.search("Where does Ana live?", user="ana", valid_at=moment)]
            assert there in found[0]
            assert not any(gone in text for text in found)
            assert any("weather" in text for text in found), "what states no fact has no end"
            assert [one.value for one in memory.facts(user="ana", valid_at=moment)] == [there]
            assert there in memory.context("Where does Ana live?", user="ana", valid_at=moment).text
            assert len(memory.list(user="ana", valid_at=moment)) == 2
        with pytest.raises(InvalidTime):
            memory.search("x", user="ana", as_of="yesterday")


def test_the_question_decides_whether_what_is_or_what_was_goes_first(tmp_path: Path) -> None:
    with mnemic.open(tmp_path / "v.db") as memory:
        memory.add("I live in Lisbon, near the river where I live with Bo.", user="ana", at="2020-01-01")
        memory.add("I moved to Porto.", user="ana", at="2023-01-01")
        memory.flush()
        now = memory.search("Where do I live, Lisbon?", user="ana")
        assert "Porto" in now[0].text
        assert now[0].signals["current"] > 0
        assert now[0].score == pytest.approx(sum(now[0].signals.values()))
        for question in ("Where did I use to live before Porto?", "Where was my previous home, Lisbon?"):
            assert all("current" not in hit.signals for hit in memory.search(question, user="ana"))


def test_a_moment_between_two_changes_sees_the_first(tmp_path: Path) -> None:
    with mnemic.open(tmp_path / "v.db") as memory:
        added = memory.add("one", user="ana")
        memory.update(added[0].id, "two")
        then = memory.history(added[0].id)[0].header.recorded_at
        assert [cube.text for cube in memory.list(user="ana", as_of=then)] == ["one"]
        assert memory.list(user="ana", as_of=then - timedelta(microseconds=1)) == []
        assert [cube.text for cube in memory.list(user="ana")] == ["two"]
