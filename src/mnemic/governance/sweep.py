"""What retention will remove next, and removing it. Nothing waits for it: what is over is not served."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from mnemic.cube.ids import id_text
from mnemic.cube.lifecycle import Event, Facts, follow
from mnemic.cube.model import ANY, Scope, ScopeField, State
from mnemic.cube.reach import EVERYWHERE, Reach
from mnemic.cube.times import to_datetime
from mnemic.governance.guard import Guard, governed, is_frozen, labels_of
from mnemic.governance.policy import require_admin
from mnemic.governance.retention import NEVER, Archive, end_of, read_span
from mnemic.governance.rules import Rules
from mnemic.vault import governing, reading
from mnemic.vault.codec import Stored, stored
from mnemic.vault.database import Transaction
from mnemic.vault.expiring import expire

PAGE = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Due:
    """A cube that is over, or will be at `at`, by `rule`. `over`: served no more, and removed by a sweep."""

    id: str
    scope: Scope
    at: datetime
    rule: str
    over: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Swept:
    """What a sweep did: cubes taken out, and cubes set aside as archived."""

    expired: int
    archived: int


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
        """What is over, and what will be `within` a span such as "7 days", the first first. O(live cubes).

        Ids and rules, no content. Raises AccessDenied unless the caller is admin there, InvalidOption.
        """
        span = 0 if within is None else read_span(within)
        reach = Reach(user, agent, session)
        self._guard.flush()
        found = []
        with self._guard.vault.database.read() as transaction:
            seen = self._guard.sight(transaction)
            require_admin(seen.access, reach, "see what retention will remove", now=seen.now)
            for names, row, uses in self._live(transaction, reach, seen.rules):
                end, rule = _end(seen.rules, names, row, uses)
                if end <= seen.now + span:
                    found.append((end, id_text(row.cube), names, rule))
        found.sort(key=lambda one: one[:2])
        return [
            Due(id=cube, scope=names, at=to_datetime(end), rule=rule, over=end <= seen.now)
            for end, cube, names, rule in found
        ]

    @governed
    def sweep(self) -> Swept:
        """Take out what is over, a few hundred a transaction, and archive what lay idle. O(live cubes).

        Stopped half-way, the next sweep goes on. Raises AccessDenied but for an admin of everything.
        """
        self._guard.require_admin("sweep")
        gone = 0
        due = [one for one in self.due() if one.over]
        for start in range(0, len(due), PAGE):
            part = due[start : start + PAGE]
            rules = ", ".join(sorted({one.rule for one in part}))
            gone += expire(
                self._guard.vault, [one.id for one in part], self._is_over, reason=f"retention: {rules}"
            )
        return Swept(expired=gone, archived=self._archive())

    def _is_over(self, transaction: Transaction, names: Scope, row: Stored) -> bool:
        """Asked again in the transaction of the removal: it may have been used, changed or held meanwhile."""
        seen = self._guard.sight(transaction)
        use = governing.use_of(transaction, self._guard.vault.tenant, row.cube)
        end, _ = _end(seen.rules, names, row, use)
        facts = Facts(now=seen.now, expires_at=None if end == NEVER else end)
        return follow(State(row.state), Event.expire, facts) is State.expired

    def _archive(self) -> int:
        """Activated cubes that lay idle for too long become archived."""
        with self._guard.vault.database.read() as transaction:
            seen = self._guard.sight(transaction)
            rules = [one for one in seen.rules.policies if isinstance(one.rule, Archive)]
            idle = []
            for names, row, use in self._live(transaction, EVERYWHERE, seen.rules) if rules else ():
                labels = labels_of(row.header)
                spans = [
                    one.rule.span
                    for one in rules
                    if isinstance(one.rule, Archive) and one.covers(names, labels)
                ]
                used_at = max(row.recorded_at, use.last_used if use else 0)
                facts = Facts(now=seen.now, used_at=used_at, archive_after=min(spans, default=None))
                if follow(State(row.state), Event.idle, facts) is State.archived:
                    idle.append(row.cube)
        if idle:
            with self._guard.vault.database.write() as transaction:
                tenant = self._guard.vault.tenant
                governing.set_state(transaction, tenant, idle, int(State.activated), int(State.archived))
        return len(idle)

    def _live(
        self, transaction: Transaction, reach: Reach, rules: Rules
    ) -> Iterator[tuple[Scope, Stored, governing.Use | None]]:
        vault = self._guard.vault
        for space, *_ in transaction.rows(reading.spaces, {"t": vault.tenant}):
            scopes = vault._all_scopes(transaction, space)
            if not any(reach.has(names) for names in scopes.values()):
                continue
            used = governing.used_in(transaction, vault.tenant, space) if rules.counts_uses else {}
            params = {"t": vault.tenant, "s": space, "seq": 0, "n": PAGE}
            while rows := transaction.rows(reading.stored_after, params):
                for row in map(stored, rows):
                    names = scopes[space, row.scope]
                    if reach.has(names):
                        yield names, row, used.get(row.cube)
                params = {**params, "seq": rows[-1][0]}


def _end(rules: Rules, names: Scope, row: Stored, use: governing.Use | None) -> tuple[int, str]:
    return end_of(
        rules.policies,
        names,
        labels_of(row.header),
        recorded_at=row.recorded_at,
        expires_at=row.expires_at,
        use=use,
        frozen=is_frozen(row.header),
    )
