"""What a command refuses: one message that says what to do, exit code 2, nothing written."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from terminal import TOLD, Run, lines

import mnemic
from mnemic.cli.ending import code_of
from mnemic.cube import errors

GONE = "0123456789abcdef0123456789abcdef"
REFUSED = [
    # words, error, what the message says
    (["add", ""], "InvalidText", "empty"),
    (["add", "x", "--at", "yesterday"], "InvalidTime", "ISO 8601"),
    (["add", "x", "--role", "robot"], "InvalidInput", "assistant"),
    (["add", "x", "--metadata", "city"], "Usage", "KEY=VALUE"),
    (["add", "x", "--lines"], "Usage", "--lines goes with standard input"),
    (["add", "other words", "--id", "1", "--session", "s1"], "IdempotencyConflict", "update"),
    (["add"], "Usage", "Missing argument"),
    (["import", "nowhere.jsonl"], "InvalidFile", "does not exist"),
    (["import", "told.jsonl", "--format", "fax"], "InvalidOption", "chatgpt"),
    (["import", "told.jsonl", "--timezone", "Mars/Olympus"], "Usage", "Europe/Lisbon"),
    (["import", "told.jsonl", "--day-first"], "InvalidOption", "whatsapp"),
    (["import", "told.jsonl", "--skipped", "/nowhere/x"], "FileNotFoundError", "/nowhere/x"),
    (["import", "broken.json"], "InvalidFile", "broken.json"),
    (["search", "  "], "InvalidText", "empty"),
    (["search", "x", "-k", "0"], "Usage", "-k"),
    (["search", "x", "--where", "{"], "Usage", "not JSON"),
    (["search", "x", "--where", "[]"], "Usage", "JSON object"),
    (["search", "x", "--where", '{"colour": 1}'], "InvalidFilter", "labels"),
    (["search", "x", "--asked-at", "noon"], "InvalidTime", "ISO 8601"),
    (["search", "x", "--everyone", "--user", "bo"], "Usage", "cannot go together"),
    (["search", "x", "--embedder", "nosuch"], "InvalidOption", "static"),
    (["search", "x", "--frobnicate"], "Usage", "No such option"),
    (["context", "x", "--budget", "0"], "Usage", "--budget"),
    (["context", "x", "--budget", "2"], "BudgetTooSmall", "budget"),
    (["context", "x", "--strategy", "magic"], "InvalidOption", "hybrid"),
    (["list", "--after", "nonsense"], "InvalidOption", "nonsense"),
    (["show", "zzzz"], "InvalidOption", "0-9 and a-f"),
    (["show", "0"], "InvalidOption", "4 to 32"),
    (["show", GONE], "NotFound", "mnemic list"),
    (["update", GONE, "x"], "NotFound", "no cube"),
    (["delete", GONE], "NotFound", "no cube"),
    (["history", GONE], "NotFound", "no cube"),
    (["export-jsonl", "--json"], "Usage", "-o FILE"),
    (["export-jsonl", "-o", "/nowhere/out.jsonl"], "FileNotFoundError", "/nowhere/out.jsonl"),
    (["frobnicate"], "Usage", "No such command"),
]
NAMES = [" ".join(words) for words, _, _ in REFUSED]


@pytest.fixture
def desk(vault: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a vault, a file to import and a broken one."""
    monkeypatch.chdir(vault.parent)
    lines(vault.parent / "told.jsonl", *TOLD)
    (vault.parent / "broken.json").write_text('{"mapping": [')
    return vault


@pytest.mark.parametrize(("words", "error", "says"), REFUSED, ids=NAMES)
def test_refused(run: Run, desk: Path, words: list[str], error: str, says: str) -> None:
    before = run("list", "--json", vault=desk).out
    said = run(*words, vault=desk)
    plain = " ".join(said.err.replace("│", " ").split())  # as a terminal would fold it
    assert (said.code, said.out) == (2, "")
    assert says in plain
    assert "Traceback" not in said.err
    as_json = run(*words, *([] if "--json" in words else ["--json"]), vault=desk)
    assert (as_json.code, as_json.out) == (2, "")
    found = json.loads(as_json.err)
    assert found["error"] == error
    assert says in found["message"]
    assert run("list", "--json", vault=desk).out == before


@pytest.mark.parametrize(
    "words", [["search", "x"], ["add", "x"], ["list"], ["chat"], ["export-jsonl"]], ids=str
)
def test_no_name_no_memory(run: Run, vault: Path, words: list[str]) -> None:
    said = run(*words, vault=vault, user=None)
    assert said.code == 2
    assert "--user NAME" in " ".join(said.err.replace("│", " ").split())


@pytest.mark.parametrize(
    "words", [["search", "x"], ["stats"], ["reembed"], ["show", GONE], ["ask", "x"]], ids=str
)
def test_reading_makes_no_vault_out_of_a_mistyped_path(run: Run, tmp_path: Path, words: list[str]) -> None:
    said = run(*words, vault=tmp_path / "typo.db")
    assert said.code == 2
    assert "there is no vault at" in said.err
    assert "--vault" in said.err
    assert not (tmp_path / "typo.db").exists()


def test_an_empty_home_says_how_to_begin(run: Run) -> None:
    said = run("search", "x")
    assert said.code == 2
    assert 'mnemic add "…" --user NAME' in said.err


def not_sqlite(path: Path) -> None:
    path.write_text("Dear diary")


def foreign(path: Path) -> None:
    with closing(sqlite3.connect(path)) as other, other:
        other.execute("CREATE TABLE invoice (number INTEGER)")


def newer(path: Path) -> None:
    with closing(sqlite3.connect(path)) as target, target:
        target.execute("UPDATE meta SET value = ? WHERE key = 'format'", (b"99",))


@pytest.mark.parametrize(
    ("spoil", "error"), [(not_sqlite, "NotAVault"), (foreign, "NotAVault"), (newer, "VaultTooNew")]
)
def test_a_file_that_is_no_vault_of_ours_is_left_as_it_is(
    run: Run, vault: Path, tmp_path: Path, spoil: object, error: str
) -> None:
    path = vault if spoil is newer else tmp_path / "other.db"
    spoil(path)  # type: ignore[operator]
    before = path.read_bytes()
    for words in (["search", "x"], ["add", "x"]):
        said = run(*words, "--json", vault=path)
        assert (said.code, json.loads(said.err)["error"]) == (2, error)
    assert path.read_bytes() == before


def test_two_ids_that_end_alike_are_named(run: Run, vault: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    same = [bytes.fromhex("01" * 14 + "abcd"), bytes.fromhex("02" * 14 + "abcd")]
    monkeypatch.setattr("mnemic.upkeep.cube_ids", lambda *_: same)
    said = run("show", "abcd", vault=vault)
    assert said.code == 2
    assert "2 ids end in 'abcd'" in said.err


def test_another_embedder_names_the_command_that_changes_it(
    run: Run, vault: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Other:
        name, dim, inline = "other", 4, True

        def embed(self, texts: list[str]) -> list[list[float]]:
            return [[1.0, 0.0, 0.0, 0.0] for _ in texts]

    monkeypatch.setattr("mnemic.cli.opening.Place.make_embedder", lambda _: Other())
    said = run("search", "x", vault=vault)
    assert said.code == 2
    assert "mnemic reembed" in said.err


def test_a_fault_of_ours_is_called_so(run: Run, vault: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def breaks(*_: object, **__: object) -> None:
        raise RuntimeError("boom")

    monkeypatch.setattr(mnemic.Memory, "search", breaks)
    said = run("search", "x", vault=vault)
    assert said.code == 70
    assert "a fault of mnemic, not yours: RuntimeError: boom" in said.err
    assert "MNEMIC_DEBUG=1" in said.err
    monkeypatch.setenv("MNEMIC_DEBUG", "1")
    with pytest.raises(RuntimeError, match="boom"):
        run("search", "x", vault=vault)


def test_errors_that_nobody_raised_yet_end_the_same_way() -> None:
    named = [kind for kind in vars(errors).values() if isinstance(kind, type)]
    kinds = [kind for kind in named if issubclass(kind, errors.MnemicError)]
    assert len(kinds) > 15
    assert {code_of(kind.__new__(kind, "what to do"), as_json=True) for kind in kinds} == {2}
