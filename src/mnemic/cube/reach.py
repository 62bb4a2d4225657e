"""Which scopes a read, a grant or a rule is about: each field any, one name exactly, or "unset"."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Final, Self

from mnemic.cube.errors import ScopeRequired
from mnemic.cube.model import ANY, Scope, ScopeField, Unset, check_scope_field

_FIELDS = ("user", "agent", "session")


@dataclass(frozen=True, slots=True)
class Reach:
    """Scopes of one tenant: a field left out (ANY) matches anything, a given one exactly, None only
    "unset".
    """

    user: ScopeField = ANY
    agent: ScopeField = ANY
    session: ScopeField = ANY

    @classmethod
    def of(cls, user: ScopeField, agent: ScopeField, session: ScopeField, *, everyone: bool = False) -> Self:
        """Raises ScopeRequired unless a user or an agent is named, or `everyone` is."""
        for field, value in zip(_FIELDS, (user, agent, session), strict=True):
            if not isinstance(value, Unset):
                check_scope_field(field, value)
        if not everyone and not isinstance(user, str) and not isinstance(agent, str):
            raise ScopeRequired("say whose memory: user='…' or agent='…' (or everyone=True for all of them)")
        return cls(user, agent, session)

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        return cls(**json.loads(text))

    def to_json(self) -> str:
        """Of the fields that are given."""
        return json.dumps(self.given(), ensure_ascii=False)

    def given(self) -> dict[str, str | None]:
        """The fields that are not ANY."""
        values: dict[str, Any] = {field: getattr(self, field) for field in _FIELDS}
        return {field: value for field, value in values.items() if not isinstance(value, Unset)}

    def has(self, names: Scope) -> bool:
        """Is this scope one of them?"""
        return all(
            isinstance(want, Unset) or want == have
            for want, have in (
                (self.user, names.user),
                (self.agent, names.agent),
                (self.session, names.session),
            )
        )

    def meets(self, other: Reach) -> bool:
        """Could one scope be in both?"""
        return all(
            isinstance(mine, Unset) or isinstance(theirs, Unset) or mine == theirs
            for mine, theirs in self._beside(other)
        )

    def covers(self, other: Reach) -> bool:
        """Is every scope of the other one of these?"""
        return all(
            isinstance(mine, Unset) or (not isinstance(theirs, Unset) and mine == theirs)
            for mine, theirs in self._beside(other)
        )

    def _beside(self, other: Reach) -> tuple[tuple[ScopeField, ScopeField], ...]:
        return ((self.user, other.user), (self.agent, other.agent), (self.session, other.session))

    def __str__(self) -> str:
        said = [
            f"{field} {name}" if name is not None else f"no {field}" for field, name in self.given().items()
        ]
        return ", ".join(said) or "everything"


EVERYWHERE: Final = Reach()
