"""The acceptance experiments of UltraMemV2: what trains nothing is met; facts are learned and edited."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from mnemic.bench.layers import ultramem
from mnemic.bench.layers.facts import (
    ARMS,
    CHANGED,
    DENSE,
    FULL,
    SPARSE,
    ULTRAMEM,
    _edit,
    facts,
    learn,
    measure,
    right,
)
from mnemic.cli.app import app


@pytest.mark.parametrize("experiment", [ultramem._product_keys, ultramem._equality])
def test_what_trains_nothing_is_met(experiment) -> None:  # type: ignore[no-untyped-def]
    lines = experiment()
    assert lines
    assert all(line.met for line in lines)


def test_facts_are_all_pairs_each_with_a_value_at_random() -> None:
    every, values = facts(0)
    assert every.unique(dim=0).shape == (8_000, 2)
    counts = values.bincount(minlength=128)
    assert counts.min() > 20
    assert counts.max() < 120
    assert not torch.equal(values, facts(1)[1])


def test_a_memory_holds_more_facts_than_a_wider_mlp_and_an_edit_of_its_rows_damages_less(
    tmp_path: Path,
) -> None:
    """The order that 900 steps show (docs/results/ultramem.md), after 90 of them."""
    _, dense = learn(DENSE, 0, 90)
    model, held = learn(ULTRAMEM, 0, 90)
    assert held.active < dense.active
    assert held.accuracy["90"] > 1.5 * dense.accuracy["90"]
    assert held.used is not None
    assert held.used > 0.25
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    sparse, full = (_edit(model, 0, rate) for rate in ((SPARSE, 5e-3), (FULL, 2e-4)))
    assert (sparse.arm, full.arm) == (SPARSE, FULL)
    assert min(sparse.new, full.new) >= 0.9
    assert sparse.damage < full.damage
    assert sparse.moved <= 0.05 * full.moved
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    every, values = facts(0)
    assert right(model, every[:CHANGED], values[:CHANGED]) <= 1

    # kept, and not made again
    path = tmp_path / "runs.json"
    first = measure(["MLP 96"], 1, path, steps=3)
    assert measure(["MLP 96"], 1, path, steps=3) == first


@pytest.mark.parametrize("arm", ARMS)
def test_every_arm_learns(arm: str) -> None:
    _, held = learn(arm, 0, 6)
    assert list(held.accuracy) == ["2", "4", "6"]
    assert held.active <= held.total


def test_the_command_says_what_was_not_run_and_refuses_unknown_arms(tmp_path: Path) -> None:
    (tmp_path / "ultramem-runs.json").write_text("{}")
    text = ultramem.markdown(ultramem.trained({}, 900), {}, 900, "mnemic bench ultramem")
    assert "| 4 edit of 50 facts |" in text
    assert json.loads((tmp_path / "ultramem-runs.json").read_text()) == {}
    refused = CliRunner().invoke(app, ["bench", "ultramem", "--arm", "nothing", "--out", str(tmp_path)])
    assert refused.exit_code == 2
