"""A remote embedder that is down: adding goes on, search says what is missing, flush makes up for it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fake_openai as fake
import mnemic
from mnemic.cube.errors import ModelError
from mnemic.models.openai_embedder import OpenAIEmbedder

TOLD = ["I moved to Porto in March.", "My bicycle was stolen.", "Rosa plays the cello."]


def by_letters(body: dict[str, Any]) -> Any:
    """Vectors that count the letters a to h, so that texts with the same letters meet."""
    rows = [[1 + text.lower().count(letter) for letter in "abcdefgh"] for text in body["input"]]
    return 200, {"data": [{"index": i, "embedding": row} for i, row in enumerate(rows)], "usage": {}}


@pytest.fixture
def endpoint() -> Iterator[Any]:
    running = fake.FakeOpenAI()
    running.answer(by_letters)
    yield running
    running.close()


def opened(place: str, endpoint: Any) -> mnemic.Memory:
    return mnemic.open(place, embedder=OpenAIEmbedder(model="m", base_url=endpoint.url, dim=8, max_retries=0))


def down(endpoint: Any) -> None:
    endpoint.answer(fake.refusal(503, "overloaded"))


def settled(memory: mnemic.Memory) -> None:
    """Wait for what the background does by itself."""
    deadline = time.monotonic() + 20
    while memory.search("x", user="ana").notes and time.monotonic() < deadline:
        time.sleep(0.02)


def test_while_it_is_down_adding_goes_on_and_search_uses_the_other_signals(
    database: str, endpoint: Any
) -> None:
    with opened(database, endpoint) as memory:
        down(endpoint)
        assert len(memory.add(TOLD, user="ana")) == 3
        hits = memory.search("Who plays the cello?", user="ana", k=3)
        lexical = {hit.text: hit.signals["lexical"] for hit in hits}
        assert max(lexical, key=lambda text: lexical[text]) == TOLD[2]
        assert not any(hit.signals["dense"] for hit in hits)
        assert "did not answer" in hits.notes["dense"]
        assert "cello" in memory.context("Who plays the cello?", user="ana").text
        with pytest.raises(ModelError, match="503"):
            memory.flush()
        assert memory.count(user="ana") == 3
        endpoint.answer(by_letters)
        hits = memory.search("Who plays the cello?", user="ana", k=3)
        assert set(hits.notes) <= {"dense"}
        memory.flush()
        done = memory.search("Who plays the cello?", user="ana", k=3)
        assert done.notes == {}
        assert memory.flush() == 0


def test_what_is_pending_is_said_and_made_up_for(tmp_path: Path, endpoint: Any) -> None:
    with opened(str(tmp_path / "a.db"), endpoint) as memory:
        endpoint.delay = 0.3
        memory.add(TOLD, user="ana")
        memory._parts.pending.close()  # nobody works in the background now
        endpoint.delay = 0
        memory.add("One more.", user="ana")
        notes = memory.search("cello", user="ana").notes
        assert "pending" in notes["dense"]
        assert "flush()" in notes["dense"]
        assert memory.flush() >= 1
        assert memory.search("cello", user="ana").notes == {}


def test_what_was_pending_at_the_end_is_made_by_the_next_process(tmp_path: Path, endpoint: Any) -> None:
    place = str(tmp_path / "a.db")
    down(endpoint)
    with opened(place, endpoint) as memory:
        memory.add(TOLD, user="ana")
    endpoint.answer(by_letters)
    with opened(place, endpoint) as memory:
        assert memory.flush() == 3 + len(memory.facts(user="ana"))  # what was derived is embedded too
        assert memory.search("cello", user="ana").notes == {}


def test_the_background_recovers_by_itself(tmp_path: Path, endpoint: Any) -> None:
    with opened(str(tmp_path / "a.db"), endpoint) as memory:
        endpoint.answer(fake.refusal(503, "overloaded"), (200, {"data": "nonsense"}), by_letters)
        memory.add(TOLD, user="ana")
        settled(memory)
        assert memory.search("x", user="ana").notes == {}


def test_vectors_that_change_their_size_are_refused_and_nothing_is_lost(
    tmp_path: Path, endpoint: Any
) -> None:
    place = str(tmp_path / "a.db")
    with opened(place, endpoint) as memory:
        memory.add(TOLD, user="ana")
        memory.flush()
    shrunk = OpenAIEmbedder(model="m", base_url=endpoint.url, max_retries=0)
    endpoint.answer(lambda body: fake.embeddings(body, dim=4))
    with mnemic.open(place, embedder=shrunk) as memory:
        memory.add("Later.", user="ana")
        with pytest.raises(mnemic.MnemicError, match="one row of 8 for each text"):
            memory.flush()
        assert memory.count(user="ana") == 4


def test_an_add_waits_for_no_answer(tmp_path: Path, endpoint: Any) -> None:
    with opened(str(tmp_path / "a.db"), endpoint) as memory:
        endpoint.delay = 1.0
        begun = time.monotonic()
        memory.add(TOLD, user="ana")
        memory.update(memory.list(user="ana")[0].id, "I moved to Braga.")
        assert time.monotonic() - begun < 0.9


def test_somebodys_own_embedder_that_raises_is_down_like_any_other(tmp_path: Path) -> None:
    class Mine:
        name, dim, inline = "mine", 4, False
        works = False

        def embed(self, texts: Any) -> Any:
            if not self.works:
                raise ConnectionError("no route to host")
            return np.ones((len(texts), 4), np.float32)

    mine = Mine()
    with mnemic.open(tmp_path / "a.db", embedder=mine) as memory:
        memory.add(TOLD, user="ana")
        assert "did not answer" in memory.search("cello", user="ana").notes["dense"]
        with pytest.raises(ModelError, match="mine failed: ConnectionError: no route to host"):
            memory.flush()
        mine.works = True
        settled(memory)
        memory.flush()
        assert memory.search("cello", user="ana").notes == {}
