"""Encryption at rest: with the key everything works as without; without it nothing can be read."""

from __future__ import annotations

import copy
import io
import json
import random
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import sqlalchemy as sa
from test_archive import dump, load
from test_erasing import MARKERS, everything, fill, space_of, traces
from test_merging import state, take
from vaults import ANA, derive, live, rows, say, tell, texts

from mnemic.cube.errors import InvalidOption, KeyRequired, NotFound, VaultError, WrongKey
from mnemic.cube.model import Kind, Scope
from mnemic.vault import check, keys, tables
from mnemic.vault.erasing import erase
from mnemic.vault.keys import LocalKey, write_key_file
from mnemic.vault.sealing import PIECE
from mnemic.vault.unlocking import change_master
from mnemic.vault.vault import Vault, connect, open_vault

BO = Scope("default", "bo")


@pytest.fixture
def key(tmp_path: Path) -> Path:
    write_key_file(tmp_path / "v.key")
    return tmp_path / "v.key"


@pytest.fixture
def vault(database: str, key: Path, tmp_path: Path) -> Iterator[Vault]:
    opened = open_vault(database, key=key, blobs=tmp_path / "blobs")
    yield opened
    opened.close()


def test_every_content_column_is_sealed_and_every_other_is_listed() -> None:
    """A column of bytes or text that is added later has to be thought about."""
    clear = {
        "meta": {"key", "value"},
        "tenant": {"tenant", "wrapped_key"},
        "space": {"tenant", "user_key", "wrapped_key"},
        "scope": {"tenant", "scope_key"},
        "change": {"tenant", "change_id", "op", "principal", "undoes"},
        "version": {"tenant", "cube", "version", "parent", "digest", "blob"},
        "edge": {"tenant", "version", "target", "target_cube", "target_digest"},
        "erased": {"tenant", "cube_key"},
        "erasure": {"tenant", "erasure", "counts", "blobs"},
        "dump": {"tenant", "dump"},
        "cube": {"tenant", "cube", "head", "client_key"},
        "feature": {"tenant"},
        "blob": {"tenant", "blob"},
        "job": {"tenant", "job", "kind", "args"},
        "progress": {"tenant", "reader"},
        "slot": {"tenant", "slot_key", "cube"},
        "model": {"tenant", "name"},
        "governance": {"tenant", "audit_head"},
        "principal": {"tenant", "principal", "name_key", "kind"},
        "grants": {"tenant", "grant_id", "principal"},
        "policy": {"tenant", "policy"},
        "audit": {"tenant", "principal", "verb", "target", "hash"},
        "usage": {"tenant", "cube"},
        "sealed": {"tenant"},
    }
    for table in tables.metadata.sorted_tables:
        found = {
            column.key
            for column in table.c
            if isinstance(column.type, sa.LargeBinary | sa.Text) and "sealed" not in column.info
        }
        assert table.name in clear, f"say what stays clear in {table.name}"
        assert found == clear[table.name], f"say what of {table.name} stays clear"


def test_it_works_as_without(vault: Vault, database: str, key: Path, tmp_path: Path) -> None:
    a, b = tell(vault, ANA, "one", "two", labels=("l",), metadata={"k": "v"})
    change, _ = vault.revise(a, {"payload": b"three"}, reason="why")
    fact = derive(vault, BO, "made", [a, b])
    other = open_vault(database, key=key, blobs=tmp_path / "blobs")
    with other.snapshot() as snapshot:
        assert [one.text for one in snapshot.history(a)] == ["one", "three"]
        assert snapshot.head(b).header.labels == ("l",)
        assert [row.user for row in snapshot.spaces()] == ["ana", "bo"]
    assert texts(other, ANA) == ["two", "three"]
    other.remove([b])
    assert texts(vault, ANA) == ["three"]
    assert change.stored[0].payload == b"three"
    with vault.database.read() as transaction:
        assert check.problems(transaction, vault.tenant) == []
        assert [bad for _, bad in check.altered(transaction, vault.tenant, vault._key) if bad] == []
    assert fact
    assert vault.append(ANA, [say("x", client_id="1"), say("y", client_id="2")]).change
    assert other.append(ANA, [say("x", client_id="1")]).outcomes[0].reason == "already stored under this id"
    other.close()


def test_features_are_sealed_and_come_back(vault: Vault) -> None:
    model = vault.add_model("terms", 0)
    data = b"the terms of a text"
    tell(vault, ANA, "x", features={model.number: data})
    with vault.snapshot() as snapshot:
        (row,) = snapshot.since(space_of(vault, "ana"), 0, lexical=model.number, dense=None)
        assert row.lexical == data
    vault.put_features(space_of(vault, "ana"), model.number, {1: data * 2})
    with vault.snapshot() as snapshot:
        assert snapshot.features_after(space_of(vault, "ana"), 0, model.number) == {1: data * 2}
    assert data.decode() not in everything(open_clear(vault))


def open_clear(vault: Vault) -> Vault:
    """The same database as one without the key sees it."""
    other = copy.copy(vault)
    other.database = connect(vault.database.location if vault.database.path else vault.database.driven._url)
    return other


def test_nothing_can_be_read_in_the_tables_of_a_server(server, key: Path) -> None:
    vault = open_vault(server(), key=key)
    for i in range(20):
        scope = Scope("default", "mark user", "mark agent", f"mark {i}")
        tell(vault, scope, f"mark {i}", client_id=f"mark {i}", labels=("mark",), name="mark")
    vault.revise(live(vault, scope)[0].id, {"payload": b"mark"}, reason="mark")
    vault.note_dump([1], "/mark")
    clear = open_clear(vault)
    assert "mark" not in everything(clear)
    vault.close()
    clear.database.close()


@pytest.mark.parametrize("kind", ["file", "passphrase", "service"])
def test_no_byte_of_a_memory_is_in_clear_before_or_after_an_erase(
    tmp_path: Path, kind: str, key: Path
) -> None:
    folder = tmp_path / "memory"
    folder.mkdir()
    given = {"file": key, "passphrase": "correct horse battery", "service": LocalKey("kms", b"k" * 32)}[kind]
    vault = open_vault(folder / "v.db", key=given)
    cubes, markers = fill(vault)
    scope = Scope("default", "secret user", "secret agent", "secret session")
    tell(vault, scope, "x", client_id="secret client", place=None, features={7: b"secret feature"})
    vault.note_dump([space_of(vault, "ana")], "/secret/place")
    assert traces(folder, *markers, b"secret", b"between", b"kept") == set()
    assert len(live(vault, BO)) == 100
    done = erase(vault, [], [space_of(vault, "ana")])
    assert done.status == "done"
    assert done.copies
    assert traces(folder, *markers, b"secret") == set()
    vault.close()
    assert traces(folder, *markers, b"secret", b"k" * 32) == set()
    again = open_vault(folder / "v.db", key=given)
    assert len(live(again, BO)) == 100
    assert texts(again, scope) == ["x"]
    assert len(MARKERS) == 1000
    assert cubes
    again.close()


def test_erasing_a_user_destroys_their_key(vault: Vault, database: str, key: Path, tmp_path: Path) -> None:
    tell(vault, ANA, "a")
    tell(vault, BO, "b")
    other = open_vault(database, key=key, blobs=tmp_path / "blobs")
    assert texts(other, ANA) == ["a"]
    before = dict(rows(vault, "SELECT space, wrapped_key FROM space"))
    erase(vault, [], [space_of(vault, "ana")])
    after = {bytes(wrapped) for _, wrapped in rows(vault, "SELECT space, wrapped_key FROM space")}
    assert after == {bytes(before[2])}
    assert live(other, ANA) == []
    tell(other, ANA, "again")
    assert texts(vault, ANA) == ["again"]
    with vault.database.read() as transaction, pytest.raises(NotFound, match="key destroyed"):
        vault._seals.cipher(transaction, 1)  # type: ignore[union-attr]
    other.close()


# --- keys


@pytest.mark.parametrize("right", ["correct horse battery", "file", "service"])
def test_a_wrong_key_is_a_clear_error_and_changes_nothing(tmp_path: Path, right: str, key: Path) -> None:
    given = {"file": key, "service": LocalKey("kms", b"1" * 32)}.get(right, right)
    vault = open_vault(tmp_path / "v.db", key=given)  # type: ignore[arg-type]
    tell(vault, ANA, "a")
    vault.close()
    write_key_file(tmp_path / "other.key")
    before = (tmp_path / "v.db").read_bytes()
    for wrong in ("a wrong passphrase", tmp_path / "other.key", LocalKey("kms", b"2" * 32)):
        with pytest.raises(WrongKey):
            open_vault(tmp_path / "v.db", key=wrong)
    with pytest.raises(KeyRequired, match="MNEMIC_KEY_FILE"):
        open_vault(tmp_path / "v.db")
    assert (tmp_path / "v.db").read_bytes() == before
    again = open_vault(tmp_path / "v.db", key=given)  # type: ignore[arg-type]
    assert texts(again, ANA) == ["a"]
    again.close()


def test_a_used_vault_is_not_encrypted_in_place_but_copied(database: str, key: Path, tmp_path: Path) -> None:
    clear = open_vault(database)
    tell(clear, ANA, "told in clear")
    with pytest.raises(InvalidOption, match="load this one into it"):
        open_vault(database, key=key)
    sealed = open_vault(tmp_path / "sealed.db", key=key)
    take(sealed, clear)
    assert state(sealed) == state(clear)
    assert traces(tmp_path, b"told in clear") <= {
        ("vault.db", b"told in clear"), ("vault.db-wal", b"told in clear")
    }  # fmt: skip
    sealed.close()
    clear.close()


@pytest.mark.parametrize("bad", ["short", "", b"bytes", 5, ["x"]])
def test_what_is_no_key_is_refused(tmp_path: Path, bad: object) -> None:
    with pytest.raises(InvalidOption):
        open_vault(tmp_path / "v.db", key=bad)  # type: ignore[arg-type]


def test_key_files_are_private_and_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "k"
    write_key_file(path)
    assert path.stat().st_mode & 0o077 == 0
    with pytest.raises(InvalidOption, match="lost"):
        write_key_file(path)
    path.write_text("not a key")
    with pytest.raises(InvalidOption, match="64 hex"):
        open_vault(tmp_path / "v.db", key=path)
    with pytest.raises(NotFound):
        open_vault(tmp_path / "v.db", key=tmp_path / "none")


def test_the_master_key_can_be_changed_and_the_old_one_opens_nothing(database: str, key: Path) -> None:
    vault = open_vault(database, key=key)
    tell(vault, ANA, "a", client_id="1")
    (wrapped,) = rows(vault, "SELECT wrapped_key FROM tenant")
    vault.close()
    opened = connect(database)
    with pytest.raises(WrongKey):
        change_master(opened, "another passphrase", "a new passphrase")
    change_master(opened, key, "a new passphrase")
    opened.close()
    with pytest.raises(WrongKey):
        open_vault(database, key=key)
    again = open_vault(database, key="a new passphrase")
    assert texts(again, ANA) == ["a"]
    assert again.append(ANA, [say("a", client_id="1")]).change is None, "look-ups are keyed as before"
    if "://" not in database:
        assert traces(Path(database).parent, bytes(wrapped[0])) == set()
    again.close()


def test_tenants_have_keys_of_their_own(database: str, key: Path) -> None:
    one, other = (open_vault(database, tenant=name, key=key) for name in ("one", "other"))
    tell(one, Scope("one", "ana"), "mine")
    tell(other, Scope("other", "ana"), "theirs")
    wrapped = {bytes(row[0]) for row in rows(one, "SELECT wrapped_key FROM tenant")}
    assert len(wrapped) == 2
    assert texts(one, Scope("one", "ana")) == ["mine"]
    one.close()
    other.close()


def test_a_passphrase_costs_what_the_standard_asks_for(tmp_path: Path) -> None:
    """RFC 9106: Argon2id, 64 MiB, three passes, four lanes; and a salt of its own."""
    salts = set()
    for name in ("a", "b"):
        vault = open_vault(tmp_path / f"{name}.db", key="correct horse battery")
        how = json.loads(bytes(rows(vault, "SELECT value FROM meta WHERE key = 'encryption'")[0][0]))
        assert (how["memory_kib"], how["iterations"], how["lanes"]) == (65_536, 3, 4)
        salts.add(how["salt"])
        vault.close()
    assert len(salts) == 2
    assert keys.ARGON2["memory_kib"] == 65_536


# --- what somebody with the file, but not the key, may try


def test_a_value_that_was_altered_or_moved_does_not_open(tmp_path: Path, key: Path) -> None:
    vault = open_vault(tmp_path / "v.db", key=key)
    tell(vault, ANA, "pay Bo 1", "pay Bo 1000")
    tell(vault, BO, "mine")
    vault.close()
    whole = (tmp_path / "v.db").read_bytes()
    first = "WHERE space = 1 AND seq = 1"
    for payload in (
        "(SELECT payload FROM version WHERE space = 1 AND seq = 2)",
        "(SELECT payload FROM version WHERE space = 2)",
        "header",
        "zeroblob(80)",
        "x'00'",
        "CAST(substr(payload, 1, length(payload) - 1) || x'ff' AS BLOB)",
    ):
        (tmp_path / "v.db").write_bytes(whole)
        with closing(sqlite3.connect(tmp_path / "v.db")) as connection:
            connection.execute(f"UPDATE version SET payload = {payload} {first}")  # noqa: S608
            connection.commit()
        vault = open_vault(tmp_path / "v.db", key=key)
        with pytest.raises(VaultError, match=r"altered|damaged"):
            live(vault, ANA)
        vault.close()


@pytest.mark.parametrize("size", [0, 1, 1000, PIECE - 1, PIECE, PIECE + 1, 2 * PIECE + 7])
def test_payloads_are_sealed_in_pieces(vault: Vault, size: int) -> None:
    data = random.Random(size).randbytes(size)
    blob = vault.put_blob(ANA, io.BytesIO(data))
    tell(vault, ANA, "{}", kind=Kind.activation, blob=blob)
    (cube,) = live(vault, ANA)
    assert cube.blob
    assert (cube.blob.size, cube.blob.id == cube.blob.sha256) == (size, False)
    with vault.open_blob(cube) as file:
        assert file.read() == data
        for start in (0, size // 2, max(0, size - 3), PIECE):
            file.seek(start)
            assert file.read(5) == data[start : start + 5]
    stored = vault.blobs.path(cube.blob).read_bytes()
    assert size < 100 or data[:100] not in stored
    for damaged in (stored[:-1], stored[: len(stored) // 2], stored[:-1] + bytes([stored[-1] ^ 1])):
        vault.blobs.path(cube.blob).write_bytes(damaged)
        with pytest.raises(VaultError), vault.open_blob(cube) as file:
            file.read()


def test_dumps_go_from_a_sealed_vault_to_a_clear_one_and_back(
    vault: Vault, tmp_path: Path, key: Path
) -> None:
    (a,) = tell(vault, ANA, "a", client_id="1")
    derive(vault, BO, "of a", [a])
    tell(vault, ANA, "{}", kind=Kind.activation, blob=vault.put_blob(ANA, b"t" * 5000))
    (gone,) = tell(vault, ANA, "gone")
    erase(vault, [gone])
    dump(vault, tmp_path / "d.mnemic")
    clear = open_vault(tmp_path / "clear.db")
    load(clear, tmp_path / "d.mnemic")
    assert state(clear) == state(vault)
    back = open_vault(tmp_path / "back.db", key=key)
    take(back, clear)
    assert state(back) == state(vault)
    assert gone
    clear.close()
    back.close()


def test_a_vault_opens_without_cryptography(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['cryptography'] = None\n"
        "from mnemic.vault.vault import open_vault\n"
        f"open_vault({str(tmp_path / 'v.db')!r}).close()\n"
        "from mnemic.cube.errors import MissingExtra\n"
        f"try: open_vault({str(tmp_path / 'w.db')!r}, key='a passphrase')\n"
        "except MissingExtra as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "mnemic[crypto]" in done.stdout
