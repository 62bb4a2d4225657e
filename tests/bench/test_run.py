"""A run over systems and dialogues: what it leaves, and how it goes on."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from mnemic.bench import run as running
from mnemic.bench.baselines import Ranked
from mnemic.bench.locomo import Turn, digest, load
from mnemic.bench.markdown import markdown
from mnemic.bench.qa import Reader
from mnemic.bench.report import summarise
from mnemic.bench.run import Plan, run, run_system
from mnemic.cube.errors import InvalidOption
from mnemic.models.base import Completion, Usage


class Canned:
    """A model that always says the same."""

    name = "canned"
    context_tokens = None

    def complete(self, messages: Sequence[Any], **_: Any) -> Completion:
        self.asked = messages[0]["content"]
        return Completion(text="Biscuit", usage=Usage(input_tokens=7))

    def count_tokens(self, text: str) -> int:
        return len(text)


class Broken(Ranked):
    name = "broken"

    def add(self, turns: Sequence[Turn]) -> None:
        super().add(turns)
        if turns[0].text and self.told:
            raise RuntimeError("disk on fire")
        self.told = True

    told = False

    def search(self, question: str, k: int) -> list[str]:  # noqa: ARG002
        return list(self.turns)[:k]

    def describe(self) -> str:
        return "fails on its second dialogue"


def plan(data: Path, **options: Any) -> Plan:
    return Plan(data_digest=digest(data), **options)


def test_a_run_holds_every_question_and_nothing_private(data: Path, tmp_path: Path) -> None:
    results = run(["bm25", "full-context"], load(data), plan(data), tmp_path / "out")
    rows = results[0]["dialogues"]["conv-1"]["rows"]
    assert [row["question"] for row in rows] == ["conv-1/0", "conv-1/1", "conv-1/2"]
    assert sorted(rows[0]["ranking"]) == ["D1:1", "D1:2", "D1:3", "D2:1", "D2:2", "D2:3"]
    assert rows[0]["recall@5"] == 1
    assert set(rows[0]["contexts"]) == {"500", "1000", "2000", "4000"}
    assert set(results[1]["dialogues"]["conv-1"]["rows"][0]["contexts"]) == {"all"}
    written = (tmp_path / "out" / "bm25.json").read_text()
    assert json.loads(written) == results[0]
    assert str(tmp_path) not in written


def test_a_second_run_goes_on_where_the_first_ended(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = run(["bm25"], load(data)[:1], plan(data), tmp_path)
    measured = []
    original = running.measure
    monkeypatch.setattr(running, "measure", lambda *a: measured.append(a[1].id) or original(*a))
    both = run(["bm25"], load(data), plan(data), tmp_path)
    assert measured == ["conv-2"]
    assert both[0]["dialogues"]["conv-1"] == first[0]["dialogues"]["conv-1"]


def test_results_of_other_settings_are_not_mixed_in(data: Path, tmp_path: Path) -> None:
    run(["bm25"], load(data), plan(data), tmp_path)
    with pytest.raises(InvalidOption, match="budgets"):
        run(["bm25"], load(data), plan(data, budgets=(100,)), tmp_path)
    again = run(["bm25"], load(data), plan(data, budgets=(100,)), tmp_path, fresh=True)
    assert again[0]["settings"]["budgets"] == [100]


def test_a_system_that_fails_says_so_and_keeps_what_it_finished(data: Path, tmp_path: Path) -> None:
    result = run_system(Broken(), load(data), plan(data), tmp_path / "broken.json")
    assert result["status"] == "failed on conv-2: RuntimeError: disk on fire"
    assert list(result["dialogues"]) == ["conv-1"]
    text = markdown(summarise([result, *run(["bm25"], load(data), plan(data), tmp_path)]), "x")
    assert "disk on fire" in text
    assert "Left out, because not every system finished them: conv-2" in text


def test_a_system_that_is_not_installed_is_reported_not_dropped(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Broken, "needs", ("no_such_module",))
    monkeypatch.setattr(Broken, "install", "no-such-package")
    result = run_system(Broken(), load(data), plan(data), tmp_path / "broken.json")
    assert result["status"] == "not installed: pip install no-such-package"
    assert "| broken | not installed: pip install no-such-package |" in markdown(summarise([result]), "x")


def test_answers_are_scored_per_category_and_abstention_apart(data: Path, tmp_path: Path) -> None:
    model = Canned()
    results = run(["bm25"], load(data), plan(data, reader=Reader(model)), tmp_path)
    rows = results[0]["dialogues"]["conv-1"]["rows"]
    assert len(rows) == 5
    assert rows[0]["answer"] == {"text": "Biscuit", "abstained": False, "tokens": 7, "f1": 1.0, "exact": 1.0}
    assert "f1" not in rows[4]["answer"]
    answers = summarise(results)["answers"]["bm25"]
    assert answers["by_category"] == {"multi-hop": 0, "temporal": 0, "open-domain": 0, "single-hop": 1}
    assert answers["adversarial_abstained"][0] == 0
    assert answers["f1"][0] == 0.25


def test_a_tie_is_said_to_be_one(data: Path, tmp_path: Path) -> None:
    results = run(["bm25", "dense-static", "recent"], load(data), plan(data), tmp_path)
    text = markdown(summarise(results), "mnemic bench locomo --data DIR")
    assert "| 1-3 | bm25 |" in text
    assert "No difference in recall@10 is shown between" in text
