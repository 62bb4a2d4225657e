"""What an admin does: principals, grants and policies. Each change is one transaction, and chained."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Final, TypeVar

from mnemic.cube.errors import InvalidOption, NotFound
from mnemic.cube.ids import id_bytes, id_text, new_ids
from mnemic.cube.model import ANY, ScopeField, Unset, check_scope_field
from mnemic.cube.reach import EVERYWHERE, Reach
from mnemic.cube.times import TimeLike, to_micros
from mnemic.governance.guard import Guard, Sight, governed
from mnemic.governance.policy import KINDS, Grant, Principal, read_rights, require_admin, rules_over
from mnemic.governance.retention import Policy
from mnemic.governance.rules import RedactionPolicy, Rules, grant_row, make_policy, read_rules
from mnemic.vault import audit, governing
from mnemic.vault.codec import mac
from mnemic.vault.database import Deed, Transaction

EVERYONE: Final = "everyone"
T = TypeVar("T")


class Governance:
    """Principals and what they may do. With the first principal an audit log begins.

    private: nobody has a grant but its owner. read-only: others have `read`. shared: others have `read` and
    `write`.
    """

    def __init__(self, guard: Guard) -> None:
        self._guard = guard

    @governed
    def add_principal(self, name: str, *, kind: str = "user", owns: str | None = None) -> Principal:
        """Make a principal known; without a grant it may do nothing.

        kind: user, agent or service. owns: the user whose memory is theirs: read, write and admin. Raises
        InvalidOption, also for a name that is taken, and AccessDenied.
        """
        checked = _name(name)
        if kind not in KINDS:
            raise InvalidOption(f"kind={kind!r:.40} must be one of {', '.join(KINDS)}")
        owned = Reach(user=check_scope_field("owns", owns)) if owns is not None else None

        def make(transaction: Transaction, rules: Rules) -> tuple[bytes, Principal]:
            if any(one.name == checked for one in rules.principals):
                raise InvalidOption(f"there is a principal {checked!r} already; choose another name")
            raw, grant = new_ids(2)
            tenant = self._guard.vault.tenant
            key = mac(self._guard.vault._key, "principal", checked)
            row = {"principal": raw, "name_key": key, "name": checked.encode(), "kind": kind}
            governing.add_principal(transaction, tenant, row)
            if owned is not None:
                given = Grant(
                    id=id_text(grant), principal=id_text(raw), rights=read_rights("owner"), reach=owned
                )
                governing.add_grant(transaction, tenant, grant_row(given))
            audit.start(transaction, tenant)
            return raw, Principal(id=id_text(raw), name=checked, kind=kind)

        return _change(self._guard, "add_principal", EVERYWHERE, make)

    @governed
    def principals(self) -> Sequence[Principal]:
        """Everybody who is known, the first made first. For an admin of everything."""
        return _rules(self._guard, "list principals").rules.principals

    @governed
    def disable(self, name: str, *, enable: bool = False) -> Principal:
        """Refuse a principal everything from now on, or with `enable` let their grants hold again."""

        def turn(transaction: Transaction, rules: Rules) -> tuple[bytes, Principal]:
            known = _find(rules, name)
            raw = id_bytes(known.id)
            governing.disable_principal(transaction, self._guard.vault.tenant, raw, not enable)
            return raw, Principal(id=known.id, name=known.name, kind=known.kind, disabled=not enable)

        return _change(self._guard, "enable" if enable else "disable", EVERYWHERE, turn)

    @governed
    def grant(
        self,
        principal: str,
        rights: str | Iterable[str],
        *,
        user: ScopeField = ANY,
        agent: ScopeField = ANY,
        session: ScopeField = ANY,
        label: str | None = None,
        unless: str | None = None,
        until: TimeLike | None = None,
    ) -> Grant:
        """Give somebody rights on scopes: a field left out is any, None only "unset".

        principal: a name, or "everyone". rights: read, write, admin, reveal, or a role: reader, contributor,
        editor, owner, auditor. label: only on what bears it; unless: not on what bears it. Whoever is admin
        of a scope may share it; raises AccessDenied for others, InvalidOption, NotFound.
        """
        reach = _reach(user, agent, session)
        given = read_rights(rights)
        ends = None if until is None else to_micros(until, field="until")

        def make(transaction: Transaction, rules: Rules) -> tuple[bytes, Grant]:
            whose = None if principal == EVERYONE else _find(rules, principal).id
            (raw,) = new_ids(1)
            made = Grant(
                id=id_text(raw),
                principal=whose,
                rights=given,
                reach=reach,
                label=_label(label),
                unless=_label(unless),
                until=ends,
            )
            governing.add_grant(transaction, self._guard.vault.tenant, grant_row(made))
            return raw, made

        return _change(self._guard, "grant", reach, make)

    @governed
    def revoke(self, grant: str) -> Grant:
        """Take a grant back. Raises NotFound; AccessDenied for who is no admin of what it covers."""
        raw = id_bytes(grant)
        found = next((one for one in _rules(self._guard).rules.grants if one.id == id_text(raw)), None)
        if found is None:
            raise NotFound(f"there is no grant {grant}; see: mnemic grant list")

        def drop(transaction: Transaction, rules: Rules) -> tuple[bytes, Grant]:  # noqa: ARG001
            if not governing.drop_grant(transaction, self._guard.vault.tenant, raw):
                raise NotFound(f"there is no grant {grant} any more")
            return raw, found

        return _change(self._guard, "revoke", found.reach, drop)

    @governed
    def grants(self, principal: str | None = None) -> Sequence[Grant]:
        """The grants on what the caller is admin of, or their own; of one principal, if that is named."""
        seen = _rules(self._guard)
        mine = seen.access.principal.id if seen.access.principal else None
        wanted = None if principal in (None, EVERYONE) else _find(seen.rules, str(principal)).id
        return [
            one
            for one in seen.rules.grants
            if (principal is None or one.principal == wanted)
            and (one.principal == mine or _rules_over(seen, one.reach))
        ]

    def name_of(self, principal: str | None) -> str:
        """The name behind the id in a grant; "everyone" for None."""
        rules = _rules(self._guard).rules
        if principal is None:
            return EVERYONE
        return next((one.name for one in rules.principals if one.id == principal), principal)


class Policies:
    """Rules in words about how long things are kept and what is never stored (docs/governance.md)."""

    def __init__(self, guard: Guard) -> None:
        self._guard = guard

    @governed
    def add(
        self,
        rule: str,
        *,
        user: ScopeField = ANY,
        agent: ScopeField = ANY,
        session: ScopeField = ANY,
        label: str | None = None,
    ) -> Policy | RedactionPolicy:
        """Put a rule in force, for all processes at once: "keep 30 days", "legal hold", "redact email" …

        Raises InvalidOption for what is no rule; AccessDenied unless the caller is admin of the scopes.
        """
        reach = _reach(user, agent, session)
        (raw,) = new_ids(1)
        policy = make_policy(id_text(raw), str(rule), reach, _label(label))
        if isinstance(policy, RedactionPolicy) and policy.redaction.sealed:
            _require_seals(self._guard)

        def make(transaction: Transaction, rules: Rules) -> tuple[bytes, Policy | RedactionPolicy]:  # noqa: ARG001
            row = {
                "policy": raw,
                "reach": reach.to_json().encode(),
                "label": None if policy.label is None else policy.label.encode(),
                "rule": str(policy.rule).encode(),
            }
            governing.add_policy(transaction, self._guard.vault.tenant, row)
            return raw, policy

        return _change(self._guard, "add_policy", reach, make)

    @governed
    def drop(self, policy: str) -> Policy | RedactionPolicy:
        """Take a rule out of force. Raises NotFound, AccessDenied."""
        raw = id_bytes(policy)
        found = next((one for one in self._all() if one.id == id_text(raw)), None)
        if found is None:
            raise NotFound(f"there is no policy {policy}; see: mnemic policy list")

        def drop(transaction: Transaction, rules: Rules) -> tuple[bytes, Policy | RedactionPolicy]:  # noqa: ARG001
            if not governing.drop_policy(transaction, self._guard.vault.tenant, raw):
                raise NotFound(f"there is no policy {policy} any more")
            return raw, found

        return _change(self._guard, "drop_policy", found.reach, drop)

    @governed
    def list(self) -> Sequence[Policy | RedactionPolicy]:
        """The rules on what the caller is admin of, the first made first."""
        seen = _rules(self._guard)
        return [one for one in self._all() if _rules_over(seen, one.reach)]

    def _all(self) -> Sequence[Policy | RedactionPolicy]:
        rules = _rules(self._guard).rules
        return sorted((*rules.policies, *rules.redactions), key=lambda one: one.id)


def _rules(guard: Guard, what: str | None = None) -> Sight:
    """What is in force now; with `what`, only for an admin of everything."""
    with guard.vault.database.read() as transaction:
        seen = guard.sight(transaction)
    if what is not None:
        require_admin(seen.access, EVERYWHERE, what, now=seen.now)
    return seen


def _change(
    guard: Guard, verb: str, reach: Reach, make: Callable[[Transaction, Rules], tuple[bytes, T]]
) -> T:
    """Change the rules, for who is admin of `reach`. The tenant's row is held first, so that what is checked
    is what is changed.
    """
    with guard.vault.as_actor(guard).database.write() as transaction:
        tenant = guard.vault.tenant
        governing.bump(transaction, tenant)
        rules = read_rules(transaction, tenant)  # never into the guard's cache: this may be rolled back
        require_admin(rules.access(guard.name), reach, verb.replace("_", " "), now=transaction.clock())
        target, made = make(transaction, rules)
        transaction.deeds.append(Deed(verb, target))
    return made


def _require_seals(guard: Guard) -> None:
    if guard.vault.database.sealing is None:
        raise InvalidOption(
            "what is taken out can be sealed only in a vault that was made with a key; use 'redact …' here, "
            "which keeps it nowhere"
        )


def _rules_over(seen: Sight, reach: Reach) -> bool:
    return rules_over(seen.access, reach, now=seen.now)


def _find(rules: Rules, name: str) -> Principal:
    for one in rules.principals:
        if one.name == name:
            return one
    raise NotFound(f"there is no principal {name!r:.80}; make one with: mnemic principal add NAME")


def _name(name: object) -> str:
    checked = check_scope_field("name", name)
    if checked is None or not checked.strip() or checked == EVERYONE:
        raise InvalidOption(f"name={name!r:.80} cannot name a principal")
    return checked


def _label(label: object) -> str | None:
    return check_scope_field("label", label)


def _reach(user: ScopeField, agent: ScopeField, session: ScopeField) -> Reach:
    for field, value in (("user", user), ("agent", agent), ("session", session)):
        if not isinstance(value, Unset):
            check_scope_field(field, value)
    return Reach(user, agent, session)
