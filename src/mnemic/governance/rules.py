"""All that is in force for a tenant at one version: principals, grants, policies, redaction."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Final

from mnemic.cube.errors import AccessDenied, InvalidOption
from mnemic.cube.ids import id_bytes, id_text
from mnemic.cube.model import Scope
from mnemic.cube.reach import EVERYWHERE, Reach
from mnemic.governance.policy import OWNER, Access, Grant, Principal, Right
from mnemic.governance.redaction import Redaction, joined, read_redaction
from mnemic.governance.redaction import say as say_redaction
from mnemic.governance.retention import Hold, Policy, needs_usage, read_rule
from mnemic.vault import governing
from mnemic.vault.database import Row, Transaction


@dataclass(frozen=True, slots=True, kw_only=True)
class RedactionPolicy:
    """What is not stored in some scopes, or only of what bears a label."""

    id: str
    redaction: Redaction
    reach: Reach = EVERYWHERE
    label: str | None = None

    @property
    def rule(self) -> str:
        return say_redaction(self.redaction)

    def covers(self, scope: Scope, labels: Collection[str]) -> bool:
        return self.reach.has(scope) and (self.label is None or self.label in labels)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """`version` is -1 where nothing was ever ruled; then everybody who opens the vault is its owner."""

    version: int = -1
    audited: bool = False
    principals: tuple[Principal, ...] = ()
    grants: tuple[Grant, ...] = ()
    policies: tuple[Policy, ...] = ()
    redactions: tuple[RedactionPolicy, ...] = ()
    counts_uses: bool = field(default=False)
    holds: tuple[Policy, ...] = ()

    def access(self, name: str | None) -> Access:
        """What a principal may do; None is the owner. Raises AccessDenied for a stranger or the disabled."""
        if name is None:
            return OWNER
        for principal in self.principals:
            if principal.name == name:
                if principal.disabled:
                    raise AccessDenied(f"principal {name!r} is disabled; an admin can enable it again")
                mine = tuple(one for one in self.grants if one.principal in (None, principal.id))
                return Access(principal=principal, grants=mine)
        raise AccessDenied(f"there is no principal {name!r:.80}; make one with: mnemic principal add NAME")

    def redaction(self, scope: Scope | None, labels: Collection[str] = ()) -> Redaction:
        """What is not stored in a scope; None: what is not stored somewhere."""
        return joined(
            [one.redaction for one in self.redactions if scope is None or one.covers(scope, labels)]
        )

    def named(self, principal: bytes | None) -> str:
        """The name behind an id of the audit log; the id where it is gone."""
        if principal is None:
            return "(owner)"
        text = id_text(principal)
        if not any(principal):
            return "(nobody)"
        return next((one.name for one in self.principals if one.id == text), text)


FREE: Final = Rules()


def read_rules(transaction: Transaction, tenant: str, known: Rules = FREE) -> Rules:
    """The rules as of this transaction. O(1) where `known` still holds, else O(rules)."""
    state = governing.state(transaction, tenant)
    if state is None:
        return FREE
    version, audited = state
    if known.version == version and known.audited == audited:
        return known
    policies = [read_policy(row) for row in governing.policies(transaction, tenant)]
    kept = tuple(one for one in policies if isinstance(one, Policy))
    return Rules(
        version=version,
        audited=audited,
        principals=tuple(_principal(row) for row in governing.principals(transaction, tenant)),
        grants=tuple(_grant(row) for row in governing.grants(transaction, tenant)),
        policies=kept,
        redactions=tuple(one for one in policies if isinstance(one, RedactionPolicy)),
        counts_uses=needs_usage(kept),
        holds=tuple(one for one in kept if isinstance(one.rule, Hold)),
    )


def read_policy(row: Row) -> Policy | RedactionPolicy:
    raw, reach, label, rule = row
    return make_policy(id_text(bytes(raw)), bytes(rule).decode(), Reach.from_json(bytes(reach)), _text(label))


def make_policy(id: str, text: str, reach: Reach, label: str | None) -> Policy | RedactionPolicy:
    """A rule in words, and what it is for. Raises InvalidOption."""
    redaction = read_redaction(text)
    if redaction is not None:
        if not redaction.detectors:
            raise InvalidOption(
                "say what to redact or seal, as in 'redact email, phone', 'redact all', 'seal card'"
            )
        return RedactionPolicy(id=id, redaction=redaction, reach=reach, label=label)
    rule = read_rule(text)
    if rule is None:
        raise InvalidOption(
            f"{text!r:.80} is no rule. There are: keep 30 days · keep while used 30 days · "
            "decay half-life 7 days below 0.1 · any of them then erase after 7 days · erase expired after "
            "30 days · archive after 90 days · legal hold · redact email, phone · "
            "seal card"
        )
    return Policy(id=id, rule=rule, reach=reach, label=label)


def _principal(row: Row) -> Principal:
    raw, name, kind, disabled = row
    return Principal(id=id_text(bytes(raw)), name=bytes(name).decode(), kind=kind, disabled=bool(disabled))


def _grant(row: Row) -> Grant:
    raw, principal, rights, reach, label, unless, until = row
    return Grant(
        id=id_text(bytes(raw)),
        principal=None if principal is None else id_text(bytes(principal)),
        rights=Right(rights),
        reach=Reach.from_json(bytes(reach)),
        label=_text(label),
        unless=_text(unless),
        until=until,
    )


def _text(raw: bytes | None) -> str | None:
    return None if raw is None else bytes(raw).decode()


def grant_row(grant: Grant) -> dict[str, object]:
    return {
        "grant_id": id_bytes(grant.id),
        "principal": None if grant.principal is None else id_bytes(grant.principal),
        "rights": int(grant.rights),
        "reach": grant.reach.to_json().encode(),
        "label": None if grant.label is None else grant.label.encode(),
        "unless": None if grant.unless is None else grant.unless.encode(),
        "until": grant.until,
    }
