"""LoCoMo's file as dialogues, turns and questions."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mnemic.bench.locomo import digest, evidence_ids, find_file, load
from mnemic.cube.errors import InvalidFile


def test_evidence_is_split_on_semicolons_commas_and_blanks() -> None:
    assert evidence_ids(["D8:6; D9:17", "D1:2,D1:3 D1:2"]) == ["D8:6", "D9:17", "D1:2", "D1:3"]


def test_turns_keep_order_time_and_the_caption_of_a_shared_picture(data: Path) -> None:
    first = load(data)[0]
    assert [turn.id for turn in first.turns] == ["D1:1", "D1:2", "D1:3", "D2:1", "D2:2", "D2:3"]
    assert first.turns[0].line == "Ana: I adopted a kitten called Biscuit. [image: a photo of a kitten]"
    assert first.turns[0].at == "2023-05-08T13:56:00"
    assert first.turns[3].at == "2023-06-01T00:05:00"
    assert {turn.session for turn in first.turns} == {"session_1", "session_2"}


def test_evidence_that_names_no_turn_is_dropped_and_counted(data: Path) -> None:
    first = load(data)[0]
    assert first.questions[2].evidence == ("D1:1", "D2:1")
    assert first.dropped == ("D9:9", "D")


def test_only_answerable_questions_with_evidence_are_for_retrieval(data: Path) -> None:
    assert [q.category for q in load(data)[0].retrieval_questions()] == [4, 2, 1]


def test_the_trap_of_category_5_is_never_gold(data: Path) -> None:
    assert load(data)[0].questions[4].answer is None
    assert load(data)[0].questions[1].answer == "2023"


@pytest.mark.parametrize("content", ["{", "{}", "[]", "[1]", '[{"sample_id": 1}]'])
def test_a_file_of_another_layout_is_refused_with_advice(tmp_path: Path, content: str) -> None:
    (tmp_path / "locomo10.json").write_text(content)
    with pytest.raises(InvalidFile, match=r"locomo10\.json"):
        load(tmp_path)


def test_a_missing_or_ambiguous_file_is_refused_with_where_to_get_it(tmp_path: Path, data: Path) -> None:
    for place in (tmp_path / "nowhere", tmp_path):
        with pytest.raises(InvalidFile, match="snap-research/locomo"):
            find_file(place)
    (data / "locomo10.json").write_text("[]")
    with pytest.raises(InvalidFile, match=r"locomo10\.json, locomo2\.json"):
        find_file(data)


def test_the_digest_follows_the_content(data: Path) -> None:
    before = digest(data)
    path = find_file(data)
    path.write_text(json.dumps(json.loads(path.read_text())[:1]))
    assert digest(data) != before
