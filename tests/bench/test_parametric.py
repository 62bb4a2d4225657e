"""The experiments on learned memories run on a tiny model, and their report is read as it is meant."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from learners import gate, learner, recipe
from typer.testing import CliRunner

from language_models import TEXT, needs_torch

pytestmark = needs_torch
pytest.importorskip("peft")
pytest.importorskip("faiss")


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a model of random weights can do in seconds."""
    from mnemic.bench.parametric import adapters, forms, memories

    monkeypatch.setattr(adapters, "FACTS", 4)
    monkeypatch.setattr(adapters, "RECIPE", recipe())
    monkeypatch.setattr(adapters, "Gate", lambda **told: gate(**{"learned": 0.0, **told, "perplexity": 50.0}))
    monkeypatch.setattr(forms, "RECIPES", dict.fromkeys(forms.RECIPES, recipe()))
    monkeypatch.setattr(forms, "UNRELATED_TOKENS", 64)
    monkeypatch.setattr(memories, "K", 8)
    monkeypatch.setattr(memories, "TEMPERATURES", (0.1, 1.0))


@pytest.fixture
def words(tmp_path: Path) -> list[str]:
    """`mnemic bench parametric` on a tiny model and a tiny corpus."""
    folder = tmp_path / "tiny"
    learner().model.save_pretrained(folder)
    learner().tokenizer.save_pretrained(folder)
    for name in ("valid.txt", "test.txt"):
        (tmp_path / name).write_text(TEXT * 60)
    return [
        "bench", "parametric", "--data", str(tmp_path), "--model", str(folder), "--facts", "3",
        "--tokens", "1000", "--out", str(tmp_path / "out"), "--json",
    ]  # fmt: skip


def run(words: list[str], *parts: str) -> dict[str, Any]:
    from mnemic.cli.app import app

    said = CliRunner().invoke(app, [*words, *(word for part in parts for word in ("--part", part))])
    assert said.stdout, said.output
    return dict(json.loads(said.stdout))


@pytest.mark.usefixtures("small")
def test_parts_run_and_go_on_where_they_were(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mnemic.bench.parametric import memories
    from mnemic.cli.app import app

    monkeypatch.setattr(memories, "SIZES", (300, 2400))
    found = run(words, "cost")
    assert found["cost"][1]["exact"]["bytes"] == pytest.approx(8 * found["cost"][0]["exact"]["bytes"])
    assert found["cost"][1]["mlp"]["bytes"] == found["cost"][0]["mlp"]["bytes"]
    again = run(words, "cost", "facts")
    assert again["cost"] == found["cost"]  # not measured again
    assert again["facts"]["restored"]
    assert run([*words, "--report-only"])["facts"] == again["facts"]
    assert "## A growing datastore" in (tmp_path / "out" / "parametric.md").read_text()
    assert CliRunner().invoke(app, [*words, "--part", "magic"]).exit_code != 0


def test_new_facts_are_told_apart_and_learned_layer_by_layer(words: list[str], tmp_path: Path) -> None:
    found = run(words, "layers")["layers"]
    assert [one["layer"] for one in found] == [2, 3]
    for one in found:
        assert 0 <= one["kNN"] <= 1
        assert 0 <= one["MLP"] <= 1
    report = (tmp_path / "out" / "parametric.md").read_text()
    assert "## Where a compiled memory listens" in report
    assert "| 2 of 4 | 50% |" in report


@pytest.mark.slow
@pytest.mark.usefixtures("small")
def test_adapters_erasure_and_every_form(words: list[str], tmp_path: Path) -> None:
    found = run(words, "adapters", "erasure")
    (learned,), (erased,) = found["adapters"], found["erasure"]
    assert learned["stored"]
    assert learned["weights_bit_equal"]
    assert not erased["served_after_erasure"]
    assert len(erased["rank_after"]) == 2
    assert found["forms"] == {}
    found = run(words, "forms")
    assert found["adapters"] == [learned]
    assert list(found["forms"]) == [
        "nothing",
        "text, all of it",
        "text, searched",
        "KV cube",
        "kNN",
        "MLP",
        "LoRA, 4 epochs",
        "LoRA",
    ]
    assert found["forms"]["LoRA"]["seen"] >= found["forms"]["nothing"]["seen"]
    assert found["forms"]["KV cube"]["bytes"] > found["forms"]["text, all of it"]["bytes"] > 0
    report = (tmp_path / "out" / "parametric.md").read_text()
    assert "| MemOS, E3 | passed its gate and was stored | all | 1 of 1 | yes |" in report


def test_text_and_ablation_on_a_tiny_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mnemic.bench.parametric import memories
    from mnemic.parametric.mlp import Compile

    monkeypatch.setattr(memories, "K", 8)
    monkeypatch.setattr(memories, "TEMPERATURES", (0.1, 1.0))
    local, cache = learner(), tmp_path / "keys.safetensors"
    options = Compile(blocks=1, widen=1.0, epochs=2, learning_rate=5e-3)
    found = memories.text(local, TEXT * 120, TEXT * 9, cache, tokens=800, test_tokens=100, options=options)
    assert (tmp_path / "keys-3-3.safetensors").exists()  # of these layers
    assert found["keys"] == 800
    assert found["kNN, after the corpus"][0][0] == 0.0
    gain = memories.demands({"text": found})[0]
    assert gain["met"]  # the same text over and over
    found = memories.ablation(local, TEXT * 120, TEXT * 9, cache, tokens=800, test_tokens=100, seeds=[0, 1])
    assert {mix: len(values) for mix, values in found.items()} == {"0.0": 2, "0.4": 2, "1.0": 2}


def test_the_worst_seed_decides() -> None:
    from mnemic.bench.parametric import adapters

    report: dict[str, Any] = {
        "questions": 40, "candidates": 20, "chance": 0.05, "right": 0.6, "right_base": 0.05,
        "right_control": 0.0, "perplexity": 10.5, "perplexity_base": 10.0,
    }  # fmt: skip
    good = {"stored": True, "report": report, "train_s": 100.0, "weights_bit_equal": True}
    bad = {**good, "report": {**report, "perplexity": 11.5}}
    erased = {
        "served_after_erasure": False, "rank_alone": [9, 12], "rank_before": [1, 1], "rank_after": [8, 10],
        "others_before": 0.6, "others_after": 0.58, "weights_bit_equal": True,
    }  # fmt: skip
    assert all(one["met"] for one in adapters.demands([good], [erased]))
    unmet = [one for one in adapters.demands([good, bad], [erased]) if not one["met"]]
    assert [one["what"] for one in unmet] == ["perplexity of 20 kB of unrelated text rises by"]
    kept = {**erased, "rank_after": [1, 1]}  # the weights still know it
    assert not all(one["met"] for one in adapters.demands([good], [kept]))
