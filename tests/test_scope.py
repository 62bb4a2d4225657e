"""No read ever gives what belongs to somebody else, whatever the names look like and whatever is asked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import mnemic
from mnemic.cube.model import ANY, Unset

# Some of these would leak through a joined key, LIKE, JSON, a fold of case or form, or a C string.
NAMES = [
    "ana", "Ana", "an", "ana/x", "%", "_", "ana%", "*", "'; DROP TABLE cube; --", '"', "\\", "é", "e\u0301",
    "null", "\u202eana", "a\u200bna", "👩\u200d👩\u200d👧",
]  # fmt: skip
users = st.sampled_from(NAMES) | st.none()
others = st.sampled_from(["s", "S", "%", "ana", "None"]) | st.none()
scopes = st.tuples(users, others, others).filter(lambda names: names[:2] != (None, None))
FIELDS = ("user", "agent", "session")
questions = st.tuples(users | st.just(ANY), others | st.just(ANY), others | st.just(ANY)).filter(
    lambda names: isinstance(names[0], str) or isinstance(names[1], str)
)


def reaches(asked: tuple[object, object, object], names: tuple[str | None, ...]) -> bool:
    """The definition: left out matches any, a name exactly, None only "unset"."""
    return all(isinstance(want, Unset) or want == have for want, have in zip(asked, names, strict=True))


@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
@settings(max_examples=15)
@given(data=st.data())
def test_a_read_gives_all_that_is_within_reach_and_nothing_else(
    database: str, fresh_database: Callable[[str], str], data: st.DataObject
) -> None:
    told = data.draw(st.dictionaries(scopes, st.integers(1, 3), min_size=2, max_size=8))
    with mnemic.open(fresh_database(database)) as memory:
        held: dict[tuple[str | None, ...], list[str]] = {}
        for number, (names, count) in enumerate(told.items()):
            user, agent, session = names
            texts = [f"secret {number} {turn}" for turn in range(count)]
            memory.add(texts, user=user, agent=agent, session=session)
            held[names] = texts
        for _ in range(6):
            asked = data.draw(questions)
            expected = Counter(text for names in held if reaches(asked, names) for text in held[names])
            reach = dict(zip(FIELDS, asked, strict=True))
            assert Counter(hit.text for hit in memory.search("secret", k=100, **reach)) == expected
            assert Counter(cube.text for cube in memory.list(**reach)) == expected
            assert memory.count(**reach) == expected.total()
            shown = memory.context("secret", budget=2000, **reach)
            assert {cube.text for cube in shown.cubes} <= expected.keys()
            told_elsewhere = {text for texts in held.values() for text in texts} - expected.keys()
            assert not any(f"{text}\n" in shown.text for text in told_elsewhere)
            listed = memory.sessions(user=asked[0], agent=asked[1])
            sessions = {(one.user, one.agent, one.session): one.count for one in listed}
            wide = (*asked[:2], ANY)
            assert sessions == {names: len(texts) for names, texts in held.items() if reaches(wide, names)}
        for names, texts in held.items():
            scope = dict(zip(FIELDS, names, strict=True))
            assert [cube.text for cube in memory.list(**scope)] == texts
            assert memory.delete(where={"role": "user"}, **scope).count == len(texts)
        assert memory.count(everyone=True) == 0


def test_another_users_words_change_no_score(database: str) -> None:
    def answers() -> list[tuple[str, float, dict[str, float]]]:
        hits = memory.search("Who barks in Porto?", user="ana")
        return [(hit.text, hit.score, dict(hit.signals)) for hit in hits]

    with mnemic.open(database) as memory:
        memory.add(["I live in Porto.", "I like tea.", "My dog barks."], user="ana")
        before = answers()
        memory.add(["Porto is full of dogs that bark."] * 50, user="bo")
        assert answers() == before
