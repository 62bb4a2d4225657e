"""The benchmark of contradicted facts, on templates of our own: what holds goes first, no more is ended."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from mnemic.bench import updates, updates_model
from mnemic.bench.invented import COMPATIBLE, PERSONAL, compatible, one_of_each, pairs_of
from mnemic.bench.paraphrased import UNSEEN, UNSEEN_PAIRS
from mnemic.cube.errors import InvalidFile
from mnemic.models.base import Completion, Usage

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
    halves = {half: (few(said), few(pairs)) for half, (said, pairs) in updates.HALVES.items()}
    monkeypatch.setattr(updates, "HALVES", halves)
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


def few(kinds: Any) -> Any:
    return dict(list(kinds.items())[::8])


def test_of_the_paraphrases_as_many_are_read_as_is_written_down() -> None:
    """Of 26, on one set of names; and no pair that only looks like one is ended."""
    first = {}
    for half, (said, pairs) in updates.HALVES.items():
        rows = updates.people(one_of_each(said, 0), ("facts",))
        first[half] = sum(row["current_first"] for row in rows)
        assert updates.wrongly_ended(list(pairs_of(pairs, 0))) == []
    assert first["seen"] >= 16
    assert first["unseen"] >= 10


class Yes:
    """A model that says of every pair that the later statement replaces the earlier: the worst there is."""

    name, context_tokens = "yes", None

    def count_tokens(self, text: str) -> int:
        return len(text) // 4

    def complete(self, messages: Any, **options: Any) -> Completion:  # noqa: ARG002
        earlier, later = re.findall(r'said: "(.*)"', messages[-1]["content"])
        said = {"relation": "replaces", "subject": "I", "attribute": "thing"}
        said |= {"old": earlier.split()[-1], "new": later.split()[-1]}
        return Completion(text=json.dumps(said), usage=Usage(), parsed=said)


def test_a_bad_model_loses_nothing_and_is_measured_as_bad(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(updates_model, "UNSEEN", few(UNSEEN))
    monkeypatch.setattr(updates_model, "UNSEEN_PAIRS", few(UNSEEN_PAIRS))
    found = updates_model.run_model(Yes())
    rules, model, both = (found["systems"][name] for name in updates_model.MODEL_SYSTEMS)
    assert rules["wrong"] == []
    assert len(model["wrong"]) > 0, "what it says is taken for what it says"
    assert [one["old_by_as_of"] for one in (rules, model, both)] == [rules["updates"]] * 3, "nothing is lost"
    text = updates_model.model_markdown(found, "command")
    assert "| rules and model | " in text


def test_nothing_is_ended_in_five_hundred_compatible_pairs() -> None:
    wrong = updates.wrongly_ended(list(compatible(500, seed=11)))
    assert len(wrong) <= 5, wrong


def test_templates_that_are_not_there_are_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidFile, match="MQuAKE"):
        updates.run(tmp_path)
