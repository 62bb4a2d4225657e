"""Training: a run that was stopped ends with the same bits, parts of a batch are the batch, and it learns."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModelForCausalLM

from mnemic.bench.layers.tasks import MQAR, Needle
from mnemic.cube.errors import InvalidFile, InvalidOption, ModelError
from mnemic.layers.stack import StackForCausalLM
from mnemic.training.loop import CHECKPOINT, LOG, Trained, build, one_step, train
from mnemic.training.optimise import clip, optimisers_of, rate_at
from mnemic.training.options import LoopOptions, ModelOptions
from mnemic.training.source import Made

MODEL = ModelOptions(
    layers=("window", "mom"), dim=16, mlp_ratio=2.0, memory={"layer": "ultramem", "keys": 8, "topm": 4}
)
LOOP = LoopOptions(steps=12, batch=8, rate=1e-2, evaluate_every=4, save_every=5, seed=3)


def source(seed: int = 0) -> Made:
    task = MQAR(vocabulary=32, length=16, pairs=4)
    return Made(task, {"task": "mqar"}, evaluated=16, seed=seed)


def run(folder: Path | None, options: LoopOptions = LOOP, *, stop_after: int | None = None) -> Trained:
    left = [stop_after]

    def stop() -> bool:
        if left[0] is not None:
            left[0] -= 1
        return left[0] == 0

    given = source()
    return train(build(MODEL, given.vocabulary, options.seed), given, options, folder=folder, stop=stop)


@cache
def undisturbed() -> Trained:
    return run(None)


def bits(model: StackForCausalLM) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def assert_equal(a: dict[str, Tensor], b: dict[str, Tensor]) -> None:
    assert a.keys() == b.keys()
    for name in a:
        assert torch.equal(a[name], b[name]), name


def test_a_run_that_was_stopped_goes_on_with_the_same_bits(tmp_path: Path) -> None:
    whole = run(tmp_path / "whole")
    assert_equal(bits(whole.model), bits(undisturbed().model))
    for after in (3, 4):  # twice: at steps 3 and 7
        part = run(tmp_path / "parts", stop_after=after)
    assert part.step == 7
    again = run(tmp_path / "parts")
    assert (whole.resumed_at, again.resumed_at, again.step) == (0, 7, 12)
    assert_equal(bits(again.model), bits(whole.model))
    assert again.history == whole.history
    held = [load_file(tmp_path / name / CHECKPOINT) for name in ("whole", "parts")]
    assert any(name.startswith("optimiser.1.") for name in held[0])
    assert_equal(*held)  # optimisers too
    rows = [json.loads(line) for line in (tmp_path / "parts" / LOG).read_text().splitlines()]
    assert [row["step"] for row in rows] == [4, 8, 12]
    assert_equal(bits(run(tmp_path / "parts").model), bits(whole.model))  # finished: nothing more is done


def test_a_run_that_was_killed_goes_on_with_the_same_bits(tmp_path: Path) -> None:
    """A real process, killed without a chance to clean up, some steps after its checkpoint."""
    code = (
        "import os, sys; from pathlib import Path\n"
        "sys.path.insert(0, sys.argv[2])\n"
        "import test_loop as t\n"
        "from mnemic.training.loop import build, train\n"
        "given = t.source()\n"
        "def progress(done, total):\n"
        "    if done == 8: os._exit(9)\n"
        "model = build(t.MODEL, given.vocabulary, 3)\n"
        "train(model, given, t.LOOP, folder=Path(sys.argv[1]), progress=progress)"
    )
    killed = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "killed"), str(Path(__file__).parent)], check=False
    )
    assert killed.returncode == 9
    again = run(tmp_path / "killed")
    assert again.resumed_at == 5
    assert_equal(bits(again.model), bits(undisturbed().model))


def test_parts_of_a_batch_give_the_gradient_of_the_batch() -> None:
    """Also where the parts hold different numbers of labels, and the table's gradient is sparse."""
    model = replace(MODEL, layers=("window", "gated-delta"))
    found = []
    for micro in (None, 3, 1):
        given = Made(Ragged(), {}, evaluated=8, seed=0)
        one = build(model, given.vocabulary, 0).double()
        one_step(one, given, [], replace(LOOP, micro=micro, clip=1e9), step=5)
        gradients = {n: p.grad for n, p in one.named_parameters() if p.grad is not None}
        found.append({n: g.to_dense() if g.is_sparse else g for n, g in gradients.items()})
    for other in found[1:]:
        assert other.keys() == found[0].keys()
        for name, gradient in other.items():
            torch.testing.assert_close(gradient, found[0][name], atol=1e-12, rtol=1e-9, msg=name)


class Ragged:
    """Sequences with one to twelve labels."""

    vocabulary = 20

    def batch(self, rows: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        tokens = torch.randint(20, (rows, 12), generator=generator)
        labels = torch.randint(20, (rows, 12), generator=generator)
        asked = torch.arange(12) < torch.randint(1, 13, (rows, 1), generator=generator)
        return tokens, torch.where(asked, labels, -100)


def test_the_same_seed_gives_the_same_bits_and_another_does_not() -> None:
    state = torch.get_rng_state()
    a, b = undisturbed(), run(None)
    assert_equal(bits(a.model), bits(b.model))
    other = run(None, replace(LOOP, seed=4))
    assert not torch.equal(other.model.embed.weight, a.model.embed.weight)
    assert torch.equal(torch.get_rng_state(), state)  # the caller's random numbers are left alone


def test_it_learns_to_recall() -> None:
    given = Made(MQAR(vocabulary=16, length=16, pairs=2), {}, evaluated=256, seed=0)
    options = LoopOptions(steps=150, batch=32, rate=1e-2, evaluate_every=75)
    model = build(ModelOptions(layers=("base-conv", "attention"), dim=32, mlp_ratio=0), given.vocabulary, 0)
    found = train(model, given, options).history
    assert found[-1]["recall"] > 0.9
    assert found[-1]["loss"] < found[0]["loss"]


def test_slots_in_use_are_reported() -> None:
    row = undisturbed().history[-1]
    assert 0 < row["slots_used"] <= 1
    assert 0 < row["slots_even"] <= 1


def test_other_settings_are_refused_by_name_and_damage_is_seen(tmp_path: Path) -> None:
    run(tmp_path)
    with pytest.raises(InvalidOption, match=r"training\.rate is 0\.01 there and 0\.02 here"):
        run(tmp_path, replace(LOOP, rate=2e-2))
    path = tmp_path / CHECKPOINT
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(InvalidFile, match="damaged"):
        run(tmp_path)
    path.write_bytes(b"nothing of the kind")
    with pytest.raises(InvalidFile):
        run(tmp_path)


def test_a_loss_that_is_not_finite_ends_the_run() -> None:
    given = source()
    model = build(MODEL, given.vocabulary, 0)
    with torch.no_grad():
        model.norm.weight.fill_(torch.inf)
    with pytest.raises(ModelError, match="lower rate"):
        train(model, given, LOOP)


def test_a_trained_model_is_a_transformers_model(tmp_path: Path) -> None:
    model = undisturbed().model
    model.save_pretrained(tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    tokens = torch.arange(10).unsqueeze(0)
    assert torch.equal(loaded(tokens).logits, model(tokens).logits)


def test_decay_touches_matrices_alone_and_tables_have_their_own_optimiser() -> None:
    model = build(MODEL, 32, 0)
    dense, rows = optimisers_of(model, LOOP)
    tables = {id(one.values.weight) for one in model.slot_memories()}  # type: ignore[attr-defined]
    assert {id(p) for group in rows.param_groups for p in group["params"]} == tables
    decayed, rest = dense.param_groups
    assert (decayed["weight_decay"], rest["weight_decay"]) == (0.1, 0.0)
    assert all(p.dim() >= 2 for p in decayed["params"])
    assert id(model.embed.weight) in {id(p) for p in rest["params"]}
    every = [id(p) for one in (dense, rows) for group in one.param_groups for p in group["params"]]
    assert sorted(every) == sorted(id(p) for p in model.parameters())  # each once


def test_gradients_are_clipped_to_a_common_norm_sparse_ones_too() -> None:
    dense = torch.nn.Parameter(torch.zeros(3))
    table = torch.nn.Parameter(torch.zeros(5, 2))
    dense.grad = torch.tensor([0.0, 3.0, 0.0])
    index = torch.tensor([[1, 1]])  # one row, in two parts: its gradient is their sum
    table.grad = torch.sparse_coo_tensor(
        index, torch.tensor([[1.0, 0.0], [3.0, 0.0]]), (5, 2), check_invariants=True
    )
    assert clip([dense, table], 1.0) == pytest.approx(5.0)
    torch.testing.assert_close(dense.grad, torch.tensor([0.0, 0.6, 0.0]), atol=1e-5, rtol=0)
    torch.testing.assert_close(table.grad.to_dense()[1], torch.tensor([0.8, 0.0]), atol=1e-5, rtol=0)
    assert clip([dense, table], 9.0) == pytest.approx(1.0, abs=1e-5)  # below: as it is
    torch.testing.assert_close(dense.grad[1], torch.tensor(0.6), atol=1e-5, rtol=0)


def test_the_rate_rises_and_falls_and_that_of_tables_goes_its_own_way() -> None:
    options = LoopOptions(steps=100, rate=1.0, warmup=0.1, final=0.1, rows_rate=4.0, rows_rate_end=1.0)
    rates = [rate_at(step, options) for step in range(100)]
    assert rates[0] == (pytest.approx(0.1), pytest.approx(0.4))
    assert rates[10][0] == 1
    assert rates[-1][0] == pytest.approx(0.1, abs=0.01)
    assert rates[50][1] / rates[50][0] == pytest.approx(2.5)
    assert max(rate for rate, _ in rates) == 1


@pytest.mark.parametrize("wrong", [{"steps": 0}, {"batch": 2.5}, {"warmup": 2.0}, {"lr": 1e-3}], ids=str)
def test_wrong_options_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidOption, match=next(iter(wrong))):
        LoopOptions.read(wrong)


def test_a_task_without_labels_in_a_part_is_no_trouble() -> None:
    given = Made(Needle(), {}, evaluated=8, seed=0)
    model = build(ModelOptions(layers=("lstm",), dim=8), given.vocabulary, 0)
    row = train(model, given, replace(LOOP, steps=2, micro=1)).history[-1]
    assert row["loss"] > 0
