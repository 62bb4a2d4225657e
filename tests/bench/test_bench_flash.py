"""The experiments on weights on disk run at a small size, and their report is read as it is meant."""

from __future__ import annotations

import json
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from language_models import TEXT, needs_torch, tiny_llama

pytestmark = needs_torch


def test_each_idea_reads_less_than_the_one_before(tmp_path: Path) -> None:
    from mnemic.bench.flash.ablation import Size, ablation, rates, trace
    from mnemic.bench.flash.suite import demands

    assert rates(2000).mean() == pytest.approx(0.05, rel=1e-3)
    size = Size(layers=2, neurons=1024, width=16, tokens=24, naive_tokens=2, threads=2)
    active = [set(one.tolist()) for one in trace(size, 0)]
    again = sum(len(a & b) for a, b in pairwise(active)) / sum(map(len, active[:-1]))
    assert 0.5 < again < 0.75  # six in ten fire again, and some of the rest wake
    found = ablation(tmp_path, size)
    assert list(tmp_path.iterdir()) == []
    assert found["naive"]["mb"] == pytest.approx(2 * 1024 * 2 * 16 * 4 / 1e6)
    assert found["naive"]["mb"] > 10 * found["predictor"]["mb"] > 15 * found["window"]["mb"]
    assert found["bundles"]["mb"] == pytest.approx(found["window"]["mb"])
    assert found["bundles"]["reads"] == pytest.approx(found["window"]["reads"] / 2)
    told = {one["what"]: one["met"] for one in demands({"ablation": found})}
    assert told["B: reads of bundles over those of halves"]
    assert told["C: published rows of Table 2, off by"]


def test_fewer_neurons_are_worse_and_windows_do_what_they_must() -> None:
    import torch

    from mnemic.bench.flash.shares import SHARES, kept, row_of, shares, union, windows

    local = tiny_llama()
    ids = torch.tensor([local.encode(TEXT)])
    with torch.no_grad():
        alone = local.model(ids).logits
        with kept(local.model, 1.0):
            assert torch.equal(local.model(ids).logits, alone)
        with kept(local.model, 0.1) as chosen:
            assert not torch.equal(local.model(ids).logits, alone)
        assert torch.equal(local.model(ids).logits, alone)
    assert all(one[0].sum(1).eq(round(0.1 * 64)).all() for one in chosen)
    active = torch.tensor([[1, 0, 0], [0, 1, 0], [1, 0, 0], [0, 0, 1]]).bool()
    assert union(active, 2).tolist() == [[1, 0, 0], [1, 1, 0], [1, 1, 0], [1, 0, 1]]
    fresh, resident = windows(active, (2,))[2]
    assert (fresh, resident) == (pytest.approx(2 / 9), pytest.approx(7 / 12))
    rows = shares(local, TEXT * 4)
    assert [row["share"] for row in rows] == list(SHARES)
    assert len(row_of(rows[1])) == 8


def test_a_table_of_values_is_trained_and_served_from_disk(tmp_path: Path) -> None:
    from mnemic.bench.flash.suite import demands, markdown
    from mnemic.bench.flash.values import values

    found = values(tmp_path, dim=32, keys=64, steps=6)
    assert max(found["rows_differ"], found["served_differ"]) < 1e-6
    assert found["losses_disk"][-1] < found["losses_disk"][0]
    checks = demands({"values": found})
    assert all(one["met"] for one in checks)
    report = {"machine": "", "libraries": "", "values": found, "demands": checks}
    assert "## A memory layer's table" in markdown(report, "mnemic bench flash")
    worse = {**found, "rows_differ": 0.1}
    assert not all(one["met"] for one in demands({"values": worse}))


def test_the_command_keeps_its_parts_and_refuses_what_is_not_there(tmp_path: Path) -> None:
    from mnemic.cli.app import app

    for name in ("valid.txt", "test.txt"):
        (tmp_path / name).write_text(TEXT)
    words = ["bench", "flash", "--data", str(tmp_path), "--out", str(tmp_path / "out"), "--json"]
    said = CliRunner().invoke(app, [*words, "--part", "exact"])
    assert said.exit_code == 0, said.output
    found = json.loads(said.stdout)
    assert found["exact"]["different"] < 1e-4
    assert json.loads(CliRunner().invoke(app, [*words, "--report-only"]).stdout)["exact"] == found["exact"]
    assert "A: bytes read are those of new neurons" in (tmp_path / "out" / "flash.md").read_text()
    for wrong in (["--part", "magic"], ["--part", "shares"], ["--gsm8k", str(tmp_path / "valid.txt")]):
        assert CliRunner().invoke(app, [*words, *wrong]).exit_code != 0


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="limits a process's memory as Linux does")
def test_a_model_runs_in_a_quarter_of_its_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trained for a few steps only: the numbers mean little, the limits hold all the same."""
    from mnemic.bench.flash import whole
    from mnemic.bench.flash.relu import Tiny, tiny
    from mnemic.bench.flash.suite import demands

    monkeypatch.setattr(whole, "LEARNED_TOKENS", 256)
    monkeypatch.setattr(whole, "HELD_OUT_TOKENS", 128)
    monkeypatch.setattr(whole, "NEW_TOKENS", 6)
    shape = Tiny(vocabulary=300, width=128, neurons=16384, layers=2, steps=24, batch=2, length=32)
    local = tiny(TEXT * 40, tmp_path, shape)
    assert tiny("", tmp_path, shape).model.config.intermediate_size == 16384  # it is there already
    found: dict[str, Any] = whole.whole(local, TEXT * 40, TEXT * 20, tmp_path / "packed")
    unmet = [one for one in demands({"model": found}) if not one["met"]]
    assert unmet == []
