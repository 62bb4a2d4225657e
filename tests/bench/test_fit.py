"""Fitting: the loss and its derivatives, what a fit may and may not change, and the command."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import mnemic
from mnemic.bench import fit
from mnemic.bench.locomo import load
from mnemic.cli.bench import app
from mnemic.cube.errors import InvalidOption
from mnemic.plaintext.recall.rank import Weights
from mnemic.plaintext.recall.signals import DIRECT, GUESSED

EMPTY = Path(__file__).parent.parent / "data" / "dialogues.json"  # dialogues without questions


@pytest.fixture
def examples(data: Path) -> list[fit.Examples]:
    return [fit.collect(dialogue) for dialogue in load(data)]


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """The dialogues here hold a handful of questions."""
    monkeypatch.setattr(fit, "FEWEST", 1)


def test_every_weight_but_diversity_is_a_signal() -> None:
    assert {*fit.NAMES, "diversity"} == set(Weights.__dataclass_fields__)


def test_the_weights_that_ship_are_those_of_the_published_fit() -> None:
    published = Path(__file__).parents[2] / "docs" / "results" / "fit.json"
    assert Weights.read(published) == Weights()


def test_gradient_and_hessian_are_those_of_the_loss(examples: list[fit.Examples]) -> None:
    at, small = np.linspace(0.1, 0.6, len(fit.NAMES)), 1e-3
    _, gradient, hessian = fit.loss(examples, at, 0.01)
    for place in range(len(at)):
        step = np.zeros(len(at))
        step[place] = small
        ahead, behind = (fit.loss(examples, at + way * step, 0.01) for way in (1, -1))
        assert gradient[place] == pytest.approx((ahead[0] - behind[0]) / (2 * small), abs=2e-3)
        np.testing.assert_allclose(hessian[place], (ahead[1] - behind[1]) / (2 * small), atol=2e-2)


def test_a_fit_lowers_the_loss_and_keeps_the_floor(examples: list[fit.Examples]) -> None:
    fitted = fit.fit(examples, Weights())
    now = np.array([getattr(fitted, name) for name in fit.NAMES])
    neutral = np.where(np.isin(fit.NAMES, fit.heard(examples)), fit.NEUTRAL, now)
    assert fit.loss(examples, now, fit.L2)[0] < fit.loss(examples, neutral, fit.L2)[0]
    assert now.min() >= fit.FLOOR
    assert fitted.diversity == Weights().diversity


def test_where_a_fit_begins_does_not_matter(examples: list[fit.Examples]) -> None:
    heard = fit.heard(examples)
    one = fit.fit(examples, Weights())
    other = fit.fit(examples, replace(Weights(), **dict.fromkeys(heard, 2.0)))
    assert one == other


def test_a_signal_that_is_hardly_heard_keeps_its_weight(
    examples: list[fit.Examples], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fit, "FEWEST", 10_000)
    start = replace(Weights(), recency=0.7)
    assert fit.fit(examples, start) == start


def test_signals_are_those_of_a_search(examples: list[fit.Examples], tmp_path: Path) -> None:
    """What is fitted on is what ranks: the weighted sum of the examples is the score of the hits."""
    one = examples[0]
    weights = Weights(diversity=0.0)
    one.guess_again(weights)
    asked = one.dialogue.retrieval_questions()[0]
    w = np.array([getattr(weights, name) for name in fit.NAMES], np.float32)
    scores = w @ one.signals[0]
    system = fit.Mnemic(weights=weights)
    system.open(tmp_path)
    system.add(one.dialogue.turns)
    hits = system.memory.search(asked.text, user=fit.USER, k=5, asked_at=system.asked_at)
    system.close()
    assert [hit.score for hit in hits] == pytest.approx(sorted(scores, reverse=True)[: len(hits)], abs=1e-3)
    assert set(hits[0].signals) == {*DIRECT, *GUESSED, "diversity"}


def test_the_command_fits_on_some_and_reports_on_others(data: Path, tmp_path: Path) -> None:
    first, *others = [dialogue.id for dialogue in load(data)]
    done = CliRunner().invoke(app, ["fit", "--data", str(data), "--train", first, "--out", str(tmp_path)])
    assert done.exit_code == 0, done.output
    found = json.loads((tmp_path / "fit.json").read_text())
    assert found["trained_on"] == [first]
    asked = sum(len(of.retrieval_questions()) for of in load(data) if of.id in others)
    assert found["report"]["all"]["questions"] == asked
    assert mnemic.Weights.read(tmp_path / "fit.json") == Weights.of(found["weights"])
    assert "On other dialogues" in (tmp_path / "fit.md").read_text()


def test_leave_one_out_reports_on_all(data: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["fit", "--data", str(data), "--leave-one-out", "--out", str(tmp_path)])
    assert done.exit_code == 0, done.output
    found = json.loads((tmp_path / "fit.json").read_text())
    assert set(found["folds"]) == {dialogue.id for dialogue in load(data)}


@pytest.mark.parametrize("extra", [["--leave-one-out", "--train", "x"], ["--train", "nobody"]])
def test_what_cannot_be_fitted_is_refused(data: Path, tmp_path: Path, extra: list[str]) -> None:
    done = CliRunner().invoke(app, ["fit", "--data", str(data), "--out", str(tmp_path), *extra])
    assert done.exit_code != 0


def test_a_dialogue_is_not_fitted_and_reported_on(data: Path, tmp_path: Path) -> None:
    one = load(data)[0].id
    options = ["fit", "--data", str(data), "--train", one, "--report", one, "--out", str(tmp_path)]
    done = CliRunner().invoke(app, options)
    assert "named" in str(done.exception) or "name them once" in str(done.exception)


def test_without_evidence_there_is_nothing_to_fit(tmp_path: Path) -> None:
    options = ["fit", "--data", str(EMPTY), "--leave-one-out", "--out", str(tmp_path)]
    with pytest.raises(InvalidOption, match="no question with evidence"):
        CliRunner().invoke(app, options, catch_exceptions=False)
