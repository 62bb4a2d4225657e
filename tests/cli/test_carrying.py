"""erase, dump, load, merge, diff and key from the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from terminal import Run

import mnemic


def contents(path: Path, user: str = "ana") -> list[str]:
    with mnemic.open(path) as memory:
        return [cube.text for cube in memory.list(user=user)]


def test_erase_asks_counts_and_certifies(run: Run, vault: Path, tmp_path: Path) -> None:
    refused = run("erase", "--user", "ana", vault=vault)
    assert refused.code == 2
    assert "4 cubes with 4 versions, and 1 whole memories" in refused.err
    assert len(contents(vault)) == 4
    planned = run("erase", "--dry-run", vault=vault)
    assert (planned.code, planned.out.split(":")[0]) == (0, "would erase")
    said = run("erase", "--yes", "--reason", "she asked", "-o", tmp_path / "c.json", vault=vault)
    assert (said.code, said.err) == (0, "")
    assert "erased: 4 cubes" in said.out
    assert "reason: she asked" in said.out
    assert "not reached: copies that you made" in said.out
    certificate = json.loads((tmp_path / "c.json").read_text())
    assert (certificate["status"], certificate["cubes"], certificate["reason"]) == ("done", 4, "she asked")
    assert contents(vault) == []
    assert "Porto" not in (vault.read_bytes()).decode("latin-1")
    (entry,) = run("erase", "--list", "--json", vault=vault).json
    assert entry["id"] == certificate["id"]
    assert "finished" in run("erase", "--list", vault=vault).out
    assert run("erase", "--finish", vault=vault).out == "every erase is finished\n"


def test_erase_by_id_and_by_condition(run: Run, vault: Path) -> None:
    id = run("list", "--json", vault=vault).json["cubes"][0]["id"]
    done = run("erase", id[-8:], "--yes", "--json", vault=vault).json
    assert (done["cubes"], done["spaces"]) == (1, 0)
    done = run("erase", "--where", '{"name": "Tom"}', "--yes", "--json", vault=vault).json
    assert done["cubes"] == 2
    assert contents(vault) == ["She sleeps all day and snores."]


def test_erase_that_is_pending_says_so_in_its_exit_code(run: Run, vault: Path) -> None:
    with mnemic.open(vault) as other, other._vault.snapshot() as snapshot:
        snapshot.spaces()
        said = run("erase", "--yes", vault=vault)
        assert said.code == 1
        assert "pending: a connection that still reads" in said.out
        assert run("erase", "--finish", vault=vault).code == 1
        doctor = run("doctor", vault=vault)
        assert doctor.code == 1
        assert "mnemic erase --finish" in doctor.out
    assert run("erase", "--finish", vault=vault).code == 0


def test_a_memory_goes_through_a_file_and_is_the_same(run: Run, tmp_path: Path) -> None:
    vault, file, new = tmp_path / "old.db", tmp_path / "ana.mnemic", tmp_path / "new.db"
    run("add", "-", "--lines", vault=vault, input="red boats\nblue boats\nold boats\nno boats\n")
    assert run("dump", file, vault=vault).out.startswith("4 cubes with 4 versions in ")
    again = run("dump", file, vault=vault)
    assert again.code == 2
    assert "--force" in again.err or "overwrite" in again.err
    assert run("dump", file, "--force", "--json", vault=vault).json["cubes"] == 4
    assert "4 versions stored, 4 cubes are new" in run("load", file, vault=new).out
    assert contents(new) == contents(vault)
    assert run("diff", vault, new, user=None).out == "4 cubes are the same\n"
    run("add", "Only here.", vault=new)
    differs = run("diff", file, new, user=None)
    assert differs.code == 1
    assert "1 only in the second" in differs.out
    assert "ana: Only here." in differs.out
    assert run("diff", file, new, "--json", user=None).json["only_right"][0]["right"] == "Only here."
    assert run("merge", new, "--json", vault=vault).json["stored"] == 1


def test_a_damaged_file_is_refused_in_one_message(run: Run, vault: Path, tmp_path: Path) -> None:
    file = tmp_path / "ana.mnemic"
    run("dump", file, vault=vault)
    file.write_bytes(file.read_bytes()[:-100])
    said = run("load", file, vault=tmp_path / "new.db")
    assert said.code == 2
    assert said.err.startswith("error: ")
    assert "cut short" in said.err
    assert run("load", tmp_path / "none.mnemic", vault=tmp_path / "new.db").code == 2


def test_conflicts_are_shown(run: Run, vault: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.db"
    run("load", vault, vault=other)
    id = run("list", "--json", vault=vault).json["cubes"][0]["id"]
    run("update", id, "I moved to Braga.", vault=vault)
    run("update", id, "I moved to Faro.", vault=other)
    said = run("merge", other, vault=vault)
    assert f"[{id[-8:]}] says different things on both sides" in said.err


@pytest.mark.parametrize("how", ["file", "passphrase"])
def test_an_encrypted_memory_from_the_command_line(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    vault, file = tmp_path / "v.db", tmp_path / "ana.key"
    assert run("key", "new", file).code == 0
    assert run("key", "new", file).code == 2
    variable, value = {
        "file": ("MNEMIC_KEY_FILE", str(file)), "passphrase": ("MNEMIC_PASSPHRASE", "a long passphrase")
    }[how]  # fmt: skip
    monkeypatch.setenv(variable, value)
    assert run("add", "I moved to Porto.", vault=vault).code == 0
    assert "Porto" in run("search", "Porto", vault=vault).out
    assert run("key", "check", vault=vault).out == "encrypted, and this key opens it\n"
    assert run("doctor", vault=vault).code == 0
    assert run("reembed", vault=vault).code == 0
    monkeypatch.delenv(variable)
    locked = run("search", "Porto", vault=vault)
    assert locked.code == 2
    assert "MNEMIC_KEY_FILE" in locked.err
    assert "set MNEMIC_KEY_FILE or MNEMIC_PASSPHRASE" in run("doctor", vault=vault).out
    monkeypatch.setenv(variable, value)
    new = tmp_path / "new.key"
    run("key", "new", new)
    assert run("key", "change", "--new-key-file", new, vault=vault).code == 0
    assert run("search", "Porto", vault=vault).code == 2
    monkeypatch.delenv(variable)
    monkeypatch.setenv("MNEMIC_KEY_FILE", str(new))
    assert "Porto" in run("search", "Porto", vault=vault).out
    monkeypatch.delenv("MNEMIC_KEY_FILE")
    monkeypatch.setenv("MNEMIC_OTHER_KEY_FILE", str(new))
    assert run("load", vault, vault=tmp_path / "clear.db").code == 0
    assert contents(tmp_path / "clear.db") == ["I moved to Porto."]
    assert run("key", "check", vault=tmp_path / "clear.db").out == "not encrypted\n"


def test_a_dump_to_share_and_what_was_sealed(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vault, shared = tmp_path / "a.db", tmp_path / "share.mnemic"
    monkeypatch.setenv("MNEMIC_PASSPHRASE", "correct horse battery")
    run("add", "Ask eve@example.org.", vault=vault)
    assert "seal email" in run("policy", "add", "seal email", vault=vault, user=None).out
    added = run("add", "Ask bob@example.org.", "--json", vault=vault).json
    id = added["cubes"][0]["id"]
    assert run("show", id, vault=vault).out.endswith("Ask [email].\n")
    assert run("reveal", id[-8:], vault=vault).out == "Ask bob@example.org.\n"
    assert run("reveal", id, "--version", 1, "--json", vault=vault).json["text"] == "Ask bob@example.org."
    assert run("dump", shared, "--redact", "email", vault=vault).code == 0
    refused = run("dump", shared, "--force", "--redact", "nonsense", vault=vault)
    assert (refused.code, "nothing finds 'nonsense'" in refused.err) == (2, True)
    monkeypatch.delenv("MNEMIC_PASSPHRASE")
    run("load", shared, vault=tmp_path / "b.db")
    assert contents(tmp_path / "b.db") == ["Ask [email].", "Ask [email]."]
    refused = run("policy", "add", "seal email", vault=tmp_path / "b.db", user=None)
    assert (refused.code, "made with a key" in refused.err) == (2, True)


def test_show_says_what_was_deleted_on_both_sides_last_said(run: Run, vault: Path, tmp_path: Path) -> None:
    id = run("list", "--json", vault=vault).json["cubes"][0]["id"]
    other = tmp_path / "other.db"
    run("load", vault, vault=other)
    for side in (vault, other):
        run("delete", id, vault=side)
    run("merge", other, vault=vault)
    assert [one["deleted"] for one in run("history", id, "--json", vault=vault).json] == [False, True, True]
    assert run("show", id, vault=vault).out.endswith("\nI moved to Porto in March.\n")
