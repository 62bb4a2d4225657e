"""Does a vault hold together? Reads only; each check counts what is wrong and names a few examples.

`problems` compares the projections with the log they are made from; `altered` reads every version and
compares what it says with its keyed digest; `file_problems` asks SQLite about the file itself.
"""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import sqlalchemy as sa

from mnemic.cube.ids import id_text
from mnemic.vault import tables
from mnemic.vault.codec import Stored, digest
from mnemic.vault.database import Database, Statement, Transaction
from mnemic.vault.sqlite import APPLICATION_ID

BATCH: Final = 1000
_p = sa.bindparam
_cube, _version, _feature, _change, _space, _scope, _edge, _blob = (
    tables.cube,
    tables.version,
    tables.feature,
    tables.change,
    tables.space,
    tables.scope,
    tables.edge,
    tables.blob,
)
_later = _version.alias("later")


def _at_head() -> Any:
    """A cube and the version its head names."""
    return sa.and_(
        _version.c.tenant == _cube.c.tenant,
        _version.c.space == _cube.c.space,
        _version.c.seq == _cube.c.head_seq,
        _version.c.version == _cube.c.head,
        _version.c.cube == _cube.c.cube,
    )


def _lacks(table: sa.Table, *same: Any) -> Any:
    return ~sa.exists(sa.select(sa.literal(1)).select_from(table).where(*same))


_CHECKS: Final[dict[str, Statement]] = {
    "cubes whose current version is missing": Statement(
        sa.select(_cube.c.cube).where(_cube.c.tenant == _p("t"), _lacks(_version, _at_head()))
    ),
    "cubes whose current version is not their newest": Statement(
        sa.select(_cube.c.cube).where(
            _cube.c.tenant == _p("t"),
            sa.exists(
                sa.select(sa.literal(1)).where(
                    _later.c.tenant == _cube.c.tenant,
                    _later.c.cube == _cube.c.cube,
                    _later.c.space == _cube.c.space,
                    _version.c.tenant == _cube.c.tenant,
                    _version.c.space == _cube.c.space,
                    _version.c.seq == _cube.c.head_seq,
                    sa.or_(
                        _later.c.recorded_at > _version.c.recorded_at,
                        sa.and_(
                            _later.c.recorded_at == _version.c.recorded_at,
                            _later.c.version > _version.c.version,
                        ),
                    ),
                )
            ),
        )
    ),
    "cubes that disagree with their version about being deleted": Statement(
        sa.select(_cube.c.cube)
        .select_from(_cube.join(_version, _at_head()))
        .where(_cube.c.tenant == _p("t"), _cube.c.deleted != _version.c.deleted)
    ),
    "versions without a cube": Statement(
        sa.select(_version.c.version).where(
            _version.c.tenant == _p("t"),
            _lacks(_cube, _cube.c.tenant == _version.c.tenant, _cube.c.cube == _version.c.cube),
        )
    ),
    "versions in a scope that is not listed": Statement(
        sa.select(_version.c.version).where(
            _version.c.tenant == _p("t"),
            _lacks(
                _scope,
                _scope.c.tenant == _version.c.tenant,
                _scope.c.space == _version.c.space,
                _scope.c.scope == _version.c.scope,
            ),
        )
    ),
    "versions beyond the end of their log": Statement(
        sa.select(_version.c.version).where(
            _version.c.tenant == _p("t"),
            _lacks(
                _space,
                _space.c.tenant == _version.c.tenant,
                _space.c.space == _version.c.space,
                _space.c.last_seq >= _version.c.seq,
            ),
        )
    ),
    "versions that no change accounts for": Statement(
        sa.select(_version.c.version).where(
            _version.c.tenant == _p("t"),
            _lacks(
                _change,
                _change.c.tenant == _version.c.tenant,
                _change.c.space == _version.c.space,
                _change.c.seq >= _version.c.seq,
            ),
        )
    ),
    "features of versions that are not there": Statement(
        sa.select(_feature.c.seq).where(
            _feature.c.tenant == _p("t"),
            _lacks(
                _version,
                _version.c.tenant == _feature.c.tenant,
                _version.c.space == _feature.c.space,
                _version.c.seq == _feature.c.seq,
            ),
        )
    ),
    "large payloads of versions that are not there": Statement(
        sa.select(_blob.c.seq).where(
            _blob.c.tenant == _p("t"),
            _lacks(
                _version,
                _version.c.tenant == _blob.c.tenant,
                _version.c.space == _blob.c.space,
                _version.c.seq == _blob.c.seq,
                _version.c.blob == _blob.c.blob,
            ),
        )
    ),
    "citations by versions that are not there": Statement(
        sa.select(_edge.c.version).where(
            _edge.c.tenant == _p("t"),
            _lacks(
                _version,
                _version.c.tenant == _edge.c.tenant,
                _version.c.space == _edge.c.space,
                _version.c.version == _edge.c.version,
            ),
        )
    ),
}
_after = Statement(
    sa.select(
        _version.c.seq,
        _version.c.cube,
        _version.c.version,
        _version.c.scope,
        _version.c.kind,
        _version.c.origin,
        _version.c.deleted,
        _version.c.at,
        _version.c.recorded_at,
        _version.c.valid_from,
        _version.c.valid_to,
        _version.c.expires_at,
        _version.c.header,
        _version.c.payload,
        _version.c.blob,
        _version.c.digest,
    )
    .where(_version.c.tenant == _p("t"), _version.c.space == _p("s"), _version.c.seq > _p("seq"))
    .order_by(_version.c.seq)
    .limit(_p("n", type_=sa.BigInteger))
)
_spaces = Statement(sa.select(_space.c.space).where(_space.c.tenant == _p("t")).order_by(_space.c.space))
_cubes = Statement(sa.select(_cube.c.cube).where(_cube.c.tenant == _p("t")))
_changes = Statement(sa.select(_change.c.change_id).where(_change.c.tenant == _p("t")))
_counts = Statement(
    sa.select(sa.func.count(), sa.func.coalesce(sa.func.sum(_version.c.deleted), 0)).where(
        _version.c.tenant == _p("t")
    )
)


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that should not be: what, how often, and the first few."""

    what: str
    count: int
    examples: tuple[str, ...]


def problems(transaction: Transaction, tenant: str) -> list[Problem]:
    """Where heads, features, scopes and changes do not fit the versions. O(rows), in the database."""
    out = []
    for what, statement in _CHECKS.items():
        found = [row[0] for row in transaction.rows(statement, {"t": tenant})]
        if found:
            out.append(Problem(what, len(found), tuple(_name(one) for one in found[:3])))
    return out


def altered(transaction: Transaction, tenant: str, key: bytes) -> Iterator[tuple[int, list[str]]]:
    """(versions read so far, ids of those of the batch that do not match their digest). O(characters)."""
    read = 0
    for (space,) in transaction.rows(_spaces, {"t": tenant}):
        after = 0
        while rows := transaction.rows(_after, {"t": tenant, "s": space, "seq": after, "n": BATCH}):
            read, after = read + len(rows), rows[-1][0]
            yield read, [id_text(bytes(row[1])) for row in rows if not _is_unaltered(key, row)]


def _is_unaltered(key: bytes, row: tuple[Any, ...]) -> bool:
    *fields, said = row
    try:
        return digest(key, Stored(*(*fields, 0)).draft()) == bytes(said)
    except (ValueError, TypeError, KeyError, AttributeError):  # the header is not what a header is
        return False


def cube_ids(transaction: Transaction, tenant: str) -> list[bytes]:
    """The id of every cube, deleted ones too. O(cubes)."""
    return [bytes(row[0]) for row in transaction.rows(_cubes, {"t": tenant})]


def change_ids(transaction: Transaction, tenant: str) -> list[bytes]:
    """The id of every change, once for each of its rows. O(changes)."""
    return [bytes(row[0]) for row in transaction.rows(_changes, {"t": tenant})]


def version_counts(transaction: Transaction, tenant: str) -> tuple[int, int]:
    """How many versions there are, and how many of them are tombstones."""
    found = transaction.row(_counts, {"t": tenant})
    return (int(found[0]), int(found[1])) if found else (0, 0)


def is_ours(path: Path) -> bool:
    """Whether a file bears mnemic's mark, however damaged it may be behind it. Reads 72 bytes."""
    try:
        with path.open("rb") as file:
            head = file.read(72)
    except OSError:
        return False
    return head[:16] == b"SQLite format 3\x00" and head[68:72] == APPLICATION_ID.to_bytes(4, "big")


def file_problems(path: Path) -> list[str]:
    """SQLite's own check of the file, page by page; opened read-only, to make nothing worse. O(bytes)."""
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as connection:
            said = [str(row[0]) for row in connection.execute("PRAGMA integrity_check(20)")]
    except sqlite3.Error as error:
        return [str(error)]
    return [] if said == ["ok"] else said


def settings(database: Database) -> dict[str, str]:
    """What keeps acknowledged writes safe, as this process uses it; empty for a server."""
    if database.dialect != "sqlite":
        return {}
    out = {}
    with database.read() as transaction:
        for name in ("journal_mode", "synchronous", "fullfsync"):
            found = transaction.row(Statement(sa.text(f"PRAGMA {name}")), {})
            out[name] = str(found[0]) if found else ""
    return out


def disk(path: Path) -> tuple[int, int]:
    """(bytes of the vault with its log, bytes free beside it)."""
    files = [path, *(path.with_name(path.name + end) for end in ("-wal", "-shm"))]
    return sum(one.stat().st_size for one in files if one.exists()), shutil.disk_usage(path.parent).free


def _name(value: object) -> str:
    return id_text(bytes(value)) if isinstance(value, bytes | memoryview) else f"seq {value}"
