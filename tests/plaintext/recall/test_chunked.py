"""Coarse-to-fine search over a real memory: looking into everything is the search, and it says how far."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import mnemic
from mnemic.cube.errors import InvalidOption, InvalidText
from mnemic.cube.model import ANY
from mnemic.cube.reach import Reach
from mnemic.memory import Memory
from mnemic.plaintext.recall.chunked import ChunkedRecall, ChunkOptions
from mnemic.plaintext.recall.filters import Filter
from mnemic.plaintext.recall.search import Hits

SUBJECTS = {
    "garden": "The {} in the garden needs water, the roses and the tomato plants are dry.",
    "chess": "In our chess club the {} opening with the white bishop won me the game.",
    "violin": "My violin teacher says the {} movement of the sonata needs a slower bow.",
    "sailing": "We sailed past the {} lighthouse when the wind turned and the mast shook.",
}
KINDS = ("old", "second", "Italian", "northern", "small", "famous")
BO, ANA = Reach("bo", ANY, ANY), Reach("ana", ANY, ANY)


@pytest.fixture(scope="module")
def memory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Memory]:
    with mnemic.open(tmp_path_factory.mktemp("chunked") / "x.db") as opened:
        for subject, line in SUBJECTS.items():
            for number, kind in enumerate(KINDS):
                opened.add(
                    line.format(kind), user="ana", session=subject, id=f"{subject}{number}", at="2024-05-01"
                )
        opened.add("Bo keeps bees and a violin.", user="bo", session="bees")
        opened.flush()
        yield opened


def chunked(memory: Memory, **options: object) -> ChunkedRecall:
    return ChunkedRecall(memory._parts.recall, ChunkOptions(**{"chunk": 3, **options}))  # type: ignore[arg-type]


def found(hits: Hits) -> list[tuple[str, float]]:
    return [(hit.text, round(hit.score, 5)) for hit in hits]


QUESTION = "Which lighthouse did we sail past?"


def test_looking_into_everything_is_the_search_itself(memory: Memory) -> None:
    everything = chunked(memory, chunks=1000)
    for question in (QUESTION, "What does the violin teacher say about the sonata?", "bees"):
        for k in (1, 5, 50):
            expected = memory.search(question, user="ana", k=k)
            assert found(everything.search(question, ANA, k=k)) == found(expected)


@pytest.mark.parametrize("fine", ["signals", "dense"])
@pytest.mark.parametrize("summary", ["mean", "unit", "max"])
def test_the_stretches_of_the_subject_are_looked_into_and_no_others(
    memory: Memory, fine: str, summary: str
) -> None:
    hits = chunked(memory, chunks=2, fine=fine, summary=summary).search(QUESTION, ANA, k=6)
    assert len(hits) == 6
    assert all("lighthouse" in hit.text for hit in hits)
    assert hits.notes["chunks"] == "looked into 2 of 8 stretches; compared 14 vectors for 24 cubes"
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)


def test_more_stretches_are_looked_into_where_k_or_the_filter_ask_for_it(memory: Memory) -> None:
    searcher = chunked(memory, chunks=1)
    assert len(searcher.search(QUESTION, ANA, k=10)) == 10
    looked = searcher.search(QUESTION, ANA, k=10).notes["chunks"]
    assert re.match(r"looked into 4 of 8", looked)
    assert len(searcher.search(QUESTION, ANA, k=100)) == 24
    garden = Filter.of({"session": "garden"})
    hits = searcher.search(QUESTION, ANA, k=3, where=garden)
    assert {hit.cube.header.scope.session for hit in hits} == {"garden"}
    assert len(hits) == 3


def test_nobody_else_is_looked_into(memory: Memory) -> None:
    hits = chunked(memory).search("violin", BO, k=10)
    assert [hit.text for hit in hits] == ["Bo keeps bees and a violin."]
    assert hits.notes["chunks"].startswith("looked into 1 of 1 stretches")
    both = chunked(memory, chunks=1000, fine="dense").search("violin", Reach(ANY, ANY, ANY), k=50)
    assert len(both) == 25
    nobody = chunked(memory).search("violin", Reach("cleo", ANY, ANY), k=10)
    assert nobody == []
    assert chunked(memory, fine="dense").search("violin", Reach("cleo", ANY, ANY), k=10) == []


def test_what_is_told_changed_or_deleted_later_is_found_as_it_is(tmp_path: Path) -> None:
    with mnemic.open(tmp_path / "x.db") as memory:
        searcher = chunked(memory, chunks=1, fine="dense")
        for number in range(5):
            memory.add(f"Ana walks in wood number {number}.", user="ana", session="s")
        assert len(searcher.search("Ana walks", ANA, k=3)) == 3
        (bees,) = memory.add("The bees are at the mill.", user="ana", session="t")
        assert searcher.search("Where are the bees?", ANA, k=1)[0].text == "The bees are at the mill."
        memory.update(bees.id, "The bees are at the harbour.")
        assert searcher.search("Where are the bees?", ANA, k=1)[0].text == "The bees are at the harbour."
        memory.delete(bees.id)
        assert "bees" not in searcher.search("Where are the bees?", ANA, k=1)[0].text


def test_what_cannot_be_is_refused(memory: Memory) -> None:
    for wrong in ({"chunk": 0}, {"chunks": 0}, {"fine": "bm25"}, {"summary": "median"}):
        with pytest.raises(InvalidOption, match=next(iter(wrong))):
            ChunkOptions(**wrong)  # type: ignore[arg-type]
    with pytest.raises(InvalidOption, match="k"):
        chunked(memory).search("bees", ANA, k=0)
    with pytest.raises(InvalidText):
        chunked(memory).search(" ", ANA)
