"""Whatever is handed to any verb, it answers or raises a typed error, and what was stored can be read."""

from __future__ import annotations

import math
from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import mnemic

WORDS = [
    "I moved to Porto in March.", "ok", "\u200b", "\u202e", "👩‍👩‍👧‍👦", "e\u0301" * 50, "a" * 10_000,
    "\x00", "\ud800", "", " ", "'; DROP TABLE cube;--", "\\", "%_", "שלום עולם", "مرحبا", "我去了里斯本",
    "🇵🇹🇵🇹", "\U0010ffff", "İßﬁ", "\u2028", "<mnemic-memory>", "</mnemic-memory>", "<mnemic-memory ids='x'>a",
    "last summer", "in May 2023", "?", "who", "-1 days ago", "on 31 February", "in the year 99999999999999",
    "next 9999999 weeks", "1e999", "before 9999-99-99", "﷽" * 50, "\n\n",
]  # fmt: skip
NAMES = ["ana", "a" * 512, "é" * 512, "'; --", "\u202eana", " ", "\x00", "", "null", 5, None, mnemic.ANY]
MOMENTS = [
    None, 0, -1, 1e11, math.nan, "2024-01-01", "2024-13-01", "9999-12-31T23:59:59+00:00", "0001-01-01",
    date(2024, 1, 1), datetime.max, datetime.min, datetime(2024, 5, 3, tzinfo=UTC),
]  # fmt: skip
FIELDS = [
    "labels", "kind", "origin", "role", "name", "session", "agent", "at", "recorded_at", "valid",
    "metadata.x", "metadata.", 5,
]  # fmt: skip
texts = st.sampled_from(WORDS) | st.text(max_size=40)
things = texts | st.none() | st.booleans() | st.integers() | st.floats() | st.binary(max_size=4) | st.just([])
names, moments = st.sampled_from(NAMES), st.sampled_from(MOMENTS)
users = st.sampled_from(["ana", "bo"]) | names
messages = st.fixed_dictionaries({"content": things}, optional={"role": texts, "id": texts, "at": moments})
contents = things | st.lists(texts | messages)
conditions = st.dictionaries(st.sampled_from(["gte", "lt", "not", "like"]), things | moments, max_size=2)
values = things | moments | conditions
wheres = st.none() | st.dictionaries(st.sampled_from(FIELDS), values, max_size=2) | things
counts = st.sampled_from([1, 3, 0, -1, 10**6, 10**30, 2.5, "3", None, True])
keys = st.sampled_from(["x", "", "a.b", 1])
metadata = st.none() | st.dictionaries(keys, things | st.lists(things, max_size=2)) | things


@pytest.fixture(scope="module")
def memory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[mnemic.Memory]:
    with mnemic.open(tmp_path_factory.mktemp("any") / "a.db") as opened:
        opened.add(
            [word for word in WORDS if word.strip() and word != "\ud800"], user="ana", metadata={"x": 1}
        )
        yield opened


def can_be_told(word: str) -> bool:
    return bool(word.strip()) and word != "\ud800"


def attempt(verb: Any, *args: Any, **options: Any) -> Any:
    said = "an answer is long enough"
    try:
        return verb(*args, **options)
    except mnemic.MnemicError as error:
        said = str(error)
    assert 15 < len(said) < 1_500, "it says what to do, and can be read"
    return None


@settings(max_examples=200)
@given(data=st.data())
def test_only_typed_errors_are_raised(memory: mnemic.Memory, data: st.DataObject) -> None:
    scope = {"user": data.draw(users), "agent": data.draw(st.none() | names), "session": data.draw(names)}
    where, at, text = data.draw(wheres), data.draw(moments), data.draw(things)
    said = data.draw(contents)
    more = {
        "name": data.draw(names),
        "id": data.draw(st.none() | names),
        "role": data.draw(st.none() | texts),
    }
    labels = data.draw(texts | st.lists(things))
    added = attempt(memory.add, said, **scope, **more, at=at, metadata=data.draw(metadata), labels=labels)
    for cube in added or ():
        assert memory.get(cube.id) == cube
    attempt(memory.search, text, **scope, k=data.draw(counts), where=where, asked_at=at)
    attempt(memory.search, text, user="ana", k=5, asked_at=at)
    attempt(memory.context, text, user="ana", budget=data.draw(counts), where=where, asked_at=at)
    attempt(memory.list, **scope, where=where, limit=data.draw(counts), after=data.draw(things))
    attempt(memory.count, user="ana", where=where)
    attempt(memory.sessions, user=scope["user"], agent=scope["agent"])
    attempt(memory.delete, where=where, user=scope["user"], dry_run=True, reason=data.draw(things))
    some = memory.list(user="ana", limit=1)[0]
    known = st.sampled_from([some.id, "x", 5, None])
    attempt(memory.update, data.draw(known), text, reason=data.draw(things))
    attempt(memory.get, data.draw(known), version=data.draw(counts))
    attempt(memory.delete, data.draw(things))
    assert memory.count(user="ana") > 0


def test_names_of_any_script_come_back_as_they_are(tmp_path: Path) -> None:
    odd = [word for word in WORDS if can_be_told(word) and "\x00" not in word and len(word) <= 500]
    odd = [word for word in odd if not word.startswith("<mnemic-memory")]  # recalled: nothing was said
    with mnemic.open(tmp_path / "a.db") as memory:
        for word in odd:
            (cube,) = memory.add(word, user=word, session=word, id=word, name=word, labels=word)
            assert tuple(cube.header.scope) == ("default", word, None, word)
            assert memory.get(cube.id) == cube
            assert (cube.client_id, cube.header.name, cube.header.labels) == (word, word, (word,))
            assert [hit.cube for hit in memory.search(f"{word}?", user=word)] == [cube]
            assert memory.list(user=word, where={"labels": word, "name": word}) == [cube]
            assert memory.add(word, user=word, session=word, id=word, name=word).existing == (cube.id,)
        assert memory.users() == sorted(odd)
