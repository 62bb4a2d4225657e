"""The acceptance experiments of HCAM, and the world they are asked in."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from mnemic.bench.kept import kept
from mnemic.bench.layers import hcam, hcam_naming
from mnemic.bench.layers.hcam_naming import ARMS, Namer
from mnemic.bench.worlds.naming import FEATURES, NAMES, STEPS, TYPES, VALUES, episodes
from mnemic.cli.app import app
from mnemic.cube.errors import InvalidOption


def test_what_trains_nothing_is_met() -> None:
    lines = hcam.untrained()
    assert len(lines) == 8
    assert all(line.met for line in lines)


def test_the_answer_is_the_value_shown_in_the_chunk_of_that_name() -> None:
    told, asked, answers = episodes(60, 48, np.random.default_rng(0))
    assert told.shape == (60, 48 * STEPS, FEATURES)
    kinds = slice(NAMES, NAMES + TYPES)
    for chunks, question, answer in zip(told.reshape(60, 48, STEPS, FEATURES), asked, answers, strict=True):
        assert question.sum() == 2
        name, kind = question[:NAMES].argmax(), question[kinds].argmax()
        says_name = chunks[:, :, :NAMES].sum(-1)
        assert (says_name.sum(1) == 1).all()
        assert sorted(chunks[:, :, :NAMES].argmax(-1)[says_name == 1]) == list(range(NAMES))
        (mine,) = np.flatnonzero(chunks[:, :, name].any(1))
        (step,) = np.flatnonzero(chunks[mine, :, NAMES + kind])
        assert chunks[mine, step, NAMES + TYPES : -1].argmax() == answer
        assert not chunks[mine, step, :NAMES].any()  # the name stands at another step
        assert (chunks[mine, :, -1].sum(), chunks[mine, :, kinds].sum()) == (4, 3)
    assert set(answers) == set(range(VALUES))
    assert not np.array_equal(told, episodes(60, 48, np.random.default_rng(1)).told)
    with pytest.raises(InvalidOption, match="48"):
        episodes(1, 49, np.random.default_rng(0))


@pytest.mark.parametrize("arm", ARMS)
def test_every_arm_answers_about_any_number_of_things(arm: str) -> None:
    torch.manual_seed(0)
    model = Namer(ARMS[arm]())
    for chunks in (1, 3, 20):
        told, asked, _ = (torch.from_numpy(part) for part in episodes(5, chunks, np.random.default_rng(0)))
        logits = model(told, asked)
        assert logits.shape == (5, VALUES)
        assert bool(torch.isfinite(logits).all())


def test_hcam_learns_to_name_and_goes_beyond_what_it_was_trained_on() -> None:
    """A third of the training and a smaller world's worth of it: the full experiment is the command."""
    torch.manual_seed(0)
    record = hcam_naming.train("HCAM", 1, 450)
    assert record["accuracy"]["48"] > 0.8 * record["accuracy"]["8"]
    assert record["accuracy"]["8"] > 0.5


def test_demands_are_judged_by_the_worst_seed() -> None:
    def record(arm: str, at_8: float, at_48: float) -> dict[str, Any]:
        return {"arm": arm, "accuracy": {"4": 1.0, "8": at_8, "16": 1.0, "48": at_48}}

    good = [record("HCAM", 1.0, 0.97), record("HCAM", 0.96, 0.95), record("flat attention", 0.5, 0.1)]
    good += [record("random chunks", 0.3, 0.2), record("summaries only", 0.7, 0.4)]
    lines = hcam.trained({str(n): one for n, one in enumerate(good)})
    assert [line.met for line in lines] == [True] * 8
    bad = [record("HCAM", 1.0, 0.85), record("HCAM", 0.9, 0.95), record("flat attention", 0.7, 0.1)]
    bad += [record("random chunks", 0.8, 0.7), record("summaries only", 0.8, 0.7)]
    lines = hcam.trained({str(n): one for n, one in enumerate(bad)})
    assert [line.met for line in lines] == [False] * 8
    assert hcam.trained({}) == []


def test_runs_are_kept_and_not_made_again(tmp_path: Path) -> None:
    made, said = [], []

    def run(name: str) -> dict[str, Any]:
        made.append(name)
        if name == "c":
            raise KeyboardInterrupt
        return {"name": name}

    runs = {name: (lambda name=name: run(name)) for name in "abc"}
    path = tmp_path / "folder" / "runs.json"
    with pytest.raises(KeyboardInterrupt):
        kept(runs, path)
    assert json.loads(path.read_text()) == {"a": {"name": "a"}, "b": {"name": "b"}}
    del runs["c"]
    assert kept(runs, path, report=lambda *of: said.append(of)).keys() == {"a", "b"}
    assert made == ["a", "b", "c"]
    assert len(said) == 2


def test_the_command_writes_a_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hcam_naming, "TESTED", 128)
    arguments = ["bench", "hcam", "--arm", "LSTM", "--arm", "HCAM", "--seeds", "1", "--steps", "2"]
    done = CliRunner().invoke(app, [*arguments, "--out", str(tmp_path)])
    assert done.exit_code == 0, done.output
    assert "| 1 gradient in stored tensors | ≤ 0 | 0.0e+00 |" in done.stdout
    assert "| LSTM |" in done.stdout
    assert json.loads((tmp_path / "hcam-runs.json").read_text()).keys() == {"LSTM/2/0", "HCAM/2/0"}
    assert (tmp_path / "hcam.md").read_text() == done.stdout[:-1]
    wrong = CliRunner().invoke(app, ["bench", "hcam", "--arm", "HTM", "--out", str(tmp_path)])
    assert wrong.exit_code != 0
