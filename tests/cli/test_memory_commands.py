"""`mnemic memory` with a tiny model in a folder, and a chat on what it has learned."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
from learners import ALL_MAPS, STATEMENTS, learner
from terminal import Run

import mnemic
from language_models import needs_torch, tiny_llama

pytestmark = needs_torch
pytest.importorskip("peft")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "tiny"
    learner().model.save_pretrained(folder)
    learner().tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def vault(tmp_path: Path) -> Path:
    path = tmp_path / "codes.db"
    with mnemic.open(path) as memory:
        for text in STATEMENTS[:3]:
            memory.add(text, user="ana")
    return path


@pytest.fixture
def easy(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a model of random weights needs to learn in a second."""
    from mnemic.parametric import gate, lora_training

    settings = {"targets": ALL_MAPS, "learning_rate": 2e-2, "batch": 16, "rehearsed": 0, "keep": 0.0}
    plain, demands = lora_training.Recipe, gate.Gate
    monkeypatch.setattr(lora_training, "Recipe", lambda **given: plain(**{"epochs": 40, **settings, **given}))
    monkeypatch.setattr(
        gate,
        "Gate",
        lambda **given: demands(**{"candidates": 10, "perplexity": 3.0, "learned": 0.3, **given}),
    )


@pytest.mark.usefixtures("easy")
def test_compile_list_inspect_tune_and_drop(run: Run, vault: Path, model: Path, tmp_path: Path) -> None:
    said = run("memory", "compile", "--model", model, "--no-control", "--title", "codes", vault=vault)
    assert said.code == 0
    assert "learned 3 cubes" in said.out
    assert "held-out questions right" in " ".join(said.out.split())
    assert "mnemic chat --model" in said.err
    (listed,) = run("memory", "list", "--json", vault=vault).json
    assert (listed["form"], listed["title"], listed["current"]) == ("lora", "codes", True)
    assert "codes" in run("memory", "list", vault=vault).out
    id = listed["id"]

    shown = run("memory", "inspect", id[-8:], "--probe", "--model", model, vault=vault).out
    assert "0% of them changed or gone since" in " ".join(shown.split())
    assert "The code of Ida is 2839." in shown
    assert "the weights say" in shown
    run("memory", "inspect", id, "--export", tmp_path / "peft", vault=vault)
    assert json.loads((tmp_path / "peft" / "adapter_config.json").read_text())["peft_type"] == "LORA"

    chat = run(
        "chat", "--model", model, "--memory", id, "--json", vault=vault, input="What is the code of Ida?\n"
    )
    assert "2839" in json.loads(chat.out)["reply"]

    run("update", listed["sources"][0], "The code of Ida is 5501.", vault=vault)
    assert "not served" in run("memory", "list", vault=vault).out
    refused = run("chat", "--model", model, "--memory", id, vault=vault, input="hi\n")
    assert refused.code == 2
    assert "is not current" in refused.err
    tuned = run("memory", "tune", id, "--model", model, "--no-control", "--json", vault=vault).json
    assert tuned["current"]
    assert tuned["id"] != id
    assert len(run("memory", "list", "--json", vault=vault).json) == 1

    run("delete", listed["sources"][1], vault=vault)
    assert run("memory", "drop", "--stale", "--json", vault=vault).json["dropped"] == 1
    assert run("memory", "list", vault=vault).err.startswith("there are none")
    assert len(run("list", "--json", vault=vault).json["cubes"]) >= 2


def test_a_searched_memory_is_made_tuned_and_asked(
    run: Run, vault: Path, model: Path, tmp_path: Path
) -> None:
    pytest.importorskip("faiss")
    text = tmp_path / "text.txt"
    text.write_text(" ".join(STATEMENTS))
    words = ["memory", "compile", "--form", "exact", "--model", model]
    refused = run("memory", "compile", "--form", "ivfpq", "--model", model, vault=vault)
    assert refused.code == 2
    assert "must divide the width 32" in refused.err
    made = run(*words, "--text", text, "--json", vault=vault).json
    assert made["form"] == "exact"
    assert made["report"]["lam"] > 0
    shown = " ".join(run("memory", "inspect", made["id"], vault=vault).out.split())
    assert "beside the model; perplexity by weight 0:" in shown
    tuned = run("memory", "tune", made["id"], "--text", text, "--model", model, "--json", vault=vault).json
    assert tuned["report"]["lam"] == made["report"]["lam"]
    chat = run("chat", "--model", model, "--memory", tuned["id"], "--json", vault=vault, input="hi\n")
    assert chat.out, chat.err
    assert isinstance(json.loads(chat.out)["reply"], str)


def test_what_cannot_be_is_refused(run: Run, vault: Path, model: Path) -> None:
    assert run("memory", "drop", vault=vault).code == 2
    assert run("memory", "drop", "0" * 32, vault=vault).code == 2
    text = run("list", "--json", vault=vault).json["cubes"][0]["id"]
    assert "not a parametric memory" in run("memory", "inspect", text, vault=vault).err
    assert run("memory", "compile", "--model", model, vault=vault, user="bo").code == 2
    assert run("chat", "--memory", text, vault=vault).code == 2
    failed = run("memory", "compile", "--model", model, "--no-control", "--epochs", "1", vault=vault)
    assert failed.code == 2
    assert "was not stored" in failed.err


def test_options_of_another_form_are_refused_and_not_ignored(run: Run, vault: Path, model: Path) -> None:
    words = ["memory", "compile", "--model", model]
    for given, named in (
        (["--form", "exact", "--epochs", "3"], "--epochs: not for a memory of the form exact"),
        (["--form", "mlp", "--rank", "4", "--no-control"], "--rank and --control: not for"),
        (["--form", "lora", "--text", vault], "--text: not for a memory of the form lora"),
        (["--form", "magic"], "must be one of lora, exact, ivfpq, mlp, not 'magic'"),
    ):
        said = run(*words, *given, vault=vault)
        assert said.code == 2
        assert named in " ".join(said.err.replace("│", "").split())
    assert run("memory", "list", "--json", vault=vault).json == []
    made = run(*words, "--form", "mlp", "--epochs", "2", "--json", vault=vault).json
    assert made["recipe"]["options"]["compile"]["epochs"] == 2
    refused = run("memory", "tune", made["id"], "--epochs", "3", "--model", model, vault=vault)
    assert refused.code == 2
    assert run("memory", "list", "--json", vault=vault).json[0]["id"] == made["id"]


def test_what_one_model_has_learned_is_not_lost_to_another_unasked(
    run: Run, vault: Path, model: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    tiny_llama(seed=1).model.save_pretrained(other)
    learner().tokenizer.save_pretrained(other)
    made = run("memory", "compile", "--form", "exact", "--model", model, "--json", vault=vault).json
    for words in (
        ["memory", "tune", made["id"], "--model", other],
        ["chat", "--model", other, "--memory", made["id"]],
    ):
        refused = run(*words, vault=vault, input="hi\n")
        assert refused.code == 2
        assert "other weights" in refused.err
    assert "--yes" in run("memory", "tune", made["id"], "--model", other, vault=vault).err
    assert run("memory", "list", "--json", vault=vault).json[0]["id"] == made["id"]
    tuned = run("memory", "tune", made["id"], "--model", other, "--yes", "--json", vault=vault).json
    assert [one["id"] for one in run("memory", "list", "--json", vault=vault).json] == [tuned["id"]]
    for words in (["inspect"], ["drop"], ["tune", "--model", other]):
        gone = run("memory", words[0], made["id"], *words[1:], vault=vault)
        assert gone.code == 2
        assert "was dropped" in gone.err


@pytest.mark.slow
@pytest.mark.parametrize("form", ["lora", "mlp"])
def test_a_training_that_was_killed_leaves_nothing_behind(
    run: Run, vault: Path, model: Path, form: str
) -> None:
    """And two at once do not disturb one another."""
    words = [sys.executable, "-m", "mnemic", "memory", "compile", "--vault", str(vault), "--user", "ana"]
    words += ["--model", str(model)]
    with mnemic.open(vault) as memory:
        folder = memory._parts.vault.blobs.folder
    killed = subprocess.Popen([*words, "--form", form, "--epochs", "1000000"], stdout=subprocess.DEVNULL)
    time.sleep(12)
    assert killed.poll() is None
    killed.kill()
    killed.wait()
    assert run("memory", "list", "--json", vault=vault).json == []
    assert folder is not None
    assert [one for one in folder.rglob("*") if one.is_file()] == []
    both = [subprocess.Popen([*words, "--form", "mlp", "--title", title]) for title in ("a", "b")]
    assert [one.wait() for one in both] == [0, 0]
    found = run("memory", "list", "--json", vault=vault).json
    assert sorted(one["title"] for one in found) == ["a", "b"]
    assert all(one["current"] for one in found)
    assert "sound" in run("doctor", vault=vault).out
