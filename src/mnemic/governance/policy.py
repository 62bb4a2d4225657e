"""Who may do what: one function decides, and everything else asks it.

(who, object, context) -> allow or deny (MemOS §5.5). Default deny: what no grant allows is refused. `check`
is the readable definition for one object; `allowing` hands its grants to who has to mask many rows at once.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from enum import IntFlag
from typing import Final

from mnemic.cube.errors import AccessDenied, InvalidOption
from mnemic.cube.model import Scope
from mnemic.cube.reach import EVERYWHERE, Reach

KINDS: Final = ("user", "agent", "service")


class Right(IntFlag):
    """What a grant allows. Admin is about grants, policies and the audit log; it does not read.

    reveal: to see what was sealed out of a text; in no role, so it is given by name.
    """

    read = 1
    write = 2
    admin = 4
    reveal = 8


ROLES: Final[dict[str, Right]] = {
    "reader": Right.read,
    "contributor": Right.write,
    "editor": Right.read | Right.write,
    "owner": Right.read | Right.write | Right.admin,
    "auditor": Right.admin,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """Somebody who acts: a user, an agent or a service."""

    id: str
    name: str
    kind: str
    disabled: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """`principal` (None: everyone) has `rights` on the scopes of `reach`, until `until` (µs; None: for good).

    label: only on cubes that have it. unless: only on cubes that do not have it.
    """

    id: str
    principal: str | None
    rights: Right
    reach: Reach = EVERYWHERE
    label: str | None = None
    unless: str | None = None
    until: int | None = None

    def lasts(self, now: int) -> bool:
        return self.until is None or now < self.until

    def admits(self, labels: Collection[str]) -> bool:
        """Does it hold for a cube with these labels?"""
        return (self.label is None or self.label in labels) and self.unless not in labels

    @property
    def whole(self) -> bool:
        """Does it hold for every cube of its scopes?"""
        return self.label is None and self.unless is None


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """A principal and the grants that are theirs or everyone's; without a principal, the vault's owner."""

    principal: Principal | None = None
    grants: tuple[Grant, ...] = ()


OWNER: Final = Access()


def check(access: Access, right: Right, scope: Scope, labels: Collection[str] = (), *, now: int) -> bool:
    """Whether somebody has a right on a cube with these labels in this scope at this time. O(grants)."""
    return access.principal is None or any(
        grant.admits(labels) for grant in allowing(access, right, scope, now=now)
    )


def allowing(access: Access, right: Right, scope: Scope, *, now: int) -> list[Grant]:
    """The grants that give a right in a scope, if only on some labels. O(grants)."""
    return [grant for grant in access.grants if gives(grant, right, now) and grant.reach.has(scope)]


def reaches(access: Access, right: Right, reach: Reach, *, now: int) -> bool:
    """Whether somebody could have a right on anything in `reach`: of the grants alone, whatever is there."""
    return access.principal is None or any(
        gives(grant, right, now) and grant.reach.meets(reach) for grant in access.grants
    )


def rules_over(access: Access, reach: Reach, right: Right = Right.admin, *, now: int) -> bool:
    """Whether somebody has a right, to be its admin by default, on all of `reach`."""
    return access.principal is None or any(
        gives(grant, right, now) and grant.whole and grant.reach.covers(reach) for grant in access.grants
    )


def require_admin(access: Access, reach: Reach, what: str, *, now: int) -> None:
    """Raises AccessDenied unless somebody is admin of all of `reach`."""
    if not rules_over(access, reach, now=now):
        raise AccessDenied(f"{_name(access)} is no admin of {reach}, and may not {what}")


def denied(access: Access, right: Right, what: object, target: bytes = b"") -> AccessDenied:
    """The refusal, in words that name only what the caller named."""
    return AccessDenied(
        f"{_name(access)} has no grant to {right.name} {what}. An admin of it can give one: "
        f"mnemic grant add {_name(access)} {right.name} …",
        target,
    )


def read_rights(said: str | Iterable[str]) -> Right:
    """Rights by name: "read", "read,write", ["read", "write"] or a role such as "editor"."""
    words = said.replace(",", " ").split() if isinstance(said, str) else list(said)
    out = Right(0)
    for word in words:
        if word in Right.__members__:
            out |= Right[word]
        elif word in ROLES:
            out |= ROLES[word]
        else:
            known = ", ".join([*Right.__members__, *ROLES])
            raise InvalidOption(f"{word!r:.80} is no right and no role; there are {known}")
    if not out:
        raise InvalidOption(f"name at least one right: {', '.join(Right.__members__)}")
    return out


def gives(grant: Grant, right: Right, now: int) -> bool:
    """Does a grant give a right somewhere, at this time?"""
    return bool(grant.rights & right) and grant.lasts(now)


def _name(access: Access) -> str:
    return access.principal.name if access.principal else "the owner"
