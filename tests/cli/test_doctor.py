"""The doctor on sound and broken vaults: what it finds, and what it says to do."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from terminal import TOLD, Run

import mnemic


def sql(path: Path, statement: str, *values: object) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("PRAGMA foreign_keys = OFF")
        assert connection.execute(statement, values).rowcount != 0, "the fault was not made"


def examine(run: Run, path: Path) -> tuple[int, dict[str, Any]]:
    """The exit code, and findings by check; the last where a check has several."""
    said = run("doctor", path, "--json")
    found = json.loads(said.out)
    assert found["sound"] == (said.code == 0)
    return said.code, {one["check"]: one for one in found["findings"]}


def test_a_sound_vault_passes_every_check(run: Run, vault: Path) -> None:
    before = vault.read_bytes()
    code, found = examine(run, vault)
    assert code == 0
    names = ["file", "disk", "durability", "format", "structure", "content", "background"]
    assert list(found) == [*names, "features", "embedder", "index"]
    assert {one["status"] for name, one in found.items() if name not in ("disk", "background")} == {"fine"}
    assert found["background"]["status"] != "wrong", "what was just told may still have to be read for facts"
    assert "synchronous FULL" in found["durability"]["says"]
    assert "all 4 versions match" in found["content"]["says"]
    said = run("doctor", vault=vault)
    assert said.out.endswith("this memory is sound\n")
    assert vault.read_bytes() == before


def test_a_new_vault_without_content_is_sound(run: Run, tmp_path: Path) -> None:
    mnemic.open(tmp_path / "new.db").close()
    assert examine(run, tmp_path / "new.db")[0] == 0


FAULTS: list[tuple[str, str, str]] = [
    # a statement, the check that finds it, what it says
    ("UPDATE version SET payload = X'4c69657321' WHERE seq = 1", "content", "1 versions do not say"),
    (
        "UPDATE version SET header = replace(header, 'Tom', 'Bob') WHERE seq = 2",
        "content",
        "1 versions do not",
    ),
    ("UPDATE version SET header = X'7b' WHERE seq = 3", "content", "1 versions do not say"),
    ("UPDATE version SET header = X'5b5d' WHERE seq = 3", "content", "1 versions do not say"),
    ("UPDATE version SET blob = X'00' WHERE seq = 3", "content", "1 versions do not say"),
    ("DELETE FROM version WHERE seq = 4", "structure", "whose current version is missing"),
    ("UPDATE cube SET deleted = 1 WHERE head_seq = 1", "structure", "about being deleted"),
    ("DELETE FROM cube WHERE head_seq = 1", "structure", "versions without a cube"),
    ("UPDATE space SET last_seq = 2", "structure", "beyond the end of their log"),
    ("DELETE FROM change", "structure", "no change accounts for"),
    ("DELETE FROM scope", "structure", "scope that is not listed"),
]


@pytest.mark.parametrize(("fault", "check", "says"), FAULTS, ids=[fault for fault, _, _ in FAULTS])
def test_what_changed_behind_our_back_is_found(
    run: Run, vault: Path, fault: str, check: str, says: str
) -> None:
    sql(vault, fault)
    said = run("doctor", vault, "--json")
    assert said.code == 1
    wrong = [one for one in said.json["findings"] if one["status"] == "wrong"]
    assert any(one["check"] == check and says in one["says"] for one in wrong), wrong
    assert all("backup" in one["advice"] for one in wrong if one["check"] == check)


def test_an_audit_log_that_was_altered_is_found(run: Run, vault: Path) -> None:
    assert "audit" not in examine(run, vault)[1], "there is none yet"
    run("audit", "start", vault=vault)
    run("add", "one more", "--user", "ana", vault=vault)
    code, found = examine(run, vault)
    assert code == 0
    assert "rows is whole" in found["audit"]["says"]
    sql(vault, "UPDATE audit SET verb = 'read' WHERE n = 2")
    code, found = examine(run, vault)
    assert code == 1
    assert "row 2 does not fit" in found["audit"]["says"]


def test_missing_features_are_named_and_reembed_makes_them(run: Run, vault: Path) -> None:
    sql(vault, "DELETE FROM feature WHERE seq = 1")
    code, found = examine(run, vault)
    assert code == 1
    assert found["features"]["advice"].startswith("mnemic reembed")
    assert run("reembed", vault, "--json").json["features"] == 2
    assert examine(run, vault)[0] == 0
    assert (
        run("search", "Porto", "-k", "1", "--json", vault=vault).json["hits"][0]["text"] == TOLD[0]["content"]
    )


def test_features_of_other_words_are_noticed(run: Run, vault: Path) -> None:
    with closing(sqlite3.connect(vault)) as connection, connection:
        (data,) = connection.execute("SELECT data FROM feature WHERE seq = 1").fetchone()
        connection.execute("UPDATE feature SET data = ? WHERE seq = 2", (data,))
    code, found = examine(run, vault)
    assert code == 1
    assert "get other features now" in found["embedder"]["says"]


def test_damaged_pages_are_found_and_no_command_shows_a_traceback(run: Run, vault: Path) -> None:
    content = bytearray(vault.read_bytes())
    content[8192 : len(content) // 2] = bytes(len(content) // 2 - 8192)
    vault.write_bytes(content)
    code, found = examine(run, vault)
    assert code == 1
    assert found["file"]["status"] == "wrong"
    assert "backup" in found["file"]["advice"]
    for words in (["search", "x"], ["stats"], ["export-jsonl"], ["list"]):
        said = run(*words, vault=vault)
        assert said.code in (0, 2), said
        assert "a fault of mnemic" not in said.err


def text(path: Path) -> None:
    path.write_text("Dear diary")


def foreign(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE invoice (number INTEGER)")


def newer(path: Path) -> None:
    mnemic.open(path).close()
    sql(path, "UPDATE meta SET value = ? WHERE key = 'format'", b"99")


@pytest.mark.parametrize(
    ("make", "says", "advice"),
    [
        (text, "not an SQLite file", "another program's file"),
        (foreign, "other tables (invoice)", "another program's file"),
        (newer, "format 99", "pip install --upgrade mnemic"),
        (Path.touch, "is empty", "mnemic add"),
        (Path.mkdir, "is a folder", "check the path"),
        (Path.exists, "does not exist", "mnemic add"),
    ],
    ids=["text", "foreign", "newer", "empty", "folder", "missing"],
)
def test_what_is_no_vault(
    run: Run, tmp_path: Path, make: Callable[[Path], object], says: str, advice: str
) -> None:
    path = tmp_path / "other.db"
    make(path)
    there = sorted(tmp_path.iterdir())
    content = path.read_bytes() if path.is_file() else b""
    said = run("doctor", path, "--json")
    assert said.code == 1
    last = said.json["findings"][-1]
    assert last["status"] == "wrong"
    assert says in last["says"]
    assert advice in last["advice"]
    assert sorted(tmp_path.iterdir()) == there
    assert (path.read_bytes() if path.is_file() else b"") == content


AS_NOBODY = """
import os, sys, tempfile
import mnemic
from mnemic.doctor import examine
with tempfile.TemporaryDirectory() as warm:  # what is imported late is imported while it may be
    with mnemic.open(os.path.join(warm, "a.db")) as memory:
        memory.add("x", user="ana")
    list(examine(os.path.join(warm, "a.db")))
if os.geteuid() == 0:
    os.setgroups([]); os.setgid(65534); os.setuid(65534)
for one in examine(sys.argv[1]):
    print(one.status, one.check, one.says, one.advice)
"""


@pytest.mark.skipif(os.name != "posix", reason="permissions are POSIX")
def test_a_vault_that_may_not_be_written() -> None:
    with tempfile.TemporaryDirectory(prefix="mnemic-shelf-") as shelf:  # open to all, unlike pytest's own
        path = Path(shelf) / "a.db"
        with mnemic.open(path) as memory:
            memory.add("Kept.", user="ana")
        path.chmod(0o444)
        Path(shelf).chmod(0o555)
        command = [sys.executable, "-c", AS_NOBODY, str(path)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        Path(shelf).chmod(0o755)
    assert f"wrong file {path} or its folder is not writable" in done.stdout
    assert "wrong opens" in done.stdout
    assert "give yourself the right to write" in done.stdout


def test_background_work_that_is_not_done_is_found(run: Run, vault: Path) -> None:
    with mnemic.open(vault) as memory:
        memory.flush()
    assert examine(run, vault)[1]["background"]["status"] == "fine"
    columns = "tenant, job, space, kind, args, asked, asked_at, run_after, lease_until, attempts, dead, error"
    values = "'default', x'00000000000070008000000000000000', 1, 'rebuild', x'7b7d', 1, 1, 1, 0, 6, 1, ?"
    with closing(sqlite3.connect(vault)) as connection, connection:
        connection.execute(f"INSERT INTO job ({columns}) VALUES ({values})", (b"no luck",))  # noqa: S608 our own names
    code, found = examine(run, vault)
    assert code == 1
    assert "no luck" in found["background"]["says"]
    assert "--rerun all" in found["background"]["advice"]
    assert run("jobs", vault=vault).code == 1
    assert run("jobs", "--rerun", "all", vault=vault).code == 0
    assert examine(run, vault)[1]["background"]["status"] == "fine"
