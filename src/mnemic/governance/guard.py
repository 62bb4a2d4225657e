"""The one seam: every verb of a memory runs through `Guard.run`, and every row that is served or changed
through `look` and `permit`, in the transaction of the read or write itself.

So a right that is taken away, or a time that is over, counts for the very next transaction of any process.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import wraps
from typing import Any, Concatenate, Final, ParamSpec, Protocol, TypeVar

from mnemic.cube.errors import (
    AccessDenied,
    Expired,
    InvalidInput,
    InvalidOption,
    LegalHold,
    MnemicError,
    NotFound,
)
from mnemic.cube.ids import id_bytes, id_text
from mnemic.cube.lifecycle import Event, Facts, follow
from mnemic.cube.model import Origin, Scope, State
from mnemic.cube.reach import EVERYWHERE, Reach
from mnemic.cube.times import to_datetime
from mnemic.governance.account import Account
from mnemic.governance.policy import (
    Access,
    Right,
    allowing,
    check,
    denied,
    reaches,
    require_admin,
    rules_over,
)
from mnemic.governance.redaction import Detector, Redaction, of_detectors
from mnemic.governance.retention import GRACE, Fate, Policy
from mnemic.governance.rows import fate_in, labels_of
from mnemic.governance.rules import FREE, Rules, read_rules
from mnemic.vault import governing, reading
from mnemic.vault.codec import Draft, Stored, mac, merged_into, stored
from mnemic.vault.database import Deed, Transaction
from mnemic.vault.destroying import made_from_any, with_merged
from mnemic.vault.vault import Vault

T = TypeVar("T")
NOBODY: Final = bytes(16)  # in the audit log: who gave a name that is not let in
_ATTEMPTS: Final = 3


class RulesChanged(Exception):
    """What may not be stored was changed while this was being made ready: do it again."""


@dataclass(frozen=True, slots=True)
class Sight:
    """What somebody sees in one read transaction: their access, all rules, and the moment."""

    access: Access
    rules: Rules
    now: int


class Guard:
    """Stands between one principal (None: the owner) and a vault. Thread-safe.

    audit_reads: allowed reads are chained too, in batches. redact: what is never stored through this guard,
    beside what the vault's own policies say.
    """

    def __init__(
        self,
        vault: Vault,
        *,
        principal: str | None = None,
        audit_reads: bool = False,
        redact: str | Iterable[str | Detector] = (),
    ) -> None:
        self.vault = vault
        self.name = principal
        self._redaction = of_detectors(redact)
        self._known = FREE
        self._made = threading.local()
        self.principal: bytes | None = None
        self._account = Account(vault, self, audits_reads=audit_reads)
        try:
            with vault.database.read() as transaction:
                access = self.sight(transaction).access
        except AccessDenied:
            self.principal = NOBODY
            self.chain(Deed("open", self._target(principal), allowed=False))
            raise
        if access.principal is not None:
            self.principal = id_bytes(access.principal.id)
        if audit_reads and not self._known.audited:
            raise InvalidOption(
                "audit_reads=True needs an audit log; begin it: mem.audit.start() or `mnemic audit start`"
            )

    def for_principal(self, name: str | None) -> Guard:
        """A guard of another principal over the same vault, for the owner or an admin of everything."""
        with self.vault.database.read() as transaction:
            seen = self.sight(transaction)
        if not rules_over(seen.access, EVERYWHERE, now=seen.now) or (name is None and self.name is not None):
            raise AccessDenied(f"{self.name} may not act as {name or 'the owner'}")
        other = Guard(self.vault, principal=name, audit_reads=self._account.audits_reads)
        other._redaction = self._redaction
        return other

    # --- what is in force

    def sight(self, transaction: Transaction) -> Sight:
        """The rules as of this transaction, and what they let this principal do. O(1) while none changes."""
        if transaction.rules is None:
            self._known = read_rules(transaction, self.vault.tenant, self._known)
            transaction.audited = self._known.audited
            transaction.rules = Sight(self._known.access(self.name), self._known, transaction.clock())
        seen: Sight = transaction.rules
        return seen

    def require_reach(self, transaction: Transaction, reach: Reach) -> Sight:
        """Raises AccessDenied where no grant could let this principal see anything in `reach`."""
        seen = self.sight(transaction)
        if not reaches(seen.access, Right.read, reach, now=seen.now):
            raise denied(seen.access, Right.read, f"in {reach}", self._target(reach.to_json()))
        return seen

    def require_admin(self, what: str) -> None:
        """Raises AccessDenied unless this is the owner or an admin of everything."""
        with self.vault.database.read() as transaction:
            seen = self.sight(transaction)
        if not rules_over(seen.access, EVERYWHERE, now=seen.now):
            raise denied(seen.access, Right.admin, what)

    def require_rule(self, what: str, reach: Reach, *, reads: bool = False) -> None:
        """Raises AccessDenied unless this is the owner or an admin of all of `reach`, who also `reads` it."""
        with self.vault.database.read() as transaction:
            seen = self.sight(transaction)
        require_admin(seen.access, reach, what, now=seen.now)
        if reads and not rules_over(seen.access, reach, Right.read, now=seen.now):
            raise denied(seen.access, Right.read, f"all of {reach}", self._target(reach.to_json()))

    def require_unheld(self, cubes: Iterable[str], spaces: Iterable[int]) -> None:
        """Raises LegalHold where one is on any of these cubes or what would go with them, on anything in
        these spaces, or on their user.

        Deleted or not. O(cubes).
        """
        with self.vault.database.read() as transaction:
            holds = self.sight(transaction).rules.holds
            if not holds:
                return
            rows = [
                transaction.row(reading.user_of_space, {"t": self.vault.tenant, "s": one}) for one in spaces
            ]
            named = {bytes(row[0]).decode() for row in rows if row is not None and row[0] is not None}
            if (
                any(hold.reach.user in named for hold in holds)
                or self.is_held(transaction, [id_bytes(cube) for cube in cubes])
                or any(
                    self._is_held(transaction, holds, space, row)
                    for space in spaces
                    for row in self._heads_in(transaction, space)
                )
            ):
                raise LegalHold(
                    "a legal hold is on some of it, so it may not be erased; see: mnemic policy list"
                )

    def is_held(self, transaction: Transaction, cubes: Collection[bytes]) -> bool:
        """Is a legal hold on any of these cubes, on what is merged into them or was made from them?"""
        if not (holds := self.sight(transaction).rules.holds):
            return False
        one_memory = with_merged(transaction, self.vault.tenant, cubes)
        going, _ = made_from_any(transaction, self.vault.tenant, one_memory)
        heads = (self.vault._head(transaction, id_text(cube)) for cube in sorted(going))
        return any(self._is_held(transaction, holds, space, row) for space, row in heads)

    def _is_held(self, transaction: Transaction, holds: Sequence[Policy], space: int, row: Stored) -> bool:
        names = self.vault._scope_names(transaction, space, row.scope)
        said = self.last_said(transaction, row)
        return any(hold.covers(names, labels_of(said.header)) for hold in holds)

    def _heads_in(self, transaction: Transaction, space: int) -> Iterator[Stored]:
        """The heads of a space, deleted ones too."""
        params = {"t": self.vault.tenant, "s": space, "seq": 0, "n": 1000}
        while rows := transaction.rows(reading.heads_after, params):
            yield from map(stored, rows)
            params = {**params, "seq": rows[-1][0]}

    # --- the actor of a transaction

    def permit(
        self,
        transaction: Transaction,
        scope: Scope,
        drafts: Sequence[Draft],
        heads: Sequence[bytes],
    ) -> None:
        """May this be written? Raises AccessDenied, LegalHold and RulesChanged. O(grants + policies)."""
        seen = self.sight(transaction)
        if seen.rules is FREE:
            return
        if getattr(self._made, "by", seen.rules).redactions != seen.rules.redactions:
            raise RulesChanged
        if seen.access.principal is not None:
            self._may_write(transaction, seen, scope, [one for one in drafts if not one.deleted], heads)
        if seen.rules.holds and any(draft.deleted for draft in drafts):
            for labels in self._labels(transaction, heads):
                if any(hold.covers(scope, labels) for hold in seen.rules.holds):
                    raise LegalHold(
                        "a legal hold is on it, so it may not be deleted; see: mnemic policy list"
                    )

    def admit(self, transaction: Transaction) -> None:
        """Raises AccessDenied for a stranger and who was disabled. O(1)."""
        self.sight(transaction)

    def look(self, transaction: Transaction, scope: Scope, row: Stored) -> bool:
        """Is it there to be seen? Raises Expired to who may see it. O(versions it was made from)."""
        seen = self.sight(transaction)
        if not self._may_see(transaction, seen, scope, row):
            return False
        said = self.last_said(transaction, row)
        fate = self.fate(transaction, scope, said)
        if row.deleted and row.state == State.expired:
            raise _expired(f"cube {id_text(row.cube)} has expired", row.recorded_at, fate.gone, seen.now)
        if fate.end <= seen.now:
            until = f"{to_datetime(fate.end):%Y-%m-%d %H:%M}"
            what = f"cube {id_text(row.cube)} was kept until {until} ({fate.why})"
            raise _expired(what, fate.end, fate.gone, seen.now)
        return row.origin != Origin.derived or self._sources_stand(transaction, row)

    def reads(self, transaction: Transaction, scope: Scope, row: Stored) -> bool:
        """May this version be read, whatever became of the cube?"""
        seen = self.sight(transaction)
        return check(seen.access, Right.read, scope, labels_of(row.header), now=seen.now)

    def require_reveal(self, transaction: Transaction, scope: Scope, row: Stored) -> None:
        """Raises AccessDenied for who may not see what was sealed out of this version, or may not read it."""
        seen, labels = self.sight(transaction), labels_of(row.header)
        for right in (Right.read, Right.reveal):
            if not check(seen.access, right, scope, labels, now=seen.now):
                raise denied(seen.access, right, "it", row.cube)

    def _may_write(
        self,
        transaction: Transaction,
        seen: Sight,
        scope: Scope,
        drafts: Sequence[Draft],
        heads: Sequence[bytes],
    ) -> None:
        grants = allowing(seen.access, Right.write, scope, now=seen.now)
        if any(grant.whole for grant in grants):
            return
        wanted: list[Collection[str]] = [draft.labels for draft in drafts]
        wanted += self._labels(transaction, heads)
        if not grants or not all(any(one.admits(labels) for one in grants) for labels in wanted):
            where = Reach(scope.user, scope.agent, scope.session)
            raise denied(seen.access, Right.write, f"in {where}", self._target(*scope[1:]))

    def _may_see(self, transaction: Transaction, seen: Sight, scope: Scope, row: Stored) -> bool:
        if seen.access.principal is None:
            return True
        for right in (Right.read, Right.write) if row.deleted else (Right.read,):
            grants = allowing(seen.access, right, scope, now=seen.now)
            if any(grant.whole for grant in grants):
                continue
            said = self._said(transaction, row) if row.deleted else [row]  # a tombstone has no labels
            if not all(any(one.admits(labels_of(past.header)) for one in grants) for past in said):
                return False
        return True

    def fate(self, transaction: Transaction, scope: Scope, row: Stored) -> Fate:
        """When a version's time is over, and when it is destroyed, by the rules of this transaction."""
        rules = self.sight(transaction).rules
        use = governing.use_of(transaction, self.vault.tenant, row.cube) if rules.counts_uses else None
        return fate_in(rules, scope, row, use)

    def _sources_stand(self, transaction: Transaction, row: Stored) -> bool:
        """What was made from something is seen by who sees that, as long as it is there."""
        header = json.loads(row.header)
        ended_by = header.get("ended_by")
        for source in (*header.get("sources", ()), *((ended_by,) if ended_by else ())):
            try:
                self.vault.visible_head(transaction, source["cube_id"])
            except Expired:
                raise
            except NotFound:
                return False
        return True

    def _labels(self, transaction: Transaction, heads: Sequence[bytes]) -> list[Collection[str]]:
        return [labels_of(header) for header in governing.headers_of(transaction, self.vault.tenant, heads)]

    def _said(self, transaction: Transaction, row: Stored) -> list[Stored]:
        """Every version of a cube that said something, oldest first."""
        rows = transaction.rows_in(reading.histories_of, {"t": self.vault.tenant}, [row.cube])
        return [one for one in (stored(found[1:]) for found in rows) if not one.deleted]

    def last_said(self, transaction: Transaction, row: Stored) -> Stored:
        """What speaks for a head: itself; of a deleted cube the last version that said something; of one that
        was fused what the fusion says. O(1), O(versions).
        """
        seen = {row.cube}
        while row.deleted and (into := merged_into(row.header)) is not None:
            try:
                _, row = self.vault._head(transaction, into)
            except NotFound:
                break
            if row.cube in seen:  # only in a file that somebody made up
                break
            seen.add(row.cube)
        return (self._said(transaction, row) or [row])[-1] if row.deleted else row

    def _target(self, *names: str | None) -> bytes:
        """An opaque id of what was asked for."""
        return mac(self.vault._key, "audit", *names)

    # --- what is not stored

    def redaction(self, scope: Scope | None, labels: Collection[str] = ()) -> Redaction:
        """What must be taken out of a text of this scope (None: of any) before anything else sees it.

        By the rules as last seen; `permit` refuses what was made by others than those in force.
        """
        self._made.by = self._known
        return self._redaction + self._known.redaction(scope, labels)

    def clean_reason(self, reason: str | None) -> str | None:
        return self.redaction(None).clean(reason) if isinstance(reason, str) else reason

    def check_id(self, redaction: Redaction, id: str | None) -> None:
        """Raises InvalidInput for an id that says what may not be stored, without saying it."""
        if id is not None and (found := redaction.spans(id)):
            kinds = ", ".join(dict.fromkeys(name for _, _, name in found))
            raise InvalidInput(f"the id holds what may not be stored ({kinds}); use another id")

    # --- around every verb

    def run(self, verb: str, call: Callable[[], T], args: Sequence[Any], options: Mapping[str, Any]) -> T:
        """Do it; chain what was refused, and note what was served. Raises what it raises."""
        try:
            result = self._retried(call)
        except MnemicError as error:
            self._clean_error(error)
            self._account.refused(verb, error, args, options, guest=self.name is not None)
            raise
        finally:
            self._made.__dict__.clear()
        self._account.served(verb, result, counts=self._known.counts_uses)
        return result

    def _retried(self, call: Callable[[], T]) -> T:
        for _ in range(_ATTEMPTS - 1):
            try:
                return call()
            except RulesChanged:
                continue
        return call()

    def chain(self, *deeds: Deed) -> None:
        """Put into the audit log what no transaction of its own does. O(deeds), durable."""
        self._account.chain(*deeds)

    def _clean_error(self, error: MnemicError) -> None:
        """An error must not say what may not be stored, nor what it came from."""
        redaction = self._redaction + self._known.redaction(None)
        if redaction.detectors:
            error.args = tuple(redaction.clean(one) if isinstance(one, str) else one for one in error.args)
            error.__cause__ = error.__context__ = None

    def flush(self) -> None:
        """Write what reading left behind."""
        self._account.flush()

    def close(self) -> None:
        self._account.close()


def _expired(what: str, end: int, gone: int, now: int) -> Expired:
    facts = Facts(now=now, reclaim_at=min(end + GRACE, gone))
    restorable = follow(State.expired, Event.restore, facts) is not None
    how = "; restore(id, version) brings it back" if restorable else ""
    return Expired(f"{what} and is not served any more{how}", restorable=restorable)


class Guarded(Protocol):
    """What has verbs that run through a guard."""

    _guard: Guard


G = TypeVar("G", bound=Guarded)
P = ParamSpec("P")
R = TypeVar("R")


def governed(method: Callable[Concatenate[G, P], R]) -> Callable[Concatenate[G, P], R]:
    """A verb that runs through its guard: refusals are chained, and served reads where that was asked for."""

    @wraps(method)
    def verb(self: G, /, *args: P.args, **options: P.kwargs) -> R:
        return self._guard.run(method.__name__, lambda: method(self, *args, **options), args, options)

    return verb
