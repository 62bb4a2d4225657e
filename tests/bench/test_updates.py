"""The benchmark of contradicted facts, on templates of our own: what holds goes first, no more is ended."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mnemic.bench import updates
from mnemic.bench.invented import COMPATIBLE, PERSONAL, compatible
from mnemic.cube.errors import InvalidFile

CLOZE = {
    "P26": "[X] is married to __",
    "P36": "The capital of [X] is __",
    "P69": "The school where [X] was educated is __",
    "P108": "[X] is employed by __",
    "P159": "The headquarters of [X] is located in the city of __",
    "P1308": "The [X] is __",
    "P1412": "[X] speaks the language of __",
    "P27": "[X] is a citizen of __",
}
QUESTIONS = {
    "P26": "Who is [X] married to?",
    "P36": "What is the capital of [X]?",
    "P69": "Which school was [X] educated at?",
    "P108": "Who is the employer of [X]?",
    "P159": "Which city is the headquarters of [X] located in?",
    "P1308": "Who is the [X]?",
    "P1412": "What language does [X] speak?",
    "P27": "What is the country of citizenship of [X]?",
}


@pytest.fixture
def templates(tmp_path: Path) -> Path:
    (tmp_path / "cloze_templates.json").write_text(json.dumps(CLOZE))
    (tmp_path / "question_templates.json").write_text(json.dumps(QUESTIONS))
    return tmp_path


def test_what_holds_goes_first_and_what_is_compatible_stays(
    templates: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(updates, "ROUNDS", 1)
    monkeypatch.setattr(updates, "PERSONAL", {kind: PERSONAL[kind] for kind in ("home", "schedule")})
    monkeypatch.setattr(updates, "OTHER_WORDS", {"director": updates.OTHER_WORDS["director"]})
    monkeypatch.setattr(updates, "MORE_WORDS", {"succeeded": updates.MORE_WORDS["succeeded"]})
    found = updates.run(templates, each=6, control=2 * len(COMPATIBLE))
    ours, plain = (found["updates"][name]["all"] for name in updates.SYSTEMS)
    assert ours["count"] == 48
    assert ours["current_first"][0] >= 0.95
    assert ours["old_by_as_of"][0] >= 0.95
    assert plain["current_first"][0] < 0.8, "without facts the order is chance"
    assert found["updates"]["mnemic"]["one value"]["old_says_so"][0] >= 0.95
    assert found["updates"]["mnemic"]["several values"]["old_says_so"][0] == 0
    assert found["personal"]["mnemic"]["all"]["current_first"][0] == 1
    assert found["control"]["share"] <= 0.01, found["control"]["examples"]
    text = updates.updates_markdown(found, "mnemic bench updates")
    assert "| mnemic | one value | 42 |" in text


def test_nothing_is_ended_in_five_hundred_compatible_pairs() -> None:
    wrong = updates._wrongly_ended(list(compatible(500, seed=11)))
    assert len(wrong) <= 5, wrong


def test_templates_that_are_not_there_are_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidFile, match="MQuAKE"):
        updates.run(tmp_path)
