"""A vault is made by the same steps that bring an old one up to date, and nothing else is ever touched."""

from __future__ import annotations

import hashlib
import multiprocessing
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from vaults import ANA, tell, texts

from mnemic.cube.errors import InvalidOption, NotAVault, VaultError, VaultTooNew
from mnemic.vault import migrations, tables
from mnemic.vault.database import Statement, Transaction
from mnemic.vault.migrations import MIGRATIONS, get_meta, migrate
from mnemic.vault.vault import connect, open_vault


def add_note_table(transaction: Transaction) -> None:
    transaction.script("CREATE TABLE note (tenant TEXT NOT NULL PRIMARY KEY, said TEXT NOT NULL)")
    transaction.run(Statement(sa.text("INSERT INTO note SELECT tenant, 'kept' FROM tenant")), {})


def fail(transaction: Transaction) -> None:
    transaction.script("CREATE TABLE half (a BIGINT)")
    transaction.script("CREATE TABLE half (a BIGINT)")


LATER = (*MIGRATIONS, add_note_table)


def names_of_tables(url: str) -> set[str]:
    database = connect(url)
    kind = "sqlite" if database.dialect == "sqlite" else "postgres"
    with database.read() as transaction:
        found = {row[0] for row in transaction.rows(getattr(migrations, f"_{kind}_tables"), {})}
    database.close()
    return found


def format_of(url: str) -> bytes | None:
    database = connect(url)
    with database.read() as transaction:
        found = get_meta(transaction, "format")
    database.close()
    return found


def engine(url: str) -> sa.Engine:
    return sa.create_engine(
        url.replace("postgresql://", "postgresql+psycopg://") if "://" in url else f"sqlite:///{url}"
    )


def _words(options: Any) -> str:
    """PostgreSQL says it with more brackets than SQLite."""
    return " ".join(
        f"{key}={text}" for key, text in sorted((options or {}).items()) if key.endswith("_where")
    )


def shape(url: str) -> dict[str, Any]:
    """Everything the database knows about its tables, in words that both kinds share."""
    using = engine(url)
    inspector = sa.inspect(using)
    found = {}
    for table in inspector.get_table_names():
        found[table] = {
            "columns": [(c["name"], str(c["type"]), c["nullable"]) for c in inspector.get_columns(table)],
            "key": inspector.get_pk_constraint(table)["constrained_columns"],
            "unique": sorted(tuple(u["column_names"]) for u in inspector.get_unique_constraints(table)),
            "indexes": sorted(
                (i["name"], tuple(i["column_names"]), bool(i["unique"]), _words(i.get("dialect_options")))
                for i in inspector.get_indexes(table)
                if not i.get("duplicates_constraint")
            ),
        }
    using.dispose()
    return found


def test_a_fresh_vault_is_what_the_tables_say(database: str, fresh_database) -> None:
    open_vault(database).close()
    declared = fresh_database("postgresql" if "://" in database else "sqlite")
    using = engine(declared)
    tables.metadata.create_all(using)
    using.dispose()
    assert shape(database) == shape(declared)


def test_sqlite_tables_are_clustered_on_their_keys(tmp_path: Path) -> None:
    open_vault(tmp_path / "v.db").close()
    with closing(sqlite3.connect(tmp_path / "v.db")) as connection:
        made = connection.execute("SELECT sql FROM sqlite_master WHERE type = 'table'").fetchall()
    assert made
    assert all(text.rstrip().endswith("WITHOUT ROWID") for (text,) in made)


def test_a_later_step_brings_an_old_vault_up_to_date(database: str) -> None:
    vault = open_vault(database)
    tell(vault, ANA, "before")
    vault.close()
    opened = connect(database)
    migrate(opened, LATER)
    migrate(opened, LATER)
    opened.close()
    assert format_of(database) == str(len(LATER)).encode()
    assert "note" in names_of_tables(database)
    if "://" not in database:
        copy = f"{database}.before-format-{len(LATER)}"
        old = open_vault(copy)
        assert texts(old, ANA) == ["before"]
        tell(old, ANA, "and it can be used")
        old.close()
        assert "note" not in names_of_tables(copy)


def test_a_fresh_vault_needs_no_backup(tmp_path: Path) -> None:
    opened = connect(tmp_path / "v.db")
    migrate(opened, LATER)
    opened.close()
    assert [path.name for path in tmp_path.iterdir()] == ["v.db"]


def test_a_step_that_fails_leaves_the_old_vault(database: str) -> None:
    vault = open_vault(database)
    tell(vault, ANA, "before")
    opened = connect(database)
    with pytest.raises(VaultError):
        migrate(opened, (*LATER, fail))
    opened.close()
    assert format_of(database) == str(len(MIGRATIONS)).encode()
    assert not {"note", "half"} & names_of_tables(database)
    tell(vault, ANA, "after")
    assert texts(vault, ANA) == ["before", "after"]
    vault.close()


def test_a_first_step_that_fails_leaves_nothing(database: str) -> None:
    opened = connect(database)
    with pytest.raises(VaultError):
        migrate(opened, (*MIGRATIONS, fail))
    opened.close()
    assert names_of_tables(database) == set()
    open_vault(database).close()


def _migrate(url: str, start: Any, results: Any) -> None:
    start.wait()
    try:
        opened = connect(url)
        migrate(opened, LATER)
        opened.close()
        results.put(None)
    except BaseException as error:  # noqa: BLE001 the test looks at it
        results.put(repr(error))


def test_processes_that_open_an_old_vault_at_once_migrate_it_once(database: str) -> None:
    vault = open_vault(database)
    tell(vault, ANA, "before")
    vault.close()
    context = multiprocessing.get_context("spawn")
    start, results = context.Barrier(3), context.Queue()
    workers = [context.Process(target=_migrate, args=(database, start, results)) for _ in range(3)]
    for worker in workers:
        worker.start()
    assert [results.get(timeout=60) for _ in workers] == [None] * 3
    for worker in workers:
        worker.join()
    assert format_of(database) == str(len(LATER)).encode()
    opened = connect(database)
    with opened.read() as transaction:
        assert transaction.rows(Statement(sa.text("SELECT said FROM note")), {}) == [("kept",)]
    opened.close()


def test_a_newer_vault_is_refused_and_not_touched(database: str) -> None:
    opened = connect(database)
    migrate(opened, LATER)
    opened.close()
    before = "://" in database or hashlib.sha256(Path(database).read_bytes()).digest()
    with pytest.raises(VaultTooNew, match="pip install -U"):
        open_vault(database)
    assert before == ("://" in database or hashlib.sha256(Path(database).read_bytes()).digest())
    assert format_of(database) == str(len(LATER)).encode()
    if "://" not in database:
        assert [path.name for path in Path(database).parent.iterdir()] == [Path(database).name]


# --- what is not ours


@pytest.mark.parametrize("mode", ["delete", "wal"])
@pytest.mark.parametrize("table", ["diary", "meta", "version"])
def test_somebody_elses_file_is_refused_and_not_touched(tmp_path: Path, mode: str, table: str) -> None:
    path = tmp_path / "theirs.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as theirs:
        theirs.execute(f"PRAGMA journal_mode = {mode}")
        theirs.execute(f'CREATE TABLE {table} ("key" TEXT, value BLOB)')
        theirs.execute(f"INSERT INTO {table} VALUES ('mnemic', 'ours')")  # noqa: S608 our own names
    before = path.read_bytes()
    with pytest.raises(NotAVault):
        open_vault(path)
    assert path.read_bytes() == before
    assert [found.name for found in tmp_path.iterdir()] == ["theirs.db"]


def test_somebody_elses_schema_is_refused_and_not_touched(server) -> None:
    url = server()
    using = engine(url)
    with using.begin() as connection:
        connection.execute(sa.text("CREATE TABLE diary (a TEXT)"))
    with pytest.raises(NotAVault, match="diary"):
        open_vault(url)
    assert sa.inspect(using).get_table_names() == ["diary"]
    using.dispose()


@pytest.mark.parametrize(
    "content",
    [b"x", b"not a database at all\n" * 500, b"SQLite format 3\x00", b"SQLite format 3\x00" + b"\x07" * 5000],
)
def test_a_file_of_another_kind_is_refused_and_not_touched(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "notes.txt"
    path.write_bytes(content)
    with pytest.raises(NotAVault):
        open_vault(path)
    assert path.read_bytes() == content


def test_an_empty_file_becomes_a_vault(tmp_path: Path) -> None:
    path = tmp_path / "v.db"
    path.touch()
    vault = open_vault(path)
    tell(vault, ANA, "a")
    assert texts(vault, ANA) == ["a"]
    vault.close()


def test_a_vault_that_was_set_to_another_journal_is_a_vault(tmp_path: Path) -> None:
    vault = open_vault(tmp_path / "v.db")
    tell(vault, ANA, "a")
    vault.close()
    with closing(sqlite3.connect(tmp_path / "v.db")) as connection:
        connection.execute(f"VACUUM INTO '{tmp_path}/copy.db'")
    copy = open_vault(tmp_path / "copy.db")
    assert texts(copy, ANA) == ["a"]
    copy.close()
    with closing(sqlite3.connect(tmp_path / "copy.db")) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)


@pytest.mark.parametrize("keep", [0.01, 0.1, 0.5, 0.9, 0.999])
def test_a_vault_that_was_cut_off_says_so(tmp_path: Path, keep: float) -> None:
    _damage(tmp_path, lambda whole: whole[: int(len(whole) * keep)])


@pytest.mark.parametrize("start", [16, 100, 4096, 40_000])
def test_a_vault_that_was_overwritten_says_so(tmp_path: Path, start: int) -> None:
    _damage(tmp_path, lambda whole: whole[:start] + b"\xa5" * 8192 + whole[start + 8192 :])


def _damage(folder: Path, how: Any) -> None:
    """A damaged file gives a typed error, at once or when what is lost is read; or it gives what was told."""
    path = folder / "v.db"
    vault = open_vault(path)
    said = [f"{i} " * 500 for i in range(100)]
    tell(vault, ANA, *said)
    vault.close()
    path.write_bytes(how(path.read_bytes()))
    try:
        vault = open_vault(path)
    except VaultError:
        return
    try:
        assert texts(vault, ANA) == said
    except VaultError:
        pass
    finally:
        vault.close()


# --- addresses


def test_addresses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for url in ("v.db", tmp_path / "v.db", f"sqlite:///{tmp_path}/v.db", "sqlite:///v.db"):
        vault = open_vault(url)
        assert Path(vault.database.location) == tmp_path / "v.db"
        vault.close()


@pytest.mark.parametrize(
    "url",
    ["", None, 5, ":memory:", "sqlite://", "sqlite:///", "mysql://x/y", "http://x", "sqlite:///:memory:"],
)
def test_what_is_no_address_is_refused(url: Any) -> None:
    with pytest.raises(InvalidOption):
        open_vault(url)


@pytest.mark.parametrize("tenant", ["", None, "\x00", "a" * 513, 5, "\ud800"])
def test_what_is_no_tenant_is_refused(tmp_path: Path, tenant: Any) -> None:
    with pytest.raises(InvalidOption):
        open_vault(tmp_path / "v.db", tenant=tenant)


def test_no_password_is_shown() -> None:
    pytest.importorskip("psycopg")
    with pytest.raises(VaultError) as caught:
        open_vault("postgresql://me:s3cret@localhost:1/none?connect_timeout=1")
    assert "s3cret" not in str(caught.value)
    with pytest.raises(VaultError) as caught:
        open_vault("postgresql://localhost:1/none?user=me&password=s3cret&connect_timeout=1")
    assert "s3cret" not in str(caught.value)


def test_a_vault_opens_without_postgres(tmp_path: Path) -> None:
    """The core stays without psycopg."""
    code = (
        "import sys; sys.modules['psycopg'] = None\n"
        "from mnemic.vault.vault import open_vault\n"
        f"open_vault({str(tmp_path / 'v.db')!r}).close()\n"
        "from mnemic.cube.errors import MissingExtra\n"
        "try: open_vault('postgresql://x/y')\n"
        "except MissingExtra as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "mnemic[postgres]" in done.stdout
    shutil.rmtree(tmp_path, ignore_errors=True)
