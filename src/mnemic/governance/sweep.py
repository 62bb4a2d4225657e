"""What retention will remove next, and removing it. Nothing waits for it: what is over is not served."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, NamedTuple

from mnemic.cube.errors import NotFound
from mnemic.cube.ids import id_text
from mnemic.cube.lifecycle import Event, Facts, follow
from mnemic.cube.model import ANY, Scope, ScopeField, State
from mnemic.cube.reach import EVERYWHERE, Reach
from mnemic.cube.times import to_datetime
from mnemic.governance.guard import Guard, governed
from mnemic.governance.policy import require_admin
from mnemic.governance.retention import NEVER, Archive, erases, read_span
from mnemic.governance.rows import fate_in, is_pinned, labels_of
from mnemic.vault import governing, reading
from mnemic.vault.codec import Stored, state_of, stored
from mnemic.vault.database import Transaction
from mnemic.vault.destroying import made_from_any
from mnemic.vault.erasing import erase
from mnemic.vault.expiring import expire

PAGE = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Due:
    """A cube that is over, or will be at `at`, by `rule`. `over`: that time has come, a sweep does it.

    deed: "expire", it is served no more and a sweep takes it out; or "erase", a sweep destroys it.
    """

    id: str
    scope: Scope
    at: datetime
    rule: str
    over: bool
    deed: Literal["expire", "erase"] = "expire"


@dataclass(frozen=True, slots=True, kw_only=True)
class Swept:
    """What a sweep did: cubes taken out, set aside as archived, and destroyed (what was made from them too).

    waits_for: who keeps bytes of what was destroyed on disk, as in `Certificate`; None: they are gone.
    """

    expired: int
    archived: int
    erased: int = 0
    waits_for: str | None = None


class _Head(NamedTuple):
    """A cube as it stands, the last version that said something, and its uses."""

    names: Scope
    row: Stored
    said: Stored
    use: governing.Use | None


class Retention:
    """Of one tenant, for who is admin of the scopes."""

    def __init__(self, guard: Guard) -> None:
        self._guard = guard

    @governed
    def due(
        self,
        within: str | None = None,
        *,
        user: ScopeField = ANY,
        agent: ScopeField = ANY,
        session: ScopeField = ANY,
    ) -> Sequence[Due]:
        """What is over or to be destroyed, and what will be `within` a span such as "7 days", in their order.

        Ids and rules, no content. Raises AccessDenied unless the caller is admin there, InvalidOption.
        O(live cubes), where some rule destroys O(cubes).
        """
        span = 0 if within is None else read_span(within)
        reach = Reach(user, agent, session)
        self._guard.flush()
        found: list[Due] = []
        with self._guard.vault.database.read() as transaction:
            seen = self._guard.sight(transaction)
            require_admin(seen.access, reach, "see what retention will remove", now=seen.now)
            upto = seen.now + span
            destroys = erases(seen.rules.policies)
            for head in _heads(self._guard, transaction, reach, deleted=destroys):
                fate = fate_in(seen.rules, head.names, head.said, head.use)
                cube = id_text(head.row.cube)
                if fate.end <= upto and not head.row.deleted:
                    found.append(_due(cube, head.names, fate.end, fate.why, seen.now, "expire"))
                if fate.gone <= upto:
                    found.append(_due(cube, head.names, fate.gone, fate.why_gone, seen.now, "erase"))
        return sorted(found, key=lambda one: (one.at, one.id, one.deed != "expire"))

    @governed
    def sweep(self) -> Swept:
        """Take out what is over, a few hundred a transaction, destroy what is to be, archive what lay idle.

        Stopped half-way, the next sweep goes on. Raises AccessDenied but for an admin of everything.
        O(live cubes), and O(vault) where something is destroyed.
        """
        self._guard.require_admin("sweep")
        gone = 0
        for part, reason in self._parts("expire"):  # by the vault itself: who sweeps need not have `write`
            gone += expire(self._guard.vault, part, self._is_over, reason=reason)
        vault = self._guard.vault.as_actor(self._guard)
        destroyed, waits_for = 0, None
        for part, _ in self._parts("erase"):
            try:
                done = erase(vault, part, still=self._to_destroy)
            except NotFound:  # another sweep was faster
                continue
            destroyed, waits_for = destroyed + done.cubes, done.waits_for
        return Swept(expired=gone, archived=self._archive(), erased=destroyed, waits_for=waits_for)

    def _parts(self, deed: str) -> Iterator[tuple[list[str], str]]:
        due = [one for one in self.due() if one.over and one.deed == deed]
        for start in range(0, len(due), PAGE):
            part = due[start : start + PAGE]
            rules = ", ".join(sorted({one.rule for one in part}))
            yield [one.id for one in part], f"retention: {rules}"

    def _is_over(self, transaction: Transaction, names: Scope, row: Stored) -> bool:
        """Asked again in the transaction of the removal: it may have been used, changed or held meanwhile."""
        seen = self._guard.sight(transaction)
        end = self._guard.fate(transaction, names, row).end
        facts = Facts(now=seen.now, expires_at=None if end == NEVER else end)
        return follow(state_of(row), Event.expire, facts) is State.expired

    def _to_destroy(self, transaction: Transaction, cubes: Sequence[bytes]) -> list[bytes]:
        """Those of them whose time to be destroyed has come, asked in the transaction that does it."""
        vault, now = self._guard.vault, self._guard.sight(transaction).now
        out = []
        for cube in cubes:
            try:
                space, row = vault._head(transaction, id_text(cube))
            except NotFound:
                continue
            names = vault._scope_names(transaction, space, row.scope)
            if self._guard.fate(transaction, names, self._guard.last_said(transaction, row)).gone <= now:
                out.append(cube)
        return [cube for cube in out if not self._guard.is_held(transaction, [cube])]

    def _archive(self) -> int:
        """Activated cubes that lay idle for too long become archived."""
        with self._guard.vault.database.read() as transaction:
            seen = self._guard.sight(transaction)
            rules = [one for one in seen.rules.policies if isinstance(one.rule, Archive)]
            idle = []
            for head in _heads(self._guard, transaction) if rules else ():
                labels = labels_of(head.row.header)
                spans = [
                    one.rule.span
                    for one in rules
                    if isinstance(one.rule, Archive) and one.covers(head.names, labels)
                ]
                used_at = max(head.row.recorded_at, head.use.last_used if head.use else 0)
                facts = Facts(
                    now=seen.now,
                    used_at=used_at,
                    archive_after=min(spans, default=None),
                    pinned=is_pinned(head.row.header),
                )
                if follow(state_of(head.row), Event.idle, facts) is State.archived:
                    idle.append(head.row.cube)
        if idle:
            with self._guard.vault.database.write() as transaction:
                tenant = self._guard.vault.tenant
                governing.set_state(transaction, tenant, idle, int(State.activated), int(State.archived))
        return len(idle)


def over(guard: Guard, transaction: Transaction, spaces: Collection[int] | None = None) -> set[bytes]:
    """Cubes that are served to nobody any more, swept or not, and all that was made from them. O(cubes).

    spaces: only of these.
    """
    now, out = guard.sight(transaction).now, set()
    for head in _heads(guard, transaction, spaces=spaces, deleted=True):
        swept = head.row.deleted and head.row.state == State.expired
        if swept or fate_in(guard.sight(transaction).rules, head.names, head.said, head.use).end <= now:
            out.add(head.row.cube)
    return made_from_any(transaction, guard.vault.tenant, out)[0] if out else out


def _heads(
    guard: Guard,
    transaction: Transaction,
    reach: Reach = EVERYWHERE,
    *,
    spaces: Collection[int] | None = None,
    deleted: bool = False,
) -> Iterator[_Head]:
    vault, rules = guard.vault, guard.sight(transaction).rules
    statement = reading.heads_after if deleted else reading.stored_after
    for space, *_ in transaction.rows(reading.spaces, {"t": vault.tenant}):
        scopes = vault._all_scopes(transaction, space)
        if (spaces is not None and space not in spaces) or not any(map(reach.has, scopes.values())):
            continue
        used = governing.used_in(transaction, vault.tenant, space) if rules.counts_uses else {}
        params = {"t": vault.tenant, "s": space, "seq": 0, "n": PAGE}
        while rows := transaction.rows(statement, params):
            for row in map(stored, rows):
                names = scopes[space, row.scope]
                if reach.has(names):
                    said = guard.last_said(transaction, row)
                    yield _Head(names, row, said, used.get(said.cube))
            params = {**params, "seq": rows[-1][0]}


def _due(cube: str, names: Scope, at: int, rule: str, now: int, deed: Literal["expire", "erase"]) -> Due:
    return Due(id=cube, scope=names, at=to_datetime(at), rule=rule, over=at <= now, deed=deed)
