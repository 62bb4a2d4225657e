"""Payloads too large for a row: files beside the vault, each named by the SHA-256 of its bytes.

A file is written whole, synced and renamed before the transaction that names it, and removed after the
transaction that took away its last name; so a row never names a file that is not there. What a crash leaves
behind is a file that no row names: `sweep` removes it. Files of one tenant are in one folder.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, Final

import sqlalchemy as sa

from mnemic.cube.errors import InvalidInput, InvalidOption, NotFound, VaultError, VaultFull
from mnemic.cube.model import Blob
from mnemic.vault import tables
from mnemic.vault.database import Database, InStatement, Statement, Transaction
from mnemic.vault.lineage import at_head_of

PIECE: Final = 1 << 20
GRACE_S: Final = 3600.0  # a file younger than this may be about to be named
Source = bytes | bytearray | memoryview | BinaryIO | Iterable[bytes]

_PART: Final = ".part-"
_p = sa.bindparam
_blob, _version, _cube = tables.blob, tables.version, tables.cube
_insert = Statement(sa.insert(_blob))
_drop = Statement(sa.delete(_blob).where(_blob.c.tenant == _p("t"), _blob.c.blob == _p("b")))
_in_use = Statement(
    sa.select(_cube.c.cube)
    .select_from(
        _blob.join(
            _version,
            sa.and_(
                _version.c.tenant == _blob.c.tenant,
                _version.c.space == _blob.c.space,
                _version.c.seq == _blob.c.seq,
            ),
        ).join(_cube, sa.and_(_cube.c.cube == _version.c.cube, at_head_of(_cube)))
    )
    .where(_blob.c.tenant == _p("t"), _blob.c.blob == _p("b"), _cube.c.deleted == 0)
    .limit(1)
)
_named = InStatement(
    lambda values: (
        sa.select(_blob.c.blob).distinct().where(_blob.c.tenant == _p("t"), _blob.c.blob.in_(values))
    )
)
_all = Statement(sa.select(_blob.c.blob).distinct().where(_blob.c.tenant == _p("t")).order_by(_blob.c.blob))
# Naming a file and removing one may not cross. SQLite's write transaction is alone on the vault.
_lock = Statement(sa.text("SELECT pg_advisory_xact_lock(hashtextextended(current_schema(), 8102017))"))


class Blobs:
    """The files of one tenant. Thread-safe; other processes may use the same folder.

    folder: None where nobody said where files go (PostgreSQL); then only `put` raises.
    """

    def __init__(self, database: Database, tenant: str, folder: Path | None) -> None:
        self._database = database
        self._tenant = tenant
        self.folder = folder

    def put(self, source: Source) -> Blob:
        """Store bytes durably, under the name that their content gives them. O(bytes), 1 MiB of memory.

        Until a version names it the file may be removed, but not within an hour. Raises InvalidOption where
        there is no folder, VaultFull, VaultError.
        """
        if self.folder is None:
            raise InvalidOption(
                f"{self._database.location} keeps rows only. Say where large payloads go, a folder that all "
                "its users reach: mnemic.open(…, blobs='/shared/blobs')"
            )
        hashed, size = hashlib.sha256(), 0
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            handle, part = tempfile.mkstemp(prefix=_PART, dir=self.folder)
            try:
                with os.fdopen(handle, "wb") as file:
                    for piece in pieces(source):
                        hashed.update(piece)
                        size += file.write(piece)
                    file.flush()
                    os.fsync(file.fileno())
                os.replace(part, self.folder / hashed.hexdigest())
                sync_folder(self.folder)
            except BaseException:
                Path(part).unlink(missing_ok=True)
                raise
        except OSError as error:
            raise _typed(error, self.folder) from error
        return Blob(id=hashed.hexdigest(), sha256=hashed.hexdigest(), size=size)

    def path(self, blob: Blob) -> Path:
        """The file of a blob, which may be mapped. Raises NotFound when it is not (or no longer) there."""
        found = None if self.folder is None else self.folder / blob.id
        if found is None or not found.is_file():
            raise NotFound(
                f"the payload {blob.id[:16]}… of {blob.size:,} bytes is not in {self.folder}: it was dropped "
                "or erased, or its file is lost. Make the cube again from its sources"
            )
        return found

    def open(self, blob: Blob) -> BinaryIO:
        """The bytes of a blob as a file. Raises NotFound. O(1); nothing is verified (`damaged` does)."""
        return self.path(blob).open("rb")

    def hold(self, transaction: Transaction, blobs: Collection[Blob]) -> None:
        """In the transaction that names them: they are here, and stay. Raises NotFound."""
        if blobs:
            self._hold(transaction)
            for blob in blobs:
                self.path(blob)

    def drop(self, blob: Blob) -> bool:
        """Forget a payload that can be made again: its rows, then its file. Versions that named it stay.

        False, and nothing is done, while the head of a live cube names it. O(versions that name it).
        """
        named = {"t": self._tenant, "b": bytes.fromhex(blob.id)}
        with self._database.write() as transaction:
            self._hold(transaction)
            if transaction.row(_in_use, named) is not None:
                return False
            transaction.run(_drop, named)
        self.remove([bytes.fromhex(blob.id)])
        return True

    def remove(self, blobs: Collection[bytes]) -> int:
        """Delete the files of those that no row names; how many. Call it after the rows are gone for good."""
        if self.folder is None or not blobs:
            return 0
        removed = 0
        with self._database.write() as transaction:
            self._hold(transaction)
            kept = self._named(transaction, blobs)
            for blob in set(blobs) - kept:
                with suppress(FileNotFoundError):
                    (self.folder / blob.hex()).unlink()
                    removed += 1
        return removed

    def sweep(self, *, grace: float = GRACE_S) -> int:
        """Remove what a crash left: files that no row names and that are older than `grace` seconds."""
        found = self.orphans(grace=grace)
        for path in found:
            if path.name.startswith(_PART):
                path.unlink(missing_ok=True)
        names = [bytes.fromhex(path.name) for path in found if not path.name.startswith(_PART)]
        return self.remove(names) + len(found) - len(names)

    def orphans(self, *, grace: float = GRACE_S) -> list[Path]:
        """Files that no row names and that are older than `grace` seconds. O(files)."""
        if self.folder is None or not self.folder.is_dir():
            return []
        before = time.time() - grace
        parts, files = [], {}
        for path in self.folder.iterdir():
            with suppress(OSError):  # removed meanwhile
                if path.stat().st_mtime <= before:
                    if path.name.startswith(_PART):
                        parts.append(path)
                    elif _is_name(path.name):
                        files[bytes.fromhex(path.name)] = path
        with self._database.read() as transaction:
            kept = self._named(transaction, files)
        return parts + [path for blob, path in files.items() if blob not in kept]

    def damaged(self) -> Iterator[tuple[str, str | None]]:
        """Every blob that rows name, and what is wrong with its file, None for a sound one. O(bytes)."""
        with self._database.read() as transaction:
            names = [bytes(row[0]).hex() for row in transaction.rows(_all, {"t": self._tenant})]
        for name in names:
            path = None if self.folder is None else self.folder / name
            if path is None or not path.is_file():
                yield name, "its file is missing"
                continue
            hashed = hashlib.sha256()
            with path.open("rb") as file:
                for piece in pieces(file):
                    hashed.update(piece)
            yield name, None if hashed.hexdigest() == name else "its file was altered"

    def _named(self, transaction: Transaction, blobs: Collection[bytes]) -> set[bytes]:
        return {bytes(row[0]) for row in transaction.rows_in(_named, {"t": self._tenant}, sorted(blobs))}

    def _hold(self, transaction: Transaction) -> None:
        if transaction.dialect == "postgresql":
            transaction.row(_lock, {})


def name(transaction: Transaction, tenant: str, space: int, named: Sequence[tuple[int, Blob]]) -> None:
    """Let versions (by seq) name their blobs, in the transaction that writes them."""
    transaction.many(
        _insert,
        [
            {
                "tenant": tenant,
                "blob": bytes.fromhex(blob.id),
                "space": space,
                "seq": seq,
                "bytes": blob.size,
            }
            for seq, blob in named
        ],
    )


class Hashed:
    """Pieces on their way, and what all of them hash to."""

    def __init__(self, source: Iterable[bytes | memoryview]) -> None:
        self._source, self._hash = source, hashlib.sha256()
        self.size = 0

    def __iter__(self) -> Iterator[bytes | memoryview]:
        for piece in self._source:
            self._hash.update(piece)
            self.size += len(piece)
            yield piece

    def hexdigest(self) -> str:
        return self._hash.hexdigest()


def pieces(source: Source) -> Iterator[bytes | memoryview]:
    """Bytes, a file or an iterable of bytes, a piece at a time. Raises InvalidInput for anything else."""
    if isinstance(source, bytes | bytearray | memoryview):
        view = memoryview(source).cast("B")
        yield from (view[start : start + PIECE] for start in range(0, len(view), PIECE))
    elif hasattr(source, "read"):
        while piece := source.read(PIECE):
            yield piece
    else:
        for piece in source:
            if not isinstance(piece, bytes | bytearray | memoryview):
                raise InvalidInput(f"a payload is made of bytes, not of {type(piece).__name__}")
            yield bytes(piece)


def _is_name(name: str) -> bool:
    return len(name) == 64 and not set(name) - set("0123456789abcdef")


def sync_folder(folder: Path) -> None:
    if os.name == "nt":  # Windows has no handle of a folder to sync; its rename is journalled
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _typed(error: OSError, folder: Path) -> VaultError:
    import errno

    if error.errno == errno.ENOSPC:
        return VaultFull(f"{folder}: the disk is full. The payload was not stored; free some space")
    return VaultError(f"{folder}: a payload cannot be stored here ({error.strerror or error})")
