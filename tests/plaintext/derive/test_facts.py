"""Facts follow what was told: whatever is added, changed, deleted or taken back, in whatever order."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import mnemic
from mnemic.cube.errors import InvalidOption
from mnemic.cube.model import MemCube
from mnemic.plaintext.derive.deriver import load_derivers
from mnemic.vault.deriving import Put

DERIVED = {"origin": "derived"}


@pytest.fixture
def memory(database: str) -> Iterator[mnemic.Memory]:
    opened = mnemic.open(database)
    yield opened
    opened.close()


def held(memory: mnemic.Memory, **options: Any) -> list[tuple[str, str, str]]:
    """What is known and true, as (subject, attribute, value)."""
    memory.flush()
    return sorted((one.subject, one.attribute, one.value) for one in memory.facts(user="ana", **options))


def spans(memory: mnemic.Memory) -> list[tuple[str, int, int | None]]:
    """Every fact with the years from and until which it holds."""
    memory.flush()
    return [
        (one.value, one.since.year if one.since else 0, one.until.year if one.until else None)
        for one in memory.facts(user="ana", past=True)
    ]


def tell(memory: mnemic.Memory, text: str, year: int, **options: Any) -> str:
    return memory.add(text, user="ana", at=f"{year}-01-01", **options)[0].id


def test_a_fact_cites_the_words_it_rests_on(memory: mnemic.Memory) -> None:
    turn = memory.add("Hi! I moved to Porto in March.", user="ana", session="s1", labels=("move",))
    memory.flush()
    (fact,) = memory.facts(user="ana")
    assert (fact.subject, fact.attribute, fact.value, fact.until) == ("ana", "home", "Porto", None)
    header = fact.cube.header
    assert (header.origin.name, header.method, header.labels) == ("derived", "facts", ("move",))
    assert header.scope.session == "s1"
    (source,) = header.sources
    assert (source.cube_id, source.version_id) == (turn[0].id, turn[0].version_id)
    found = memory.explain(fact.cube.id)
    assert [(link.quote, link.broken) for link in found.made_from] == [("I moved to Porto", None)]
    assert [cube.text for cube in found.raw] == ["Hi! I moved to Porto in March."]
    assert memory.explain(turn[0].id).used_by == (fact.cube.id,)


def test_what_contradicts_ends_what_was_and_both_are_kept_and_linked(memory: mnemic.Memory) -> None:
    lisbon = tell(memory, "I live in Lisbon.", 2020)
    porto = tell(memory, "I moved to Porto.", 2023)
    assert spans(memory) == [("Lisbon", 2020, 2023), ("Porto", 2023, None)]
    old, new = memory.facts(user="ana", past=True)
    assert old.superseded_by == new.cube.id
    assert [cube.header.valid_to is None for cube in memory.history(old.cube.id)][-1] is False
    first, second = memory.search("Where does Ana live?", user="ana")
    assert [first.cube.id, second.cube.id] == [porto, lisbon]
    (ended,) = second.superseded
    assert (second.superseded_by, ended.now, ended.since.year) == (porto, "Porto", 2023)
    assert (first.superseded_by, ended.fact) == (None, new.cube.id)


def test_the_order_of_arrival_does_not_matter(memory: mnemic.Memory) -> None:
    for text, year in [("I moved to Porto.", 2023), ("I moved to Braga.", 2025), ("I live in Lisbon.", 2020)]:
        tell(memory, text, year)
        memory.flush()
    assert spans(memory) == [("Lisbon", 2020, 2023), ("Porto", 2023, 2025), ("Braga", 2025, None)]


def test_what_is_said_again_is_one_fact_that_rests_on_both(memory: mnemic.Memory) -> None:
    first = tell(memory, "I live in Porto.", 2020)
    tell(memory, "Yes, I live in Porto.", 2021)
    memory.flush()
    (fact,) = memory.facts(user="ana")
    assert len(fact.cube.header.sources) == 2
    memory.delete(first)
    assert memory.facts(user="ana") == [], "what it rests on has changed: not current until it is made anew"
    assert spans(memory) == [("Porto", 2021, None)]


def test_an_end_without_a_successor(memory: mnemic.Memory) -> None:
    tell(memory, "I work at Acme.", 2020)
    gone = tell(memory, "I quit my job at Acme.", 2022)
    assert spans(memory) == [("Acme", 2020, 2022)]
    assert held(memory) == []
    hit = next(one for one in memory.search("Where does Ana work?", user="ana") if "I work" in one.text)
    assert (hit.superseded_by, hit.superseded[0].now) == (gone, None)


def test_a_changed_or_deleted_turn_takes_its_facts_with_it_at_once_and_undo_brings_them_back(
    memory: mnemic.Memory,
) -> None:
    tell(memory, "I live in Lisbon.", 2020)
    added = memory.add("I moved to Porto.", user="ana", at="2023-01-01")
    porto = added[0].id
    before = spans(memory)
    for act in (
        lambda: memory.delete(porto),
        lambda: memory.update(porto, "I moved to Faro."),
        lambda: memory.undo(str(added.change_id)),
    ):
        change = act()
        values = [one.value for one in memory.facts(user="ana", past=True)]
        assert "Porto" not in values, "in the transaction of the change"
        memory.undo(change.id)
        assert spans(memory) == before
    change = memory.delete(porto)
    assert spans(memory) == [("Lisbon", 2020, None)], "reopened"
    memory.undo(change.id)
    assert spans(memory) == before
    memory.update(porto, "I moved to Faro.")
    assert spans(memory) == [("Lisbon", 2020, 2023), ("Faro", 2023, None)]


def test_a_fact_that_was_deleted_or_undone_is_not_made_again_from_the_same_words(
    memory: mnemic.Memory,
) -> None:
    tell(memory, "I live in Lisbon.", 2020)
    tell(memory, "I moved to Porto.", 2023)
    memory.flush()
    wrong = next(one.cube.id for one in memory.facts(user="ana") if one.value == "Porto")
    memory.delete(wrong, reason="that was Bo")
    assert spans(memory) == [("Lisbon", 2020, None)]
    tell(memory, "What a nice day.", 2024)
    assert spans(memory) == [("Lisbon", 2020, None)]
    tell(memory, "I live in Porto.", 2025)
    assert spans(memory) == [("Lisbon", 2020, 2025), ("Porto", 2025, None)], "said anew, it is news"


def test_a_fact_is_not_edited_but_corrected(memory: mnemic.Memory) -> None:
    tell(memory, "I live in Lisbon.", 2020)
    memory.flush()
    with pytest.raises(InvalidOption, match="tell the correction"):
        memory.update(memory.facts(user="ana")[0].cube.id, "Ana lives in Porto.")


def test_a_fact_that_is_in_no_slot_is_found_by_its_id(memory: mnemic.Memory) -> None:
    """As after a merge with a vault that had derived the same."""
    lisbon = tell(memory, "I live in Lisbon.", 2020)
    memory.flush()
    (fact,) = memory.facts(user="ana")
    with memory._vault.database.write() as transaction:
        transaction.script("DELETE FROM slot")
        transaction.script("DELETE FROM progress")
    tell(memory, "I live in Lisbon.", 2021)
    memory.flush()
    (same,) = memory.facts(user="ana")
    assert same.cube.id == fact.cube.id
    assert len(same.cube.header.sources) == 2
    assert memory.health().unread == 0
    assert lisbon in {source.cube_id for source in same.cube.header.sources}


def test_a_frozen_fact_stays(memory: mnemic.Memory) -> None:
    tell(memory, "I live in Lisbon.", 2020)
    memory.flush()
    fact = memory.facts(user="ana")[0].cube.id
    memory.freeze(fact)
    tell(memory, "I moved to Porto.", 2023)
    memory.flush()
    assert memory.get(fact).header.valid_to is None
    memory.thaw(fact)


def test_nothing_rests_on_what_a_model_said(memory: mnemic.Memory) -> None:
    memory.add([{"role": "assistant", "content": "I live in the cloud. Ana lives in Rome."}], user="ana")
    memory.add([{"role": "tool", "content": "Ana lives in Rome."}], user="ana")
    assert held(memory) == []


def test_a_hundred_rounds_of_recall_and_echo_leave_the_facts_as_they_are(memory: mnemic.Memory) -> None:
    """The model repeats what it was shown, word for word and in others; both sides are told again."""
    tell(memory, "I live in Lisbon.", 2020, name="Ana")
    tell(memory, "I moved to Porto.", 2023, name="Ana")
    tell(memory, "I work at Acme.", 2023, name="Ana")
    before = held(memory)
    versions = [len(memory.history(one.cube.id)) for one in memory.facts(user="ana", past=True)]
    echoes = [
        "Ana lives in Lisbon.",
        "You moved to Porto.",
        "I live in Porto, you said. You work at Acme.",
        "Ana's employer is Globex.",
    ]
    for number in range(100):
        context = memory.context("Where does Ana live and work?", user="ana", budget=400)
        question = f"{context.text}\nWhere do I live and work?"
        answer = f"{echoes[number % 4]} {context.text if number % 3 else ''}"
        memory.add(
            [{"role": "user", "content": question}, {"role": "assistant", "content": answer}],
            user="ana",
            session=f"round {number}",
        )
    assert held(memory) == before
    assert [len(memory.history(one.cube.id)) for one in memory.facts(user="ana", past=True)] == versions


def test_facts_are_as_private_as_what_they_rest_on(memory: mnemic.Memory) -> None:
    memory.add("I live in Lisbon.", user="ana", agent="coach", session="s1", at="2020-01-01")
    memory.add("I moved to Porto.", user="ana", agent="doctor", session="s2", at="2023-01-01")
    memory.add("I live in Rome.", user="bo", at="2024-01-01")
    memory.flush()
    assert [one.value for one in memory.facts(user="ana")] == ["Lisbon", "Porto"], "agents do not meet"
    assert [one.value for one in memory.facts(user="ana", agent="coach")] == ["Lisbon"]
    assert [one.value for one in memory.facts(user="ana", session="s2")] == ["Porto"]
    assert [one.value for one in memory.facts(user="bo")] == ["Rome"]
    memory.add("I moved to Faro.", user="ana", agent="coach", session="s3", at="2024-01-01")
    memory.flush()
    (hit,) = memory.search("Where does Ana live?", user="ana", session="s1")
    assert hit.superseded_by is None, "what the reader may not see is not named"
    hits = memory.search("Where does Ana live?", user="ana", agent="coach")
    assert [one.text for one in hits] == ["I moved to Faro.", "I live in Lisbon."]


def test_what_is_derived_changes_no_score_of_what_was_told(database: str, fresh_database: Any) -> None:
    said = ["I live in Lisbon.", "I work at Acme.", "The weather is nice.", "My favourite food is soup."]
    scores = []
    for place, derive in ((database, ("facts",)), (fresh_database("sqlite"), ())):
        with mnemic.open(place, derive=derive) as memory:
            memory.add(said, user="ana", at="2024-01-01")
            memory.flush()
            assert len(memory.facts(user="ana")) == (3 if derive else 0)
            scores.append(
                [(hit.text, hit.score) for hit in memory.search("Where does Ana live?", user="ana")]
            )
            assert memory.count(user="ana") == 4
    assert scores[0] == scores[1]


def test_a_deriver_of_ones_own_makes_facts_of_facts_and_is_kept_up(database: str) -> None:
    class Profile:
        """One line for each fact."""

        name = "profile"

        def wants(self, cube: MemCube) -> bool:
            return cube.header.method == "facts"

        def derive(self, fresh: Any, stale: Any, look: Any) -> list[Put]:
            from mnemic.cube.model import Origin
            from mnemic.vault.codec import Draft
            from mnemic.vault.deriving import derived_id

            out = []
            for source in (*fresh, *look.states(s.cube.header.sources[0].cube_id for s in stale).values()):
                id = derived_id(self.name, source.cube.id)
                known = look.states([id]).get(id)
                gone = source.cube.deleted or source.cube.header.valid_to is not None
                if gone and (known is None or known.cube.deleted):
                    continue
                draft = (
                    Draft(payload=b"", origin=Origin.derived, method=self.name, deleted=True)
                    if gone
                    else Draft(
                        payload=f"Profile: {source.cube.text}".encode(),
                        origin=Origin.derived,
                        method=self.name,
                        sources=(source.cite(),),
                    )
                )
                follows = known.cube.version_id if known else None
                out.append(Put(id=id, scope=source.cube.header.scope, draft=draft, follows=follows))
            return out

    def profile(memory: mnemic.Memory) -> list[str]:
        found = memory.list(user="ana", where=DERIVED)
        return [cube.text for cube in found if cube.header.method == "profile"]

    with mnemic.open(database, derive=["facts", Profile()]) as memory:
        lisbon = tell(memory, "I live in Lisbon.", 2020)
        memory.flush()
        assert profile(memory) == ["Profile: ana lives in Lisbon."]
        change = memory.delete(lisbon)
        assert profile(memory) == []
        assert memory.facts(user="ana") == []
        memory.undo(change.id)
        assert profile(memory) == ["Profile: ana lives in Lisbon."]
        tell(memory, "I moved to Porto.", 2023)
        memory.flush()
        assert profile(memory) == ["Profile: ana lives in Porto."]


def test_what_is_no_deriver_is_refused() -> None:
    for wrong in ("facts", ["nobody"], [5], ["facts", "facts"], 5):
        with pytest.raises(mnemic.MnemicError):
            load_derivers(wrong)  # type: ignore[arg-type]


places = st.sampled_from(["Lisbon", "Porto", "Faro"])
steps = st.one_of(
    st.tuples(st.just("tell"), places, st.integers(2000, 2009)),
    st.tuples(st.just("change"), st.integers(0, 9), places),
    st.tuples(st.just("delete"), st.integers(0, 9), st.none()),
    st.tuples(st.just("undo"), st.integers(0, 9), st.none()),
)


def test_a_value_that_is_said_again_within_one_moment_is_two_facts(tmp_path: Path) -> None:
    """The earlier of three turns is said anew, after another value of the same day."""
    with mnemic.open(tmp_path / "a.db") as memory:
        ids = [tell(memory, f"I live in {place}.", 2000) for place in ("Lisbon", "Lisbon", "Lisbon", "Porto")]
        memory.flush()
        memory.update(ids[0], "I live in Lisbon.")
        memory.flush()
        assert [value for value, _, _ in spans(memory)] == ["Lisbon", "Porto", "Lisbon"]
        assert [one.value for one in memory.facts(user="ana")] == ["Lisbon"]


@settings(max_examples=25)
@given(st.lists(steps, min_size=1, max_size=8), st.data())
def test_facts_are_a_function_of_the_turns_that_live(
    fresh_database: Any, done: list[tuple[str, Any, Any]], data: st.DataObject
) -> None:
    """However a memory came to be, its facts are those of one that was told the living turns in order."""
    with mnemic.open(fresh_database("sqlite")) as memory:
        turns: list[str] = []
        changes: list[str] = []
        for what, one, other in done:
            if what == "tell":
                added = memory.add(f"I live in {one}.", user="ana", at=f"{other}-01-01")
                turns.append(added[0].id)
                changes.append(str(added.change_id))
            elif what == "undo" and changes:
                try:
                    memory.undo(changes[one % len(changes)])
                except mnemic.MnemicError:
                    continue
            elif turns:
                try:
                    turn = turns[one % len(turns)]
                    change = (
                        memory.delete(turn)
                        if what == "delete"
                        else memory.update(turn, f"I live in {other}.")
                    )
                except mnemic.MnemicError:
                    continue
                if change.id:
                    changes.append(change.id)
            if data.draw(st.booleans()):
                memory.flush()
        got = spans(memory)
        alive = memory.list(user="ana")
        assert memory.health().waiting == 0
    with mnemic.open(fresh_database("sqlite")) as fresh:
        for cube in sorted(alive, key=lambda cube: cube.header.at):
            fresh.add(cube.text, user="ana", at=cube.header.at)
        assert [(value, since) for value, since, _ in got] == [
            (value, since) for value, since, _ in spans(fresh)
        ]
