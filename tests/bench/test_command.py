"""`mnemic bench` from the command line: lists, tables, files and refusals."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path

import pytest
from typer.testing import CliRunner

from mnemic.cli.bench import app
from mnemic.cube.errors import InvalidOption, MnemicError
from mnemic.plaintext.recall.rank import Weights

runner = CliRunner()


def test_systems_lists_all_with_what_they_need() -> None:
    found = json.loads(runner.invoke(app, ["systems", "--json"]).stdout)
    assert found["bm25"]["status"] == "ready"
    assert found["chroma"]["status"] in ("ready", "not installed: pip install chromadb")


def test_locomo_prints_tables_and_leaves_files(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    arguments = ["locomo", "--data", str(data), "--system", "bm25", "--system", "recent", "--out", str(out)]
    done = runner.invoke(app, arguments)
    assert done.exit_code == 0, done.output
    assert "| recent |" in done.stdout
    summary = json.loads((out / "summary.json").read_text())
    assert summary["command"] == "mnemic bench locomo --data DIR --system bm25 --system recent"
    assert summary["retrieval"]["bm25"]["questions"] == 6
    assert (out / "summary.md").read_text().rstrip() == done.stdout.rstrip()
    again = runner.invoke(app, [*arguments, "--json"])
    assert json.loads(again.stdout)["retrieval"] == summary["retrieval"]


def test_absent_or_wrong_data_is_answered_with_where_to_get_it(tmp_path: Path, data: Path) -> None:
    for arguments in ([], ["--data", str(tmp_path / "none")], ["--data", str(tmp_path)]):
        with pytest.raises(MnemicError, match="snap-research/locomo"):
            runner.invoke(app, ["locomo", *arguments], catch_exceptions=False)
    with pytest.raises(InvalidOption, match="conv-1, conv-2"):
        runner.invoke(app, ["locomo", "--data", str(data), "--dialogue", "conv-9"], catch_exceptions=False)
    with pytest.raises(InvalidOption, match="--reader-model"):
        runner.invoke(app, ["locomo", "--data", str(data), "--reader", "http://x"], catch_exceptions=False)


def test_ablation_reports_every_signal(data: Path, tmp_path: Path) -> None:
    done = runner.invoke(app, ["ablation", "--data", str(data), "--out", str(tmp_path), "--json"])
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert set(found["signals"]) == {field.name for field in fields(Weights)}
    assert found["questions"] == 6
    assert (tmp_path / "ablation.md").read_text().startswith("# What each signal is worth")
