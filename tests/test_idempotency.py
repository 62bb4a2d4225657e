"""Saying the same again: what counts as a repetition, what as news, and what as a conflict."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import mnemic
from mnemic.cube.errors import IdempotencyConflict


@pytest.fixture
def memory(database: str) -> Iterator[mnemic.Memory]:
    with mnemic.open(database) as opened:
        yield opened


def said(*texts: str) -> list[dict[str, Any]]:
    roles = ("user", "assistant")
    return [{"role": roles[number % 2], "content": text} for number, text in enumerate(texts)]


def texts(memory: mnemic.Memory, **scope: Any) -> list[str]:
    return [cube.text for cube in memory.list(**{"user": "ana", **scope})]


def test_the_same_id_and_content_is_the_cube_that_is_there(memory: mnemic.Memory) -> None:
    first = memory.add("Hello.", user="ana", id="1", at=5)
    again = memory.add("Hello.", user="ana", id="1", at=9, metadata={"x": 1})
    assert list(again) == list(first)
    assert (again.change_id, again.existing) == (None, (first[0].id,))
    assert (again.skipped[0].id, again.skipped[0].existing) == ("1", first[0].id)
    assert "already" in again.skipped[0].reason
    assert memory.count(user="ana") == 1


def test_one_new_message_among_known_ones_is_stored(memory: mnemic.Memory) -> None:
    memory.add([{"content": "a", "id": "1"}, {"content": "b", "id": "2"}], user="ana")
    added = memory.add([{"content": "b", "id": "2"}, {"content": "c", "id": "3"}], user="ana")
    assert [cube.text for cube in added] == ["b", "c"]
    assert len(added.existing) == 1
    assert texts(memory) == ["a", "b", "c"]


@pytest.mark.parametrize("other", [{"content": "Bye."}, {"role": "assistant"}, {"name": "Bo"}])
def test_the_same_id_with_other_content_is_a_conflict_and_stores_nothing(
    memory: mnemic.Memory, other: dict[str, str]
) -> None:
    memory.add({"content": "Hello.", "id": "1"}, user="ana")
    with pytest.raises(IdempotencyConflict, match="'1' is taken"):
        memory.add([{"content": "new", "id": "2"}, {"content": "Hello.", "id": "1", **other}], user="ana")
    assert texts(memory) == ["Hello."]


def test_an_id_belongs_to_its_exact_scope(memory: mnemic.Memory) -> None:
    for scope in ({"user": "ana"}, {"user": "ana", "session": "s"}, {"user": "bo"}, {"agent": "ana"}):
        assert memory.add(f"{scope}", id="1", **scope).existing == ()
    assert memory.count(everyone=True) == 4


def test_an_id_twice_in_one_call_is_a_conflict(memory: mnemic.Memory) -> None:
    with pytest.raises(IdempotencyConflict, match="several messages"):
        memory.add([{"content": "a", "id": "1"}, {"content": "b", "id": "1"}], user="ana")
    assert texts(memory) == []


def test_an_updated_cube_is_recognised_by_what_it_said_first_and_by_what_it_says_now(
    memory: mnemic.Memory,
) -> None:
    (cube,) = memory.add("Porto", user="ana", id="1")
    memory.update(cube.id, "Braga")
    for text in ("Porto", "Braga"):
        (there,) = memory.add(text, user="ana", id="1")
        assert (there.id, there.text) == (cube.id, "Braga")
    with pytest.raises(IdempotencyConflict):
        memory.add("Faro", user="ana", id="1")


def test_a_deleted_id_stays_deleted_and_is_reported(memory: mnemic.Memory) -> None:
    (cube,) = memory.add("Hello.", user="ana", id="1")
    memory.delete(cube.id)
    again = memory.add([{"content": "Hello.", "id": "1"}, {"content": "New.", "id": "2"}], user="ana")
    assert [one.text for one in again] == ["New."]
    assert (again.skipped[0].where, again.skipped[0].id) == ("message 0", "1")
    assert "deleted" in again.skipped[0].reason
    assert texts(memory) == ["New."]


def test_a_session_that_grows_and_is_told_again_from_its_first_message(memory: mnemic.Memory) -> None:
    talk = said("Hi", "Hello!", "ok", "Good.", "ok")
    for length in range(1, len(talk) + 1):
        added = memory.add(talk[:length], user="ana", session="s")
        assert len(added) == length
        if length > 2:
            assert len(added.existing) == length - 1
            assert "history" in added.skipped[0].reason
    # one message alone is always news, so the first two calls each told "Hi"
    assert texts(memory, session="s")[-4:] == ["Hello!", "ok", "Good.", "ok"]
    assert memory.add(talk, user="ana", session="other").existing == ()


def test_a_lone_message_is_always_news(memory: mnemic.Memory) -> None:
    for _ in range(3):
        assert memory.add("ok", user="ana").existing == ()
        assert memory.add(said("ok"), user="ana").existing == ()
    assert texts(memory) == ["ok"] * 6


def test_a_long_text_is_one_message_however_many_pieces_it_has(memory: mnemic.Memory) -> None:
    text = "A sentence of some length, said twice. " * 200
    assert len(memory.add(text, user="ana")) > 1
    assert memory.add(text, user="ana").existing == ()
    by_id = memory.add(text, user="ana", id="1")
    assert memory.add(text, user="ana", id="1").existing == tuple(cube.id for cube in by_id)
    memory.delete([cube.id for cube in by_id])
    (reported,) = memory.add(text, user="ana", id="1").skipped
    assert "deleted" in reported.reason


@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
@settings(max_examples=10)
@given(
    talk=st.lists(st.sampled_from(["ok", "hm", "yes", "no"]), min_size=2, max_size=8),
    cuts=st.lists(st.integers(2, 8), min_size=1, max_size=4),
)
def test_however_often_a_history_is_told_it_is_there_once(
    database: str, fresh_database: Callable[[str], str], talk: list[str], cuts: list[int]
) -> None:
    with mnemic.open(fresh_database(database)) as memory:
        for end in sorted(cuts):
            memory.add(said(*talk)[:end], user="ana", session="s")
        assert texts(memory) == talk[: max(cuts)]


def test_threads_that_tell_the_same_ids_at_once_store_each_once(memory: mnemic.Memory) -> None:
    messages = [{"content": f"message {number}", "id": str(number)} for number in range(50)]
    failed: list[BaseException] = []
    start = threading.Barrier(4)

    def tell() -> None:
        start.wait()
        try:
            memory.add(messages, user="ana")
        except BaseException as error:  # noqa: BLE001  shown below
            failed.append(error)

    threads = [threading.Thread(target=tell) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    assert texts(memory) == [message["content"] for message in messages]
