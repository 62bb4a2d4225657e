"""Schema versions as an ordered list of plain functions. A new vault runs all of them, an old one those it
lacks.

All missing steps run in one transaction under the write lock, after a backup: of two processes that open an
old file at once, one migrates and the other finds it done. Never edit a step that was released; add one.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence

import sqlalchemy as sa

from mnemic.cube.errors import NotAVault, VaultTooNew
from mnemic.vault import tables
from mnemic.vault.database import Database, Statement, Transaction
from mnemic.vault.schema_1 import TABLES as SCHEMA_1
from mnemic.vault.schema_2 import TABLES as SCHEMA_2
from mnemic.vault.schema_3 import TABLES as SCHEMA_3
from mnemic.vault.schema_4 import TABLES as SCHEMA_4
from mnemic.vault.schema_5 import TABLES as SCHEMA_5

Migration = Callable[[Transaction], None]

_get = Statement(sa.select(tables.meta.c.value).where(tables.meta.c.key == sa.bindparam("key")))
_set = Statement(
    sa.update(tables.meta)
    .where(tables.meta.c.key == sa.bindparam("key_"))
    .values(value=sa.bindparam("value"))
)
_add = Statement(sa.insert(tables.meta))
_sqlite_tables = Statement(sa.text("SELECT name FROM sqlite_master WHERE type = 'table'"))
_postgres_tables = Statement(
    sa.text("SELECT table_name FROM information_schema.tables WHERE table_schema = current_schema()")
)
# SQLite's write transaction is alone on the file; PostgreSQL has no lock on tables that are not there yet.
_postgres_lock = Statement(
    sa.text("SELECT pg_advisory_xact_lock(hashtextextended(current_schema(), 7235932))")
)


def initial(transaction: Transaction) -> None:
    """Version 1."""
    for statement in SCHEMA_1[transaction.dialect]:
        transaction.script(statement)
    transaction.many(
        _add,
        [
            {"key": "mnemic", "value": b"vault"},
            {"key": "format", "value": b"0"},
            {"key": "vault_id", "value": secrets.token_bytes(16)},
            {
                "key": "mac_key",
                "value": secrets.token_bytes(32),
            },  # keys the HMACs; wrapped once encryption is on
        ],
    )


def background_work(transaction: Transaction) -> None:
    """Version 2."""
    for statement in SCHEMA_2[transaction.dialect]:
        transaction.script(statement)


def portable(transaction: Transaction) -> None:
    """Version 3: large payloads, erasures, dumps and wrapped keys."""
    for statement in SCHEMA_3[transaction.dialect]:
        transaction.script(statement)


def governance(transaction: Transaction) -> None:
    """Version 4: principals, grants, policies, the audit log and usage."""
    for statement in SCHEMA_4[transaction.dialect]:
        transaction.script(statement)


def secrets_of_texts(transaction: Transaction) -> None:
    """Version 5: what redaction has taken out and sealed."""
    for statement in SCHEMA_5[transaction.dialect]:
        transaction.script(statement)


MIGRATIONS: tuple[Migration, ...] = (initial, background_work, portable, governance, secrets_of_texts)


def get_meta(transaction: Transaction, key: str) -> bytes | None:
    found = transaction.row(_get, {"key": key})
    return bytes(found[0]) if found else None


def put_meta(transaction: Transaction, key: str, value: bytes) -> None:
    if not transaction.run(_set, {"key_": key, "value": value}):
        transaction.run(_add, {"key": key, "value": value})


def format_version(transaction: Transaction) -> int:
    """0 for an empty database. Raises NotAVault when the tables are somebody else's."""
    listing = _sqlite_tables if transaction.dialect == "sqlite" else _postgres_tables
    names = {row[0] for row in transaction.rows(listing, {})}
    if not names:
        return 0
    if "meta" not in names or "version" not in names or get_meta(transaction, "mnemic") != b"vault":
        raise NotAVault(
            f"this database holds other tables ({', '.join(sorted(names)[:5])}), not a mnemic vault. Choose "
            "another."
        )
    return int(get_meta(transaction, "format") or b"0")


def migrate(database: Database, migrations: Sequence[Migration] = MIGRATIONS) -> None:
    """Bring the database to the newest format; one read when it is there already.

    Raises VaultTooNew (nothing is touched), NotAVault, VaultReadOnly.
    """
    with database.read() as transaction:
        found = format_version(transaction)
    if found < len(migrations):
        with database.write() as transaction:
            if transaction.dialect == "postgresql":
                transaction.row(_postgres_lock, {})
            found = format_version(transaction)  # again, under the lock: another process may have been first
            if 0 < found < len(migrations):
                database.backup(f"before-format-{len(migrations)}")
            for step in migrations[found:]:
                step(transaction)
            if found < len(migrations):
                transaction.run(_set, {"key_": "format", "value": str(len(migrations)).encode()})
    if found > len(migrations):
        raise VaultTooNew(
            f"{database.location} is of format {found}; this mnemic reads up to {len(migrations)}. "
            "Upgrade: pip install -U mnemic. Nothing was changed."
        )
