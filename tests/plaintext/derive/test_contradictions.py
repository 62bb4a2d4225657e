"""What a language model reads from two turns: both stay, it can be taken back, and nothing waits for it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import mnemic
from fake_openai import Answer, FakeOpenAI, chat, refusal
from mnemic.cube.errors import InvalidOption, ModelError
from mnemic.models.openai_model import OpenAIModel

NOTHING = {"relation": "compatible", "subject": "", "attribute": "", "old": "", "new": ""}
FIRST, SECOND = "My favourite band is Blur.", "These days Pulp means more to me than Blur."
QUESTION = "What is my favourite band?"


@pytest.fixture
def fake() -> Iterator[FakeOpenAI]:
    running = FakeOpenAI()
    yield running
    running.close()


def reading(*pairs: tuple[str, str, dict[str, str]]) -> Any:
    """A model that reads these pairs (a word of the earlier, one of the later), and no other."""

    def answer(body: dict[str, Any]) -> Answer:
        earlier, later = re.findall(r'said: "(.*)"', body["messages"][-1]["content"])
        found = next((said for one, other, said in pairs if one in earlier and other in later), {})
        return chat(json.dumps(NOTHING | ({"relation": "replaces"} | found if found else {})))

    return answer


BAND = {"subject": "ana", "attribute": "Favourite Band", "old": "Blur", "new": "Pulp"}


def opened(path: Path | str, fake: FakeOpenAI, **more: Any) -> mnemic.Memory:
    model = OpenAIModel(model="m", base_url=fake.url, api_key="sk-x", max_retries=0)
    return mnemic.open(path, model=model, derive=["facts", "contradictions"], **more)


def told(memory: mnemic.Memory, *texts: str) -> list[str]:
    ids = []
    for year, text in enumerate(texts, start=2020):
        (cube,) = memory.add(text, user="ana", at=f"{year}-01-01")
        memory.flush()
        ids.append(cube.id)
    return ids


def asked(memory: mnemic.Memory) -> list[tuple[str, str | None]]:
    hits = memory.search(QUESTION, user="ana", asked_at="2026-01-01")
    return [(hit.text, hit.superseded[0].now if hit.superseded else None) for hit in hits]


def test_what_the_model_says_is_over_goes_second_and_says_so(database: str, fake: FakeOpenAI) -> None:
    fake.answer(reading(("Blur", "Pulp", BAND)))
    with opened(database, fake) as memory:
        first, second = told(memory, FIRST, SECOND)
        assert asked(memory) == [(SECOND, None), (FIRST, "Pulp")]
        assert memory.search(QUESTION, user="ana", valid_at="2020-06-01")[0].text == FIRST
        assert [memory.get(one).text for one in (first, second)] == [FIRST, SECOND], "both are as they were"
        old, new = sorted(
            (
                one
                for one in memory.facts(user="ana", past=True)
                if one.cube.header.method == "contradictions"
            ),
            key=lambda one: one.cube.header.at,
        )
        assert (old.subject, old.attribute, old.value, new.value) == ("ana", "favourite band", "Blur", "Pulp")
        assert old.cube.header.ended_by is not None
        assert old.cube.header.ended_by.cube_id == new.cube.id
        assert [cube.id for cube in memory.explain(new.cube.id).raw] == [second]
        band = [
            (one.value, one.until is None) for one in memory.facts(user="ana", attribute="favourite band")
        ]
        assert band == [("Pulp", True)], "the rules' fact of the first turn is not beside it as if it held"
        past = memory.facts(user="ana", attribute="favourite band", past=True)
        assert [(one.value, one.until is None) for one in past] == [("Blur", False), ("Pulp", True)]
        memory.delete([new.cube.id, old.cube.id])
        assert [one.value for one in memory.facts(user="ana")] == ["Blur"], "the rules' is there again"
    (request,) = fake.requests
    assert request["response_format"]["json_schema"]["schema"]["required"][0] == "relation"


@pytest.mark.parametrize("way", ["undo", "delete"])
def test_it_can_be_taken_back_and_stays_so(tmp_path: Path, fake: FakeOpenAI, way: str) -> None:
    fake.answer(reading(("Blur", "Pulp", BAND)))
    with opened(tmp_path / "a.db", fake) as memory:
        told(memory, FIRST, SECOND)
        if way == "undo":
            memory.undo(memory.changes(user="ana")[-1].id)
        else:
            memory.delete([one.cube.id for one in memory.facts(user="ana") if one.value == "Pulp"])
        memory.flush()
        assert all(now is None for _, now in asked(memory))
        memory.erase(memory.add("something to be erased", user="ana")[0].id)  # all is read anew
        memory.flush()
        assert all(now is None for _, now in asked(memory)), "it is not made again from the same words"


def test_it_falls_with_its_turn_and_comes_back_with_it(tmp_path: Path, fake: FakeOpenAI) -> None:
    fake.answer(reading(("Blur", "Pulp", BAND)))
    with opened(tmp_path / "a.db", fake) as memory:
        _, second = told(memory, FIRST, SECOND)
        gone = memory.delete(second)
        assert asked(memory) == [(FIRST, None)], "at once"
        memory.flush()
        assert not [one for one in memory.facts(user="ana") if one.value == "Pulp"]
        assert gone.id is not None
        memory.undo(gone.id)
        memory.flush()
        assert asked(memory) == [(SECOND, None), (FIRST, "Pulp")]
        memory.update(second, "I heard a record of Blur.")
        memory.flush()
        assert all(now is None for _, now in asked(memory))


def test_a_chain_of_changes_ends_each_by_the_next(tmp_path: Path, fake: FakeOpenAI) -> None:
    other = {"subject": "I", "attribute": "band", "old": "Pulp", "new": "Suede"}
    fake.answer(reading(("Pulp", "Suede", other), ("Blur", "Pulp", BAND)))
    with opened(tmp_path / "a.db", fake) as memory:
        told(memory, FIRST, SECOND, "Suede beats Pulp, if you ask me.")
        ended = {
            one.value: one.until for one in memory.facts(user="ana", past=True) if "band" in one.attribute
        }
        assert ended["Suede"] is None
        assert ended["Pulp"] is not None
        assert "Suede" in asked(memory)[0][0]


MADE_UP = {
    "a value that was not said": BAND | {"new": "Oasis"},
    "a subject that was not said": BAND | {"subject": "Tom"},
    "the same value": BAND | {"new": "Blur"},
    "nothing": BAND | {"old": "", "new": ""},
}


@pytest.mark.parametrize("said", MADE_UP.values(), ids=MADE_UP.keys())
def test_what_was_not_said_is_thrown_away(tmp_path: Path, fake: FakeOpenAI, said: dict[str, str]) -> None:
    fake.answer(reading(("Blur", "Pulp", said)))
    with opened(tmp_path / "a.db", fake) as memory:
        told(memory, FIRST, SECOND)
        assert len(fake.requests) == 1
        assert all(now is None for _, now in asked(memory))
        assert memory.health().ok


def test_an_answer_that_is_none_is_asked_for_once(tmp_path: Path, fake: FakeOpenAI) -> None:
    fake.answer(chat("I would rather not say."))
    with opened(tmp_path / "a.db", fake) as memory:
        told(memory, FIRST, SECOND, "It rains in Porto.")
        assert len(fake.requests) == 2, "and once to repair it"
        assert memory.health().ok


def test_a_model_that_is_down_holds_up_nothing_else(tmp_path: Path, fake: FakeOpenAI) -> None:
    fake.answer(refusal(503, "overloaded"))
    with opened(tmp_path / "a.db", fake) as memory:
        memory.add(FIRST, user="ana", at="2020-01-01")
        (cube,) = memory.add(SECOND, user="ana", at="2021-01-01")
        memory.add("I live in Lisbon.", user="ana", at="2020-01-01")
        (moved,) = memory.add("I moved to Porto.", user="ana", at="2021-01-01")
        with pytest.raises(ModelError, match="overloaded"):
            memory.flush()
        assert memory.get(cube.id).text == SECOND
        assert [one.value for one in memory.facts(user="ana", attribute="home")] == ["Porto"]
        memory.delete(moved.id)
        with pytest.raises(ModelError):
            memory.flush()
        assert [one.value for one in memory.facts(user="ana", attribute="home")] == ["Lisbon"]
        assert memory.health().unread > 0, "what was not asked yet is not forgotten"
        fake.answer(reading(("Blur", "Pulp", BAND)))
        memory.flush()
        assert asked(memory)[:2] == [(SECOND, None), (FIRST, "Pulp")]
        assert memory.health().unread == 0


def test_it_asks_only_of_what_may_meet(tmp_path: Path, fake: FakeOpenAI) -> None:
    fake.answer(reading())
    with opened(tmp_path / "a.db", fake) as memory:
        told(memory, "I live in Lisbon.", "I moved to Porto.")
        assert fake.requests == [], "the rules know this slot"
        memory.add("The rain in Lisbon.", user="bo")
        memory.add("Lisbon is fine.", user="ana", agent="coach")
        memory.add([{"role": "assistant", "content": "Lisbon is a fine city."}], user="ana")
        memory.flush()
        assert fake.requests == [], "another's, another agent's, and what a model said"
        memory.add([f"Number {n} of the band." for n in range(6)], user="ana", session="s")
        memory.flush()
        assert 0 < len(fake.requests) <= 6 * 3


def test_without_a_model_it_is_refused_and_by_default_it_is_off(tmp_path: Path, fake: FakeOpenAI) -> None:
    with pytest.raises(InvalidOption, match="model="):
        mnemic.open(tmp_path / "a.db", derive=["facts", "contradictions"])
    model = OpenAIModel(model="m", base_url=fake.url, api_key="sk-x")
    with mnemic.open(tmp_path / "a.db", model=model) as memory:
        told(memory, FIRST, SECOND)
    assert fake.requests == []
