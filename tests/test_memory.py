"""What a user of `mnemic.open()` sees, verb by verb, on both databases."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

import mnemic
from mnemic.cube.errors import InvalidOption, NotFound, ScopeRequired, VaultClosed
from mnemic.cube.model import Origin

TOLD = [
    {"role": "user", "content": "I moved to Porto in March.", "at": "2025-03-09T10:00Z", "labels": ["home"]},
    {"role": "assistant", "content": "How do you like the river?", "at": "2025-03-09T10:01Z"},
    {
        "role": "user",
        "content": "My bicycle was stolen at the harbour.",
        "at": "2025-06-01T09:00Z",
        "id": "m3",
    },
]


@pytest.fixture
def memory(database: str) -> Iterator[mnemic.Memory]:
    with mnemic.open(database) as opened:
        yield opened


@pytest.fixture
def told(memory: mnemic.Memory) -> mnemic.Memory:
    memory.add(TOLD, user="ana", session="s1")
    memory.add("Bo plays the cello in Lisbon.", user="bo", agent="coach", session="s1", name="Bo")
    return memory


def texts(cubes: object) -> list[str]:
    return [cube.text for cube in cubes]  # type: ignore[attr-defined]


def test_what_was_added_is_found_verbatim_with_all_that_is_known_of_it(memory: mnemic.Memory) -> None:
    said = "  Café \u200b au lait\r\nat 8 — naïve? 👩‍👩‍👧 \x00 \u202eabc\u202c \n"
    (cube,) = added = memory.add(
        said, user="ana", agent="coach", session="s1", at="2025-03-09T11:00+01:00", id="mine", name="Ana",
        metadata={"mood": "calm", "scores": [1, 2.5]}, labels=["food", "food"],
    )  # fmt: skip
    assert (len(added), added.existing, added.skipped) == (1, (), ())
    assert added.change_id
    assert cube.text == said
    assert (cube.client_id, cube.header.name, cube.header.labels) == ("mine", "Ana", ("food",))
    assert cube.metadata == {"mood": "calm", "scores": [1, 2.5]}
    assert cube.header.at == datetime(2025, 3, 9, 10, tzinfo=UTC)
    assert tuple(cube.header.scope) == ("default", "ana", "coach", "s1")
    (hit,) = memory.search("coffee au lait", user="ana")
    assert hit.cube == cube == memory.get(cube.id) == memory.list(user="ana")[0]
    assert (hit.text, hit.cube.payload) == (said, said.encode())
    assert hash(hit.cube) == hash(cube)


def test_search_ranks_what_answers_first_and_says_why(told: mnemic.Memory) -> None:
    hits = told.search("Where does Ana live, in Porto?", user="ana", k=2)
    assert len(hits) == 2
    assert hits[0].text == TOLD[0]["content"]
    assert hits[0].score >= hits[1].score
    assert hits[0].signals
    assert hits.notes == {}
    assert told.search("cello", user="ana", k=3)[0].text != "Bo plays the cello in Lisbon."
    assert told.search("cello", user="nobody") == []


@pytest.mark.parametrize("others", [0, 4, 5, 20, 60])
def test_the_only_cube_with_the_questions_words_comes_first(tmp_path: Path, others: int) -> None:
    things = ["tea", "rain", "bread", "walk", "garden", "letter", "train"]
    notes = [f"The {things[n % 7]} was near the {things[n * n % 5]} on day {n}." for n in range(others)]
    with mnemic.open(tmp_path / "a.db") as memory:
        memory.add(["I moved to Porto in March.", "Rosa plays the cello.", *notes], user="ana")
        assert memory.search("Who plays the cello?", user="ana", k=1)[0].text == "Rosa plays the cello."


def test_a_filter_applies_before_the_best_are_taken(told: mnemic.Memory) -> None:
    (hit,) = told.search("Where is my bicycle?", user="ana", k=1, where={"labels": "home"})
    assert hit.text == TOLD[0]["content"]
    (late,) = told.search("Porto", user="ana", k=5, where={"at": {"gte": "2025-05-01"}})
    assert late.text == TOLD[2]["content"]
    assert told.count(user="ana", where={"origin": "model"}) == 1
    assert told.count(user="ana", where={"labels": {"not": "home"}}) == 2
    assert told.count(user="ana", where={"session": "s2"}) == 0


def test_not_excludes_every_cube_that_has_the_label(memory: mnemic.Memory) -> None:
    memory.add("both", user="ana", labels=["travel", "food"])
    memory.add("one", user="ana", labels=["food"])
    assert texts(memory.list(user="ana", where={"labels": {"not": "travel"}})) == ["one"]


def test_a_context_fits_its_budget_and_names_its_cubes(told: mnemic.Memory) -> None:
    context = told.context("Where does Ana live?", user="ana", budget=500)
    assert "I moved to Porto in March." in context.text
    assert context.tokens <= 500
    assert {cube.id for cube in context.cubes} <= {cube.id for cube in told.list(user="ana")}
    assert "cello" not in context.text


def test_what_mnemic_put_into_a_prompt_is_not_news(told: mnemic.Memory) -> None:
    context = told.context("Where does Ana live?", user="ana")
    before = told.search("Porto", user="ana", k=10)
    (cube,) = told.add(f"{context.text}\nThanks.", user="ana", session="s2")
    assert cube.text == f"{context.text}\nThanks."
    after = told.search("Porto", user="ana", k=10)
    assert after[0].cube.id == before[0].cube.id
    assert all(hit.signals.get("lexical", 0) <= 0 for hit in after if hit.cube.id == cube.id)


def test_looking_without_a_question(told: mnemic.Memory) -> None:
    page = told.list(user="ana", limit=2)
    rest = told.list(user="ana", limit=2, after=page.next)
    assert texts([*page, *rest]) == [message["content"] for message in TOLD]
    assert rest.next is None
    assert (told.count(user="ana"), told.count(agent="coach"), told.count(everyone=True)) == (3, 1, 4)
    assert told.users() == ["ana", "bo"]
    (session,) = told.sessions(user="ana")
    assert (session.session, session.count) == ("s1", 3)
    assert (session.first_at.month, session.last_at.month) == (3, 6)
    assert len(told.sessions(everyone=True)) == 2


def test_an_update_keeps_what_was_said_before(told: mnemic.Memory) -> None:
    first = told.list(user="ana")[0]
    change = told.update(first.id, "I moved to Braga in March.", reason="misheard")
    assert (change.count, change.cubes[0].text) == (1, "I moved to Braga in March.")
    assert told.get(first.id).text == "I moved to Braga in March."
    assert told.get(first.id, version=1) == first
    assert texts(told.history(first.id)) == ["I moved to Porto in March.", "I moved to Braga in March."]
    assert told.search("Braga", user="ana", k=1)[0].text == "I moved to Braga in March."
    assert "I moved to Porto in March." not in texts(told.search("Porto", user="ana", k=10))
    assert told.count(user="ana") == 3
    explained = told.explain(first.id)
    assert (explained.cube.id, len(explained.history), explained.used_by) == (first.id, 2, ())


def test_what_was_deleted_is_in_no_answer_and_in_its_history(told: mnemic.Memory) -> None:
    first, *others = told.list(user="ana")
    assert told.delete(first.id, dry_run=True).cubes == (first,)
    assert told.count(user="ana") == 3
    change = told.delete([first.id, first.id], reason="asked to")
    assert (change.count, bool(change.id)) == (1, True)
    assert told.list(user="ana") == others
    assert first.id not in {hit.cube.id for hit in told.search("Porto", user="ana")}
    with pytest.raises(NotFound, match="history"):
        told.get(first.id)
    assert [cube.deleted for cube in told.history(first.id)] == [False, True]
    assert told.history(first.id)[0] == first
    assert told.delete(first.id).count == 0


def test_delete_by_condition_takes_what_list_shows(told: mnemic.Memory) -> None:
    told.add("Unrelated.", user="bo", session="s1")
    wanted = told.list(user="ana", where={"role": "user"})
    shown = told.delete(where={"role": "user"}, user="ana", dry_run=True)
    assert (list(shown.cubes), shown.id) == (wanted, None)
    assert told.count(everyone=True) == 5
    assert told.delete(where={"role": "user"}, user="ana").count == 2
    assert texts(told.list(everyone=True)) == [
        TOLD[1]["content"], "Bo plays the cello in Lisbon.", "Unrelated.",
    ]  # fmt: skip
    assert told.delete(where={"role": "user"}, user="ana").count == 0
    assert told.delete(where={"session": "s1"}, user="bo", agent=None).count == 1
    assert told.delete([]).count == 0
    told.delete(where={"role": ["user", "assistant"]}, user="ana")
    assert told.sessions(user="ana") == []
    assert told.search("Porto", user="ana") == []
    assert told.context("Porto", user="ana").text == ""


def test_a_handle_is_bound_to_its_scope(told: mnemic.Memory) -> None:
    bo = told.scope(user="bo", agent="coach")
    (cube,) = bo.add("Rehearsal is on Friday.", session="s2")
    assert tuple(cube.header.scope)[1:] == ("bo", "coach", "s2")
    assert bo.count() == 2
    assert bo.count(session="s2") == 1
    assert bo.search("rehearsal", k=1)[0].text == "Rehearsal is on Friday."
    assert "Rehearsal" in bo.context("When is the rehearsal?").text
    assert texts(bo.list(session="s2")) == ["Rehearsal is on Friday."]
    for call in (bo.search, bo.context, bo.add):
        with pytest.raises(InvalidOption, match="bound to user='bo'"):
            call("x", user="ana")
    assert bo.delete(where={"session": "s2"}).count == 1
    assert (bo.count(), told.count(user="ana")) == (1, 3)
    with pytest.raises(ScopeRequired):
        told.scope(session="s1")


def test_a_tenant_sees_only_its_own(database: str) -> None:
    with mnemic.open(database, tenant="a") as one, mnemic.open(database, tenant="b") as other:
        (cube,) = one.add("Ours alone.", user="ana", id="1")
        assert other.list(everyone=True) == other.search("ours", everyone=True) == other.users() == []
        with pytest.raises(NotFound):
            other.get(cube.id)
        with pytest.raises(NotFound):
            other.delete(cube.id)
        assert other.add("Theirs.", user="ana", id="1").existing == ()
        assert one.get(cube.id).text == "Ours alone."


def test_closing_and_opening_again(database: str) -> None:
    with mnemic.open(database) as memory:
        memory.add("Kept.", user="ana")
    memory.close()  # twice is once
    for call in (memory.add, memory.search):
        with pytest.raises(VaultClosed, match="open it again"):
            call("x", user="ana")
    with pytest.raises(VaultClosed):
        memory.list(user="ana")
    with pytest.raises(ZeroDivisionError), mnemic.open(database) as again:
        1 / len(again.list(user="nobody"))
    with pytest.raises(VaultClosed):
        again.count(user="ana")
    with mnemic.open(database) as memory:
        assert texts(memory.list(user="ana")) == ["Kept."]


def test_where_it_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with mnemic.open(tmp_path / "a.db") as memory:
        assert memory.where() == str(tmp_path / "a.db")
        assert repr(memory) == f"<mnemic.Memory {tmp_path / 'a.db'}>"
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    with mnemic.open() as memory:
        assert tmp_path in Path(memory.where()).parents


def test_names_of_the_package_are_imported_when_used() -> None:
    program = (
        "import mnemic, sys; assert not {'numpy', 'sqlalchemy', 'pydantic'} & set(sys.modules);"
        "assert dir(mnemic) == sorted(mnemic.__all__);"
        "print([getattr(getattr(mnemic, name), '__module__', '') for name in mnemic.__all__])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "mnemic.asynchronous" in done.stdout
    with pytest.raises(AttributeError, match="its public names"):
        mnemic.nothing  # noqa: B018


def test_roles_decide_who_said_it(told: mnemic.Memory) -> None:
    assert [cube.header.origin for cube in told.list(user="ana")] == [Origin.user, Origin.model, Origin.user]
