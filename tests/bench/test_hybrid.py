"""Layer choices on text: as many active parameters each, runs that are kept, a table of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from mnemic.bench.layers.hybrid import ACTIVE, ARMS, Setting, model_of, perform_all
from mnemic.cli.app import app
from mnemic.cube.errors import InvalidOption
from mnemic.training.loop import build
from mnemic.training.options import TextOptions
from mnemic.training.text import Text


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("texts")
    (path / "valid.txt").write_text(
        "".join(f"Day {n}: the ship sailed on to port {n}.\n" for n in range(300))
    )
    (path / "test.txt").write_text("".join(f"Day {n}: the ship came back to port {n}.\n" for n in range(90)))
    return path


@pytest.mark.parametrize("arm", ARMS)
def test_every_choice_has_as_many_active_parameters(arm: str) -> None:
    counts = build(model_of(arm, ACTIVE, 512), 512, 0).parameter_counts()
    assert counts["active"] == pytest.approx(ACTIVE, rel=0.005)
    assert counts["active"] <= ACTIVE
    assert (counts["total"] > counts["active"]) == ("ultramem" in arm or arm == "mom")


def test_a_choice_that_does_not_fit_is_refused() -> None:
    with pytest.raises(InvalidOption, match="allow more"):
        model_of("mom", 60_000, 512)


def test_runs_are_kept_and_the_steps_are_those_of_the_first_seed(folder: Path, tmp_path: Path) -> None:
    text = Text(TextOptions(train="valid.txt", held_out="test.txt", vocabulary=280, length=16,
                            evaluated=4, repeats=0.5), folder)  # fmt: skip
    setting, path = Setting(seconds=0.2, active=100_000, batch=2), tmp_path / "runs.json"
    arm = ["linear (baseline)"]
    first = perform_all(arm, 2, text, setting, path)
    assert [record["steps"] for record in first.values()] == [first["linear (baseline)/0"]["steps"]] * 2
    assert first["linear (baseline)/0"]["perplexity"] != first["linear (baseline)/1"]["perplexity"]
    assert perform_all(arm, 2, text, setting, path) == first
    with pytest.raises(InvalidOption, match="other settings"):
        perform_all(arm, 2, text, Setting(seconds=0.3, active=100_000, batch=2), path)
    names = sorted(file.name for file in tmp_path.iterdir() if file.is_file())
    assert names == ["runs-times.json", "runs.json"]


def test_the_command_writes_a_table(folder: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(
        app,
        ["bench", "hybrid", "--data", str(folder), "--arm", "window 16", "--seeds", "1", "--seconds", "0.1",
         "--vocabulary", "280", "--length", "16", "--out", str(tmp_path)],
    )  # fmt: skip
    assert done.exit_code == 0, done.stderr
    (row,) = [line for line in done.stdout.splitlines() if line.startswith("| window 16 |")]
    record = json.loads((tmp_path / "hybrid-runs.json").read_text())["window 16/0"]
    assert f"{record['perplexity']:.1f}" in row
    assert f"{record['active']:,}" in row
    assert (tmp_path / "hybrid.md").read_text().strip() == done.stdout.strip()
    again = ["bench", "hybrid", "--data", str(folder), "--report-only", "--out", str(tmp_path)]
    assert row in CliRunner().invoke(app, again).stdout
    (tmp_path / "file").write_text("")  # is no folder; said before anything is read or trained
    (tmp_path / "valid.txt").write_bytes(b"\xff\xfe\x00")
    nowhere = ["bench", "hybrid", "--data", str(tmp_path), "--out", str(tmp_path / "file")]
    assert str(tmp_path / "file") in CliRunner().invoke(app, nowhere).stderr.replace("\n", "")
    for wrong in ([*again, "--arm", "mom"], ["bench", "hybrid", "--data", str(folder), "--arm", "none"]):
        assert CliRunner().invoke(app, wrong).exit_code == 2
