"""The audit log, read: is the chain whole, where does it end, and who did what."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from mnemic.cube.checks import require_count
from mnemic.cube.errors import InvalidOption
from mnemic.cube.ids import id_text
from mnemic.cube.times import to_datetime
from mnemic.governance.guard import Guard, governed
from mnemic.vault import audit, governing
from mnemic.vault.audit import Head, Line
from mnemic.vault.database import Deed, Transaction


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditEntry:
    """One thing that was done, or refused. `ids` are opaque: of cubes, changes, grants, or of what was asked
    for; `by` is a principal's name, or "(owner)".
    """

    n: int
    at: datetime
    by: str
    verb: str
    allowed: bool
    ids: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """Whether a chain is whole: `rows` were read, `problems` say what does not fit, `head` is its end."""

    rows: int
    problems: tuple[str, ...]
    head: str

    @property
    def sound(self) -> bool:
        return not self.problems


class AuditLog:
    """One tenant's chain. For the owner, or an admin of everything."""

    def __init__(self, guard: Guard) -> None:
        self._guard = guard

    @governed
    def start(self) -> str:
        """Begin the chain; it begins by itself with the first principal. Returns its head."""
        self._guard.require_admin("start the audit log")
        vault = self._guard.vault
        with vault.as_actor(self._guard).database.write() as transaction:
            if audit.head(transaction, vault.tenant) is None:
                governing.bump(transaction, vault.tenant)
                audit.start(transaction, vault.tenant)
                transaction.deeds.append(Deed("start_audit"))
        return self.head()

    @governed
    def head(self) -> str:
        """Where the chain stands, such as "42:9f…": keep it elsewhere, and give it to `verify`.

        Raises InvalidOption where there is no log. O(1).
        """
        self._guard.require_admin("read the audit log")
        self._guard.flush()
        with self._guard.vault.database.read() as transaction:
            return _said(self._head(transaction))

    @governed
    def verify(self, head: str | None = None) -> Verdict:
        """Read the whole chain: a row that was altered, removed, put in or moved is found.

        head: an earlier answer of `head()`, kept elsewhere: without one, a tail that was cut together with
        the vault's own record of the head cannot be seen. O(rows).
        """
        self._guard.require_admin("verify the audit log")
        outside = None if head is None else _read_head(head)
        self._guard.flush()
        with self._guard.vault.database.read() as transaction:
            return verified(transaction, self._guard.vault.tenant, self._head(transaction), outside)

    @governed
    def log(
        self, *, limit: int = 100, by: str | None = None, verb: str | None = None, denied: bool = False
    ) -> Sequence[AuditEntry]:
        """The last entries, oldest first; of one principal, one verb, or only what was refused. O(rows)."""
        require_count(limit=limit)
        self._guard.require_admin("read the audit log")
        self._guard.flush()
        tenant = self._guard.vault.tenant
        with self._guard.vault.database.read() as transaction:
            self._head(transaction)
            rules = self._guard.sight(transaction).rules
            everything = by is None and verb is None and not denied
            rows = audit.last_lines(transaction, tenant, limit) if everything else _lines(transaction, tenant)
            found = [
                AuditEntry(
                    n=line.n,
                    at=to_datetime(line.at),
                    by=rules.named(line.principal),
                    verb=line.verb,
                    allowed=bool(line.allowed),
                    ids=tuple(
                        id_text(line.target[start : start + 16]) for start in range(0, len(line.target), 16)
                    ),
                )
                for line in rows
            ]
        wanted = [
            one
            for one in found
            if (by is None or one.by == by)
            and (verb is None or one.verb == verb)
            and not (denied and one.allowed)
        ]
        return wanted[-limit:]

    def export(self, target: bytes = b"") -> None:
        """Note that memories were exported."""
        self._guard.chain(Deed("export", target))

    def _head(self, transaction: Transaction) -> Head:
        found = audit.head(transaction, self._guard.vault.tenant)
        if found is None:
            raise InvalidOption(
                "there is no audit log yet; begin one with mem.audit.start() or `mnemic audit start`"
            )
        return found


def verified(transaction: Transaction, tenant: str, kept: Head, outside: Head | None = None) -> Verdict:
    """The whole chain against where the vault says it ends, and a head that was kept elsewhere. O(rows)."""
    problems, last = [], Head(0, audit.genesis(tenant))
    seen_outside = outside is None or outside == last
    for line in _lines(transaction, tenant):
        if problem := _misfit(last, line):
            problems.append(problem)
        last = Head(line.n, line.hash)
        seen_outside = seen_outside or last == outside
    if last != kept:
        problems.append(f"the chain ends at {_said(last)}, the vault's record says {_said(kept)}")
    if not seen_outside and outside is not None:
        cut = "the tail was cut" if outside.n > last.n else "the chain was made anew"
        problems.append(f"row {_said(outside)}, which you kept, is not in the chain: {cut}")
    return Verdict(rows=last.n, problems=tuple(problems), head=_said(last))


def _lines(transaction: Transaction, tenant: str) -> Iterator[Line]:
    after = 0
    while rows := audit.lines(transaction, tenant, after=after):
        yield from rows
        after = rows[-1].n


def _misfit(last: Head, line: Line) -> str | None:
    """What is wrong with a row that follows `last`, if anything is."""
    if line.n != last.n + 1:
        return f"rows {last.n + 1} to {line.n - 1} are missing"
    if audit.link(last.hash, *line[:-1]) != line.hash:
        return f"row {line.n} does not fit the row before: it, or that one, was altered or moved"
    return None


def _said(head: Head) -> str:
    return f"{head.n}:{head.hash.hex()}"


def _read_head(said: str) -> Head:
    number, separator, mark = str(said).strip().partition(":")
    try:
        if not separator or len(mark) != 64:
            raise ValueError(said)
        return Head(int(number), bytes.fromhex(mark))
    except ValueError as error:
        raise InvalidOption(
            f"head={said!r:.100} is none; it looks like 42:9f… and `mnemic audit head` prints it"
        ) from error
