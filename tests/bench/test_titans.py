"""The acceptance experiments of Titans: what trains nothing is met; what trains is kept, not made again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from mnemic.bench.layers import titans, titans_recall
from mnemic.bench.layers.titans_recall import FILLER, KEYS, LENGTH, PAIRS, VALUES, Trained, sample, train_all
from mnemic.cli.app import app


@pytest.mark.parametrize("experiment", [titans.exactness, titans.binding, titans.guard])
def test_what_trains_nothing_is_met(experiment) -> None:  # type: ignore[no-untyped-def]
    lines = experiment()
    assert lines
    assert not [line for line in lines if line.met is False]
    assert any(line.met for line in lines)


def test_a_stream_through_a_constant_state() -> None:
    (line,) = titans.long_stream(8192)
    assert line.met
    assert "8192 tokens" in line.measured


def test_the_task_asks_for_the_value_that_stood_behind_each_key() -> None:
    ids, labels = sample(torch.Generator().manual_seed(0), 50)
    assert ids.shape == labels.shape == (50, LENGTH)
    for row, wanted in zip(ids.tolist(), labels.tolist(), strict=True):
        told = dict(zip(row[: 2 * PAIRS : 2], row[1 : 2 * PAIRS : 2], strict=True))
        assert len(told) == PAIRS
        assert all(1 <= key <= KEYS < value <= KEYS + VALUES for key, value in told.items())
        assert row[2 * PAIRS : 2 * PAIRS + FILLER] == [0] * FILLER
        asked = {row[at]: label for at, label in enumerate(wanted) if label >= 0}
        assert asked == told
        assert [at for at, label in enumerate(wanted) if label >= 0] == list(
            range(2 * PAIRS + FILLER, LENGTH, 2)
        )


def test_runs_are_kept_and_not_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, said = tmp_path / "runs.json", []
    arms = ["window only", "MAG, linear"]
    first = train_all(arms, 1, 2, path, report=lambda *of: said.append(of))
    assert [run.arm for run in first] == arms
    assert first[0].silenced is None
    assert first[1].silenced is not None
    assert first[1].parameters > first[0].parameters

    def never(*_: object) -> Trained:
        raise AssertionError("trained again")

    monkeypatch.setattr(titans_recall, "train", never)
    assert train_all(arms, 1, 2, path, report=lambda *of: said.append(of)) == first
    assert len(said) == 4
    with pytest.raises(AssertionError, match="again"):
        train_all(arms, 1, 3, path, report=lambda *_: None)


def test_a_demand_is_judged_by_two_of_three_seeds() -> None:
    def run(arm: str, accuracy: float, silenced: float | None = None) -> Trained:
        return Trained(arm, 0, 1000, accuracy, {}, silenced, 1, 1.0)

    good = [run("MAG, linear", a, 0.03) for a in (0.5, 0.95, 0.99)] + [run("window only", 0.03)] * 3
    assert [line.met for line in titans.trained(good)] == [True, True, True]
    bad = [run("MAG, linear", a, 0.49) for a in (0.5, 0.6, 0.99)] + [run("window only", 0.4)] * 3
    assert [line.met for line in titans.trained(bad)] == [False, False, False]


def test_the_command_writes_a_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(titans, "untrained", lambda: titans.guard())
    done = CliRunner().invoke(app, ["bench", "titans", "--arm", "none", "--out", str(tmp_path)])
    assert done.exit_code == 0, done.output
    assert "| 4 guard, plain |" in done.stdout
    assert json.loads((tmp_path / "titans.json").read_text())[0]["met"] is True
    wrong = CliRunner().invoke(app, ["bench", "titans", "--arm", "MAX", "--out", str(tmp_path)])
    assert wrong.exit_code != 0
