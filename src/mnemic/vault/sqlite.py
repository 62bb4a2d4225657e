"""The embedded database: SQLite in WAL with synchronous=FULL, many processes on one file, one writer at a
time.

The one file of the vault that knows SQLite. Durability: `synchronous=FULL` syncs the log at every commit (and
`fullfsync` asks macOS for a real one), so what was acknowledged survives a crash of the process and of the
machine.
"""

from __future__ import annotations

import errno
import glob
import os
import re
import shutil
import sqlite3
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from mnemic.cube.errors import (
    NetworkFileSystem,
    NotAVault,
    VaultBusy,
    VaultClosed,
    VaultError,
    VaultFull,
    VaultReadOnly,
)
from mnemic.vault import forking
from mnemic.vault.database import ForkSafeLock, Pool, Sealing, Transaction

BUSY_TIMEOUT_S = 30
_PATIENCE_MS = 1000  # for readers to end, before an erase is pending
APPLICATION_ID = 0x6D6E6D63  # "mnmc", so that file(1) and others can tell
_OLDEST = (3, 37, 0)
_NETWORK = frozenset(
    [
        "nfs",
        "nfs4",
        "cifs",
        "smb",
        "smb2",
        "smb3",
        "smbfs",
        "9p",
        "afs",
        "ncpfs",
        "ceph",
        "glusterfs",
        "fuse.sshfs",
        "fuse.glusterfs",
        "fuse.s3fs",
        "fuse.rclone",
        "fuse.gcsfuse",
        "davfs",
        "fuse.davfs2",
        "lustre",
        "beegfs",
        "webdav",
    ]
)


class SQLite:
    """One file. Raises VaultError and its kinds; never a driver's own error."""

    dialect = "sqlite"

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path).expanduser().absolute()
        self.location = str(self.path)
        if sqlite3.sqlite_version_info < _OLDEST:
            raise VaultError(
                f"SQLite {sqlite3.sqlite_version} is too old; mnemic needs 3.37 or later (newer Python)"
            )
        self._refuse_what_cannot_be_a_vault()
        self._readers = Pool(self._connect, usable=_is_idle)
        self._writers = Pool(self._connect, usable=_is_idle)
        self._write_lock = ForkSafeLock()
        self._torn = False
        self.sealing: Sealing | None = None
        forking.guard(self)
        try:
            with self._typed_errors():  # fail at open, not at the first use
                self._prepare()
        except BaseException:
            self.close()
            raise

    def _refuse_what_cannot_be_a_vault(self) -> None:
        folder = Path(os.path.realpath(self.path)).parent  # where the file is, if the path is a link
        if self.path.is_dir():
            raise NotAVault(f"{self.path} is a folder; name a file in it, such as {self.path / 'memory.db'}")
        if not folder.is_dir():
            raise VaultError(f"the folder {folder} does not exist; create it first, or choose another path")
        kind = file_system(folder)
        if kind in _NETWORK:
            raise NetworkFileSystem(
                f"{folder} is on a network file system ({kind}), where SQLite's locks are not safe and "
                "memories would "
                "be lost. Keep the file on a local disk, or use a shared vault: "
                "mnemic.open('postgresql://…')."
            )
        if self.path.exists() and self.path.stat().st_size:
            try:
                with open(self.path, "rb") as file:
                    start = file.read(16)
            except OSError as error:
                raise self._typed(error) from error
            if start != b"SQLite format 3\x00":
                raise NotAVault(
                    f"{self.path} is not a mnemic vault (not an SQLite file). Choose another path."
                )

    def _prepare(self) -> None:
        with self._readers.connection() as connection:
            mode = connection.execute("PRAGMA journal_mode").fetchone()[0]
            if mode == "wal":
                return
            is_new = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] == 0
            if not is_new and connection.execute("PRAGMA application_id").fetchone()[0] != APPLICATION_ID:
                return  # somebody else's: the migrations say so, and nothing may be written
            mode = _switch_to_wal(connection)
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            if mode != "wal":
                raise VaultError(
                    f"{self.path}: SQLite could not switch to WAL here (mode {mode}); use a local disk"
                )

    def before_fork(self, seconds: float) -> bool:
        """Close every connection; False when some were in use for longer than that."""
        return self._readers.pause(seconds) & self._writers.pause(seconds)

    def after_fork(self, *, torn: bool) -> None:
        self._torn = self._torn or torn
        self._readers.resume()
        self._writers.resume()

    def _connect(self) -> sqlite3.Connection:
        if self._torn:
            raise VaultError(
                f"{self.path}: this process was forked in the middle of a read or write of another thread, "
                "and cannot use SQLite. Fork before opening the vault, or start workers with 'spawn'."
            )
        connection = sqlite3.connect(
            self.path,
            timeout=BUSY_TIMEOUT_S,
            isolation_level=None,
            check_same_thread=False,
            cached_statements=256,
        )
        try:
            connection.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_S * 1000}")
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("PRAGMA fullfsync = ON")  # macOS; no effect elsewhere
            connection.execute("PRAGMA secure_delete = ON")
            connection.execute("PRAGMA temp_store = MEMORY")
        except BaseException:
            connection.close()
            raise
        return connection

    @contextmanager
    def write(self) -> Iterator[Transaction]:
        with self._typed_errors(), self._write_lock, self._writers.connection() as connection:
            cursor = connection.cursor()
            cursor.execute("BEGIN IMMEDIATE")
            try:
                yield Transaction(cursor, self.dialect, self.sealing)
                cursor.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    cursor.execute("ROLLBACK")
                raise
            finally:
                cursor.close()  # an error that somebody keeps would keep it, and with it the file, open

    @contextmanager
    def read(self) -> Iterator[Transaction]:
        with self._typed_errors(), self._readers.connection() as connection:
            cursor = connection.cursor()
            cursor.execute("BEGIN")
            try:
                yield Transaction(cursor, self.dialect, self.sealing)
            finally:
                if connection.in_transaction:
                    cursor.execute("ROLLBACK")
                cursor.close()

    def backup(self, name: str) -> str:
        """Copy the committed state beside the file. Called under the write lock, so nothing newer exists."""
        target = self.path.with_name(f"{self.path.name}.{name}")
        with self._readers.connection() as source, closing(sqlite3.connect(target)) as copy:
            source.backup(copy)
        return str(target)

    beyond_reach: tuple[str, ...] = (
        "copies that you made of the file, and snapshots or unused blocks of the file system below it",
    )

    def reclaim(self) -> str | None:
        """Write the file anew without free pages, then cut the log to nothing; None when both are done.

        While another connection reads an older state, SQLite says that VACUUM went well, and every erased
        byte stays in the log: only the checkpoint tells.
        """
        with self._typed_errors(), self._write_lock, self._writers.connection() as connection:
            try:
                connection.execute(f"PRAGMA busy_timeout = {_PATIENCE_MS}")
                try:
                    connection.execute("VACUUM")
                except sqlite3.OperationalError as error:
                    if isinstance(self._typed(error), VaultBusy):
                        return "another process is writing to the vault"
                    raise
                busy, *_ = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            finally:
                connection.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_S * 1000}")
        return "a connection that still reads an older state of the vault" if busy else None

    def remove_backups(self) -> list[Path]:
        found = sorted(self.path.parent.glob(f"{glob.escape(self.path.name)}.before-format-*"))
        for path in found:
            path.unlink(missing_ok=True)
        return found

    def close(self) -> None:
        self._readers.close()
        self._writers.close()

    @contextmanager
    def _typed_errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise self._typed(error) from error

    def _typed(self, error: sqlite3.Error | OSError) -> VaultError:
        code: Any = getattr(error, "sqlite_errorname", None) or ""
        number = getattr(error, "errno", None)
        if "closed database" in str(error):
            return VaultClosed("this vault was closed; open it again with mnemic.open(...)")
        if code.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
            return VaultBusy(
                f"{self.path}: another process kept the write lock for over {BUSY_TIMEOUT_S} s. Nothing was "
                "written; "
                "try again, and look for a process that is stuck."
            )
        full = code == "SQLITE_FULL" or number == errno.ENOSPC
        if full or (code.startswith("SQLITE_IOERR") and shutil.disk_usage(self.path.parent).free < 1 << 20):
            return VaultFull(
                f"{self.path}: the disk is full. This change was not written; all that was acknowledged "
                "before is "
                "safe. Free some space and try again."
            )
        if code.startswith(("SQLITE_READONLY", "SQLITE_CANTOPEN", "SQLITE_PERM")) or number in (
            errno.EACCES,
            errno.EPERM,
            errno.EROFS,
        ):
            return VaultReadOnly(
                f"{self.path}: the file and its folder must be writable (also its -wal and -shm beside it). "
                f"Check the permissions, or copy the vault elsewhere. [{error}]"
            )
        if code in ("SQLITE_NOTADB", "SQLITE_CORRUPT") or code.startswith("SQLITE_CORRUPT"):
            return NotAVault(
                f"{self.path} is damaged or not a vault [{error}]. Run `mnemic doctor {self.path}`; restore "
                "a backup "
                "if one exists."
            )
        return VaultError(f"{self.path}: {error}")


def _switch_to_wal(connection: sqlite3.Connection) -> str:
    """The journal mode after it; SQLite's own waiting does not cover this switch, so it is tried again."""
    deadline = time.monotonic() + BUSY_TIMEOUT_S
    while True:
        try:
            return str(connection.execute("PRAGMA journal_mode = WAL").fetchone()[0])
        except sqlite3.OperationalError as error:
            if error.sqlite_errorname != "SQLITE_BUSY" or time.monotonic() > deadline:
                raise
        time.sleep(0.005)  # two that make a new file at once


def _is_idle(connection: sqlite3.Connection) -> bool:
    """One that could not roll back, or was interrupted, is not used again."""
    return not connection.in_transaction


def file_system(folder: Path, mounts: str | None = None) -> str:
    """The type of the file system that holds `folder`, such as "ext4" or "nfs4"; "" where it cannot be known.

    Linux reads /proc/self/mountinfo; Windows asks for remote drives. On macOS it is not known and not
    refused.
    """
    if sys.platform == "win32":
        import ctypes

        return "smb" if ctypes.windll.kernel32.GetDriveTypeW(str(folder.anchor)) == 4 else ""
    if mounts is None:
        try:
            mounts = Path("/proc/self/mountinfo").read_text()
        except OSError:
            return ""
    wanted = os.path.realpath(folder)
    best, kind = "", ""
    for line in filter(None, mounts.splitlines()):
        fields, _, rest = line.partition(" - ")
        point = re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), fields.split(" ")[4])
        inside = wanted == point or wanted.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= len(best):
            best, kind = point, rest.split(" ", 1)[0]
    return kind
