"""A database as one actor uses it: transactions know on whose behalf and by which clock they run, and what
they did is chained into the audit log before they commit.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mnemic.cube.times import Clock, now
from mnemic.vault import audit
from mnemic.vault.database import Actor, Database, Sealing, Transaction


class Acting:
    """One tenant's use of a Database, and a Database itself."""

    def __init__(
        self, database: Database, tenant: str, *, clock: Clock = now, actor: Actor | None = None
    ) -> None:
        self.driven, self._tenant = database, tenant  # the dialect's own
        self.clock, self.actor = clock, actor
        self.dialect, self.location = database.dialect, database.location
        self.beyond_reach = database.beyond_reach

    def as_actor(self, actor: Actor | None) -> Acting:
        return Acting(self.driven, self._tenant, clock=self.clock, actor=actor)

    @property
    def path(self) -> Path | None:
        """The file, or None for a server."""
        return getattr(self.driven, "path", None)

    @contextmanager
    def write(self) -> Iterator[Transaction]:
        with self.driven.write() as transaction:
            transaction.clock, transaction.actor = self.clock, self.actor
            yield transaction
            if transaction.deeds and transaction.audited is not False:
                audit.append(transaction, self._tenant, transaction.deeds)

    @contextmanager
    def read(self) -> Iterator[Transaction]:
        with self.driven.read() as transaction:
            transaction.clock, transaction.actor = self.clock, self.actor
            yield transaction

    @property
    def sealing(self) -> Sealing | None:
        return self.driven.sealing

    @sealing.setter
    def sealing(self, sealing: Sealing | None) -> None:
        self.driven.sealing = sealing

    def reclaim(self) -> str | None:
        return self.driven.reclaim()

    def remove_backups(self) -> list[Path]:
        return self.driven.remove_backups()

    def backup(self, name: str) -> str | None:
        return self.driven.backup(name)

    def close(self) -> None:
        self.driven.close()
