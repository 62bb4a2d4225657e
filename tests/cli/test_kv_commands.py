"""`mnemic kv` and a chat that starts from what a model has read, with a tiny model in a folder."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from terminal import Run

import mnemic
from language_models import needs_smollm2, needs_torch, tiny_llama
from mnemic.models.gguf import cache_folder

pytestmark = needs_torch
CONVERTED = cache_folder()  # before a test has a home of its own


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "tiny"
    made = tiny_llama()
    made.model.save_pretrained(folder)
    made.tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def kv(run: Run, vault: Path, model: Path) -> str:
    made = run("kv", "build", "--model", model, "--title", "profile", "--json", vault=vault).json
    return str(made["id"])


def test_build_says_what_it_read_and_how_to_use_it(run: Run, vault: Path, model: Path) -> None:
    said = run("kv", "build", "--model", model, "--storage", "int8", vault=vault)
    assert said.code == 0
    assert "local:tiny read" in said.out
    assert "tokens of 4 cubes" in said.out
    assert "off by at most" in said.out
    assert "mnemic chat --model" in said.err
    some = run("kv", "build", "--model", model, "--where", '{"name": "Tom"}', "--json", vault=vault).json
    assert len(some["sources"]) == 2
    assert some["current"]
    one = run("kv", "build", "--model", model, "--id", some["sources"][0][-8:], "--json", vault=vault).json
    assert one["sources"] == some["sources"][:1]
    assert one["tokens"] < some["tokens"]


def test_list_and_inspect_show_what_it_is_and_why_it_is_not_served(run: Run, vault: Path, kv: str) -> None:
    assert "profile" in run("kv", "list", vault=vault).out
    (listed,) = run("kv", "list", "--json", vault=vault).json
    assert (listed["id"], listed["title"], listed["current"]) == (kv, "profile", True)
    assert listed == run("kv", "inspect", kv[-8:], "--json", vault=vault).json
    shown = run("kv", "inspect", kv[-8:], vault=vault).out
    assert "weights" in shown
    assert "I am allergic to walnuts." in shown
    source = listed["sources"][0]
    run("update", source, "I moved to Braga.", vault=vault)
    assert "not served" in run("kv", "list", vault=vault).out
    assert f"its source {source} was updated" in run("kv", "inspect", kv, vault=vault).out
    assert run("kv", "list", vault=vault, user="bo").err.startswith("there are none")
    assert len(run("kv", "list", "--everyone", "--json", vault=vault).json) == 1


def test_verify_finds_damage_and_orphans_and_drops_what_is_stale(
    run: Run, vault: Path, kv: str, model: Path
) -> None:
    clean = run("kv", "verify", "--json", vault=vault).json
    assert (clean["checked"], clean["wrong"], clean["orphans_removed"]) == (1, {}, 0)
    with mnemic.open(vault) as memory:
        folder = memory._parts.vault.blobs.folder
        cube = memory.get(kv)
    assert folder is not None
    orphan = folder / ("0" * 64)
    orphan.write_bytes(b"left by a build that was killed")
    os.utime(orphan, (0, 0))
    assert run("kv", "verify", "--json", vault=vault).json["orphans_removed"] == 1
    assert not orphan.exists()
    assert cube.blob is not None
    path = folder / cube.blob.id
    content = path.read_bytes()
    path.write_bytes(content[:-1])
    broken = run("kv", "verify", vault=vault)
    assert broken.code == 1
    assert "is not a sound KV memory" in broken.out
    assert run("chat", "--model", model, "--kv", kv, vault=vault).code == 2
    path.write_bytes(content)
    run("delete", cube.header.sources[0].cube_id, vault=vault)
    dropped = run("kv", "verify", "--drop-stale", "--json", vault=vault).json
    assert (dropped["dropped"], dropped["bytes_freed"]) == (1, len(content))
    assert not path.exists()
    assert run("kv", "list", "--json", vault=vault).json == []


def test_drop_frees_the_file_and_keeps_the_texts(run: Run, vault: Path, kv: str) -> None:
    assert "MB freed" in run("kv", "drop", kv[-8:], vault=vault).out
    assert run("kv", "list", "--json", vault=vault).json == []
    assert len(run("list", "--json", vault=vault).json["cubes"]) == 4
    again = run("kv", "drop", kv, vault=vault)
    assert again.code == 2
    assert "was dropped" in again.err
    assert run("kv", "inspect", "0" * 32, vault=vault).code == 2


def test_a_chat_starts_from_it_remembers_and_ends_its_use_when_a_source_changes(
    run: Run, vault: Path, kv: str, model: Path
) -> None:
    said = run("chat", "--model", model, "--kv", kv[-8:], "--json", vault=vault, input="hi\nand?\n")
    first, second = (json.loads(line) for line in said.out.splitlines())
    assert first["said"] == "hi"
    assert first["context"] is None
    assert first["seconds"] > 0
    assert isinstance(second["reply"], str)
    with mnemic.open(vault) as memory:
        told = [cube.text for cube in memory.list(user="ana", where={"role": "user"})]
        assert told[-2:] == ["hi", "and?"]
    with_context = run(
        "chat", "--model", model, "--kv", kv, "--budget", "300", "--json", vault=vault, input="walnuts?\n"
    )
    assert 0 < json.loads(with_context.out)["context"]["tokens"] <= 300
    source = run("kv", "inspect", kv, "--json", vault=vault).json["sources"][1]
    run("update", source, "How is your new dog?", vault=vault)
    refused = run("chat", "--model", model, "--kv", kv, vault=vault, input="hi\n")
    assert refused.code == 2
    assert "is not current" in refused.err


def test_what_cannot_be_is_refused(run: Run, vault: Path, kv: str, model: Path) -> None:
    assert run("chat", "--kv", kv, vault=vault).code == 2
    assert run("chat", "--kv", kv, "--model", model, "--base-url", "http://x/v1", vault=vault).code == 2
    text = run("list", "--json", vault=vault).json["cubes"][0]["id"]
    assert "not a KV memory" in run("kv", "inspect", text, vault=vault).err
    assert "nosuch" in run("kv", "build", "--model", "nosuch", vault=vault).err
    assert run("kv", "build", "--model", model, vault=vault, user="bo").code == 2


def test_ask_with_a_model_of_this_process(run: Run, vault: Path, model: Path) -> None:
    said = run("ask", "who is allergic?", "--model", model, "--budget", "600", "--json", vault=vault)
    assert said.code == 0
    assert said.json["answer"]["method"] == "local:tiny" if "answer" in said.json else said.json["method"]
    assert said.json["usage"]["input_tokens"] > 50


@needs_smollm2
def test_smollm2_answers_offline(run: Run, vault: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The converted model stays where it is; everything else is the tester's own."""
    monkeypatch.setattr("mnemic.models.gguf.cache_folder", lambda: CONVERTED)
    words = ["ask", "what is Tom allergic to?", "--model", "smollm2", "--budget", "300", "--json"]
    said = run(*words, vault=vault).json
    assert said["method"] == "smollm2"
    assert "walnut" in said["text"]
