"""The shared database: PostgreSQL through psycopg 3. The one file of the vault that knows PostgreSQL."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mnemic.cube.checks import require_extra
from mnemic.cube.errors import MnemicError, VaultBusy, VaultError, VaultFull, VaultReadOnly
from mnemic.vault.database import Pool, Sealing, Transaction
from mnemic.vault.tables import metadata

_LOCK_TIMEOUT_MS = 30_000
_PATIENCE_MS = 1000  # for transactions to end, before an erase is pending
_PAUSE = 0.02  # seconds, before it is looked at again
_ATTEMPTS = 10  # to begin: more than idle connections are kept


class Postgres:
    """A database by URL. Raises VaultError and its kinds; the password never shows in a message."""

    dialect = "postgresql"

    def __init__(self, url: str) -> None:
        self._url = url
        self.sealing: Sealing | None = None
        hidden = re.sub(r"(://[^:/@?]*):[^@/]*@", r"\1:***@", url)
        self.location = re.sub(r"(?i)([?&](?:ssl)?password=)[^&]*", r"\1***", hidden)
        self._psycopg: Any = require_extra("psycopg", extra="postgres")
        self._pool = Pool(self._connect, usable=self._is_idle)
        with self._typed_errors(), self._pool.connection():
            pass  # fail at open, not at the first use

    def _connect(self) -> Any:
        connection = self._psycopg.connect(self._url, autocommit=True)
        connection.execute(f"SET lock_timeout = {_LOCK_TIMEOUT_MS}")
        connection.execute("SET synchronous_commit = on")
        return connection

    @contextmanager
    def write(self) -> Iterator[Transaction]:
        with self._transaction("BEGIN ISOLATION LEVEL READ COMMITTED") as transaction:
            yield transaction

    @contextmanager
    def read(self) -> Iterator[Transaction]:
        with self._transaction("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY") as transaction:
            yield transaction

    @contextmanager
    def _transaction(self, begin: str) -> Iterator[Transaction]:
        with self._typed_errors(), self._begun(begin) as connection:
            cursor = connection.cursor()
            try:
                yield Transaction(cursor, self.dialect, self.sealing)
                cursor.execute("COMMIT")
            except BaseException:
                if not connection.closed:
                    connection.execute("ROLLBACK")
                raise

    @contextmanager
    def _begun(self, begin: str) -> Iterator[Any]:
        """A connection in a new transaction; one that the server ended while it was idle is replaced."""
        for attempt in range(_ATTEMPTS):
            with self._pool.connection() as connection:
                try:
                    connection.execute(begin)
                except self._psycopg.OperationalError:
                    if connection.closed and attempt + 1 < _ATTEMPTS:
                        continue
                    raise
                yield connection
                return

    def _is_idle(self, connection: Any) -> bool:
        """One that broke or could not roll back is not used again."""
        idle = self._psycopg.pq.TransactionStatus.IDLE
        return not connection.closed and bool(connection.info.transaction_status == idle)

    def backup(self, name: str) -> None:  # noqa: ARG002
        """The server's own backups do this; a copy from inside a transaction would not be one."""
        return

    beyond_reach: tuple[str, ...] = (
        "the server's write-ahead log until it is recycled, its archive, replicas and backups: what is in "
        "them becomes unreadable only where the vault is encrypted, by destroying that time's master key",
    )

    def reclaim(self) -> str | None:
        """Rewrite every table; None when that left no dead row behind, else what stands in the way of it.

        A reader of the server, whichever schema it reads, is waited for as long as for a lock: most, such as
        background work, are over at once.
        """
        left, kept = list[str](), list[str]()  # dead rows of the last table, and of all that could not go

        def listen(said: Any) -> None:  # "DETAIL: 3 dead row versions cannot be removed yet."
            found = re.match(r"(\d+) dead row versions", said.message_detail or "")
            if found and int(found[1]):
                left.append(found[1])

        until = time.monotonic() + _PATIENCE_MS / 1000
        with self._typed_errors(), self._pool.connection() as connection:
            connection.add_notice_handler(listen)
            try:
                connection.execute(f"SET lock_timeout = {_PATIENCE_MS}")
                connection.execute("SET client_min_messages = info")
                for table in metadata.sorted_tables:
                    left.clear()
                    connection.execute(f"VACUUM (FULL, VERBOSE) {table.name}")
                    while left and time.monotonic() < until:
                        time.sleep(_PAUSE)
                        left.clear()
                        connection.execute(f"VACUUM (FULL, VERBOSE) {table.name}")
                    kept += left
            except self._psycopg.errors.LockNotAvailable:
                return "a transaction that uses the tables of the vault"
            finally:
                connection.remove_notice_handler(listen)
                if not connection.closed:
                    connection.execute(f"SET lock_timeout = {_LOCK_TIMEOUT_MS}")
                    connection.execute("RESET client_min_messages")
        return "a transaction that still reads an older state of the vault" if kept else None

    def remove_backups(self) -> list[Path]:
        return []

    def close(self) -> None:
        self._pool.close()

    @contextmanager
    def _typed_errors(self) -> Iterator[None]:
        try:
            yield
        except self._psycopg.Error as error:
            if isinstance(error, MnemicError):
                raise
            raise self._typed(error) from error

    def _typed(self, error: Any) -> VaultError:
        state = error.sqlstate or ""
        said = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        said = said.replace(self._url, self.location)
        if state in ("55P03", "40P01", "40001"):
            return VaultBusy(
                f"{self.location}: another transaction held the lock; nothing was written, try again"
            )
        if state.startswith("53"):
            return VaultFull(f"{self.location}: the server is out of resources ({said}); nothing was written")
        if state in ("25006", "42501"):
            return VaultReadOnly(
                f"{self.location}: {said}. The role needs the right to create and write tables."
            )
        return VaultError(f"{self.location}: {said}")
