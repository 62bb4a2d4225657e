"""Search through the public memory: what it finds, what it may not see, and how it says so."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import mnemic
from mnemic.cube.errors import InvalidOption, ModelError
from mnemic.memory import Memory
from mnemic.plaintext.recall.search import Hits

ANA = [
    ("2023-01-10", "s1", "user", "I paint sunsets by the sea."),
    ("2023-01-10", "s1", "assistant", "What do you use for it?"),
    ("2023-01-10", "s1", "user", "Oil mostly, and an old brush of my mother's."),
    ("2023-05-02", "s2", "user", "I moved to Porto for a new job at the museum."),
    ("2023-05-20", "s3", "user", "My first kayak trip on the Douro was cold!"),
    ("2023-07-15", "s4", "user", "In Lisbon we heard fado until three in the morning."),
    ("2023-10-01", "s5", "user", "Now I live in Braga, the rent in Porto was too high."),
    ("2023-10-01", "s5", "assistant", "Congratulations on the flat in Braga!"),
]


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[Memory]:
    with mnemic.open(tmp_path / "ana.db") as opened:
        yield opened


@pytest.fixture
def ana(memory: Memory) -> Memory:
    for at, session, role, text in ANA:
        memory.add(text, user="ana", session=session, role=role, at=at)
    return memory


def texts(hits: Hits) -> list[str]:
    return [hit.text for hit in hits]


def scores(hits: Hits) -> dict[str, tuple[float, dict[str, float]]]:
    """By text: the final score and every signal but diversity, which depends on what else is shown."""
    return {
        hit.text: (hit.score - hit.signals["diversity"], {**hit.signals, "diversity": 0.0}) for hit in hits
    }


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("Which brush did my mother give me?", ANA[2][3]),
        ("When did I go kayaking?", ANA[4][3]),
        ("Where did I hear fado?", ANA[5][3]),
        ("museum job", ANA[3][3]),
    ],
)
def test_the_answer_comes_first(ana: Memory, question: str, answer: str) -> None:
    assert texts(ana.search(question, user="ana", k=2, asked_at="2024-01-01"))[0] == answer


def test_a_hit_says_what_each_signal_added(ana: Memory) -> None:
    for hit in ana.search("Where did I hear fado?", user="ana"):
        assert hit.score == pytest.approx(sum(hit.signals.values()), abs=1e-4)
        assert {"lexical", "dense", "session", "diversity"} <= set(hit.signals)


def test_k_or_fewer_best_first_and_the_same_each_time(ana: Memory) -> None:
    for k in (1, 3, 100):
        hits = ana.search("Porto", user="ana", k=k)
        assert len(hits) == min(k, len(ANA))
        assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
        assert texts(hits) == texts(ana.search("Porto", user="ana", k=k))
    assert texts(ana.search("Porto", user="ana", k=3)) == texts(ana.search("Porto", user="ana", k=100))[:3]


def test_an_empty_memory_finds_nothing(memory: Memory) -> None:
    assert memory.search("Porto", user="ana") == []
    memory.add("Porto", user="bo")
    assert memory.search("Porto", user="ana") == []
    cube = memory.add("Porto", user="ana")[0]
    memory.delete(cube.id)
    assert memory.search("Porto", user="ana") == []


def test_texts_of_the_same_words_are_one_result(memory: Memory) -> None:
    for n, text in enumerate(["I love kayaks!", "i love kayaks", "I love Porto.", "I love KAYAKS…"]):
        memory.add(text, user="ana", session=f"s{n}")
    found = texts(memory.search("kayaks", user="ana", k=10))
    assert len(found) == 2
    assert found[1] == "I love Porto."
    for n in range(60):  # more duplicates than spare candidates
        memory.add("I love kayaks", user="ana", session=f"t{n}")
    assert len(memory.search("kayaks", user="ana", k=2)) == 2


def test_likeness_to_what_is_shown_costs_a_place(tmp_path: Path) -> None:
    said = ["My kayak is red and fast.", "My kayak is red and quick.", "The kayak hangs in the old garage."]
    order = {}
    for diversity in (0.0, 50.0):
        with mnemic.open(tmp_path / f"{diversity}.db", weights=mnemic.Weights(diversity=diversity)) as memory:
            for n, text in enumerate([*said, "Rain again.", "Dinner was late.", "We sang."]):
                memory.add(text, user="ana", session=f"s{n}")
            order[diversity] = texts(memory.search("Is my kayak red?", user="ana"))
    assert set(order[0.0][:2]) == set(said[:2])
    assert order[50.0][0] == order[0.0][0]
    assert order[50.0].index(order[0.0][1]) > 1
    assert sorted(order[0.0]) == sorted(order[50.0])


def test_recalled_text_and_blanks_are_never_found(ana: Memory) -> None:
    block = ana.context("Where does Ana live?", user="ana").text
    ana.add(block, user="ana", session="s6")
    assert len(ana.search("Porto", user="ana", k=100)) == len(ANA)
    assert ana.count(user="ana") == len(ANA) + 1


def test_a_score_rests_only_on_what_the_caller_may_see(ana: Memory) -> None:
    question = "Where does Ana live, and whom did she meet in Porto?"
    reach = {"user": "ana", "agent": None, "k": 100, "asked_at": "2024-01-01"}
    before = scores(ana.search(question, **reach))
    for n in range(40):  # crosses a power of two
        ana.add(f"Porto Porto live meet {n}", user="ana", agent="coach", session="s2", at="2023-05-02")
        ana.add(f"Porto meet {n}", user="bo")
    assert scores(ana.search(question, **reach)) == before
    assert scores(ana.search(question, user="ana", k=100, asked_at="2024-01-01")) != before


def test_a_filter_chooses_and_changes_no_score(ana: Memory) -> None:
    question, options = "Where does Ana live?", {"user": "ana", "k": 100, "asked_at": "2024-01-01"}
    everything = scores(ana.search(question, **options))
    told = ana.search(question, where={"role": "assistant"}, **options)
    assert {hit.cube.header.role for hit in told} == {"assistant"}
    assert scores(told) == {text: of for text, of in everything.items() if text in texts(told)}
    late = ana.search(question, where={"at": {"gte": "2023-07-01"}}, k=1, user="ana", asked_at="2024-01-01")
    assert len(late) == 1  # chosen before the best are taken, not after
    first = ana.search("sunsets", where={"session": "s5"}, user="ana", k=1)
    assert first[0].cube.header.scope.session == "s5"


def test_an_expired_or_deleted_row_has_no_say(ana: Memory) -> None:
    question, options = "Where does Ana live in Porto?", {"user": "ana", "k": 100, "asked_at": "2024-01-01"}
    before = scores(ana.search(question, **options))
    added = ana.add(["Ana lives in Porto, Porto, Porto"] * 12, user="ana", session="s2", at="2023-05-02")
    assert scores(ana.search(question, **options)) != before
    ana.delete([cube.id for cube in added])
    assert scores(ana.search(question, **options)) == before


@settings(max_examples=25)
@given(cuts=st.lists(st.integers(1, len(ANA) - 1), max_size=4), look=st.booleans())
def test_the_order_of_indexing_changes_no_bit(
    tmp_path_factory: pytest.TempPathFactory, cuts: list[int], look: bool
) -> None:
    path = tmp_path_factory.mktemp("vault") / "x.db"
    options = {"user": "ana", "k": 100, "asked_at": "2024-01-01"}
    question = "Where did Ana live before she moved?"
    with mnemic.open(path) as writer:
        edges = sorted({0, *cuts, len(ANA)})
        for start, stop in pairwise(edges):
            for at, session, role, text in ANA[start:stop]:
                writer.add(text, user="ana", session=session, role=role, at=at)
            if look:
                writer.search(question, **options)
        grown = [(hit.text, hit.score, hit.signals) for hit in writer.search(question, **options)]
        with mnemic.open(path) as reader:
            assert [(h.text, h.score, h.signals) for h in reader.search(question, **options)] == grown


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("What happened in May 2023?", {"2023-05-02", "2023-05-20"}),
        ("What did Ana say last summer?", {"2023-07-15"}),
        ("What did she tell on 10 January 2023?", {"2023-01-10"}),
    ],
)
def test_a_time_in_the_question_is_a_window(ana: Memory, question: str, answer: set[str]) -> None:
    hits = ana.search(question, user="ana", k=len(ANA), asked_at="2024-01-01")
    by_time = sorted(hits, key=lambda hit: -hit.signals["time"])[: len(answer)]
    assert {hit.cube.header.at.date().isoformat() for hit in by_time} == answer
    assert hits[0].cube.header.at.date().isoformat() in answer


def test_latest_and_earliest_follow_the_clock(memory: Memory) -> None:
    for month, town in enumerate(["Rome", "Oslo", "Kyiv", "Bern"], start=1):
        memory.add(f"I live in {town}.", user="ana", session=f"s{month}", at=f"2023-0{month}-01")
    for question, first in (("Where do I currently live?", "Bern"), ("Where did I live originally?", "Rome")):
        hits = memory.search(question, user="ana")
        assert first in hits[0].text
        assert max(hits, key=lambda hit: hit.signals["recency"]) is hits[0]
    assert not any(hit.signals["recency"] for hit in memory.search("Where do I live?", user="ana"))


def test_before_an_event_is_before_it(memory: Memory) -> None:
    for day, text in enumerate(
        ["I play the violin.", "Work is fine.", "I moved to Porto!", "I play the drums.", "Work again."], 1
    ):
        memory.add(text, user="ana", session=f"s{day}", at=f"2023-0{day}-01")
    gains = {}
    for word, wanted, other in (("before", "violin", "drums"), ("after", "drums", "violin")):
        hits = memory.search(f"What did I play {word} I moved to Porto?", user="ana")
        said = {name: hit for hit in hits for name in ("violin", "drums") if name in hit.text}
        assert said[wanted].signals["sequence"] > 0 > said[other].signals["sequence"]
        gains[word] = said["drums"].score - said["violin"].score
    assert gains["after"] > gains["before"]


def test_the_one_who_is_named_is_heard_first(memory: Memory) -> None:
    for n, (name, text) in enumerate(
        [("Ana", "I like jazz."), ("Bo Li", "I like jazz too."), ("Ana", "Rain."), ("Bo Li", "Sun.")]
    ):
        memory.add(text, user="ana", session=f"s{n}", name=name)
    for question, name in (("What music does Bo like?", "Bo Li"), ("What music does Ana like?", "Ana")):
        assert memory.search(question, user="ana")[0].cube.header.name == name


@pytest.mark.parametrize(
    ("question", "answer"),
    [("我住在哪里", "我住在北京的老城里"), ("Où est Zoë?", "Zoë habite à Genève"), ("🎉", "🎉🎉")],
)
def test_other_scripts(memory: Memory, question: str, answer: str) -> None:
    for n, text in enumerate([answer, "我喜欢喝茶", "La pluie tombe", "It is late"]):
        memory.add(text, user="ana", session=f"s{n}")
    assert memory.search(question, user="ana", k=1)[0].text == answer


class Remote:
    """An embedder that may not run inside `add`, and does not always answer."""

    name, dim, inline = "remote-test", 8, False
    down = True

    def embed(self, texts: list[str]) -> np.ndarray:
        if self.down:
            raise ModelError("no answer")
        seeds = [sum(map(ord, text)) for text in texts]
        raw = np.stack([np.random.default_rng(seed).standard_normal(self.dim) for seed in seeds])
        return (raw / np.linalg.norm(raw, axis=1, keepdims=True)).astype(np.float32)


def test_without_vectors_the_other_signals_answer_and_say_so(tmp_path: Path) -> None:
    remote = Remote()
    with mnemic.open(tmp_path / "x.db", embedder=remote) as memory:
        for at, session, role, text in ANA:
            memory.add(text, user="ana", session=session, role=role, at=at)
        hits = memory.search("Where did I hear fado?", user="ana")
        assert hits[0].text == ANA[5][3]
        assert "unavailable" in hits.notes["dense"]
        assert not any(hit.signals["dense"] or hit.signals["feedback"] for hit in hits)
        remote.down = False
        memory.flush()
        hits = memory.search("Where did I hear fado?", user="ana", k=100)
        assert hits.notes == {}
        assert all(hit.signals["dense"] for hit in hits)


def test_several_spaces_are_one_ranking(memory: Memory) -> None:
    memory.add("I moved to Porto.", user="ana", agent="coach")
    memory.add("Rain again.", user="ana", agent="coach")
    memory.add("I sold my kayak.", user="bo", agent="coach")
    memory.add("I sold my soul.", user="cy", agent="other")
    assert texts(memory.search("Who sold a kayak?", agent="coach"))[0] == "I sold my kayak."
    assert len(memory.search("Who sold a kayak?", agent="coach")) == 3
    assert len(memory.search("Who sold a kayak?", everyone=True)) == 4


@pytest.mark.parametrize("weight", [float("nan"), float("inf"), "1", True])
def test_a_weight_is_a_finite_number(weight: float) -> None:
    with pytest.raises(InvalidOption, match="weight of time"):
        mnemic.Weights(time=weight)


def test_weights_are_read_from_a_fit(tmp_path: Path) -> None:
    path = tmp_path / "fit.json"
    path.write_text('{"weights": {"time": 2.5}}')
    assert mnemic.Weights.read(path) == mnemic.Weights(time=2.5)
    for content in ('{"weights": {"colour": 1}}', "{}", "nonsense", "[]"):
        path.write_text(content)
        with pytest.raises(InvalidOption):
            mnemic.Weights.read(path)
    with pytest.raises(InvalidOption, match="mnemic bench fit"):
        mnemic.Weights.read(tmp_path / "absent.json")
