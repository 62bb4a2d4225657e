"""`mnemic train`: a model from text and from a task, stopped and gone on with, and what is refused."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from terminal import Run

from language_models import needs_torch

pytestmark = needs_torch
SMALL = ("--dim", 16, "--batch", 4)


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    folder = tmp_path / "texts"
    folder.mkdir()
    (folder / "story.txt").write_text("".join(f"Day {n}: the ship went on to Porto.\n" for n in range(400)))
    return folder


def config(folder: Path, **training: object) -> Path:
    path = folder.parent / "run.json"
    data = {"train": ".", "vocabulary": 280, "length": 16, "evaluated": 8}
    path.write_text(
        json.dumps({"data": data, "training": {"evaluate_every": 4, "save_every": 4, **training}})
    )
    return path


def test_a_language_model_from_a_folder_of_text(run: Run, texts: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    words = ["train", "lm", "--data", texts, "--config", config(texts), "--layer", "window,window=4",
             "--memory", "ultramem,keys=4,topm=2", *SMALL, "--out", tmp_path / "out"]  # fmt: skip
    said = run(*words, "--steps", 8)
    assert said.code == 0, said.err
    assert "perplexity" in said.out
    assert "active for a token" in said.err
    assert "step 4:" in said.err
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out" / "model")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out" / "model")
    assert model.config.memory == {"layer": "ultramem", "keys": 4, "topm": 2}
    asked = tokenizer("Day 3: the", return_tensors="pt")
    out = model.generate(asked.input_ids, attention_mask=asked.attention_mask, max_new_tokens=4)
    assert tokenizer.decode(out[0]).startswith("Day 3: the")
    # again: nothing is left to do; other settings are another run
    again = run(*words, "--steps", 8, "--json")
    assert [row["step"] for row in again.json["evaluations"]] == [4, 8]
    assert "went on from step 8" in again.err
    refused = run(*words, "--steps", 9)
    assert refused.code == 2
    assert "training.steps is 8 there and 9 here" in " ".join(refused.err.split())
    assert run(*words, "--steps", 4, "--fresh").code == 0


def test_a_run_that_is_interrupted_keeps_the_last_whole_step(
    start: Callable[..., subprocess.Popen[bytes]], run: Run, texts: Path, tmp_path: Path
) -> None:
    """A real process and a real signal; and nobody else in its folder."""
    from mnemic.layers.state import read_header

    words = ["train", "lm", "--data", texts, "--config", config(texts), *SMALL, "--out", tmp_path / "out"]
    process = start(*words, "--steps", 100_000)
    end = time.monotonic() + 100
    while not (tmp_path / "out" / "log.jsonl").exists() and time.monotonic() < end:
        time.sleep(0.05)
    refused = run(*words, "--steps", 100_000)  # meanwhile, in the same folder
    assert refused.code == 2
    assert "another run is training in" in " ".join(refused.err.split())
    assert run(*words, "--steps", 100_000, "--fresh").code == 2
    assert (tmp_path / "out" / "checkpoint.safetensors").exists()  # and it took nothing away
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert b"the same command goes on" in err
    stopped = int(err.split(b"stopped after step ")[1].split(b";")[0].replace(b",", b""))
    assert stopped >= 4
    assert read_header((tmp_path / "out" / "checkpoint.safetensors").read_bytes())["step"] == str(stopped)


def test_a_recall_task(run: Run, tmp_path: Path) -> None:
    said = run("train", "recall", "--task", "re-binding", "--layer", "base-conv", "--layer", "delta,heads=2",
               "--steps", 3, *SMALL, "--out", tmp_path / "out", "--json")  # fmt: skip
    assert said.code == 0, said.err
    (row,) = said.json["evaluations"]
    assert 0 <= row["recall"] <= 1
    assert (tmp_path / "out" / "model" / "model.safetensors").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["lm"], "--data"),
        (["lm", "--data", "nowhere"], "no text at nowhere"),
        (["recall", "--task", "nothing"], "mqar"),
        (["recall", "--layer", "nothing"], "there is no layer"),
        (["recall", "--layer", "window,window"], "OPTION=VALUE"),
        (["recall", "--layer", "window,windw=3"], "windw"),
        (["recall", "--memory", "window"], "belongs in layers"),
        (["recall", "--config", "none.toml"], "none.toml"),
        (["recall", "--data", "books"], "--data"),
    ],
    ids=lambda one: " ".join(one) if isinstance(one, list) else "",
)
def test_what_is_wrong_is_said_and_nothing_written(
    run: Run, tmp_path: Path, words: list[str], said: str
) -> None:
    refused = run("train", *words, "--out", tmp_path / "out")
    assert refused.code == 2
    assert said in " ".join(refused.err.split())
    assert not (tmp_path / "out").exists()


def test_a_wrong_layer_is_refused_before_the_text_is_read(run: Run, tmp_path: Path) -> None:
    """A long text takes minutes to become tokens; a misspelt name need not wait for it."""
    (tmp_path / "not-utf-8.txt").write_bytes(b"\xff\xfe\x00")
    said = run("train", "lm", "--data", tmp_path, "--layer", "windoww", "--out", tmp_path / "out")
    assert said.code == 2
    assert "no layer 'windoww'" in said.err
    assert "not-utf-8" not in said.err
