"""What every way in agrees on: one thing that was told, or one record that could not be read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mnemic.cube.model import Origin
from mnemic.vault.codec import Secret


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """One message, note or record, verbatim, before it is cut into pieces and stored.

    `at` is microseconds UTC, None for "now". `session` is the session that the record itself names, None
    where the caller's scope decides. `id` is unique in the exact scope (user, agent, session). `source` and
    `line` say where in a file it stood. `secrets` are what was taken out of the text to be sealed.
    """

    text: str
    role: str = "user"
    name: str | None = None
    at: int | None = None
    id: str | None = None
    session: str | None = None
    origin: Origin = Origin.user
    labels: tuple[str, ...] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)
    source: str | None = None
    line: int | None = None
    secrets: tuple[Secret, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Skipped:
    """Why one item was not stored. `where` names the record: a position in the call, or file:line.

    `id` is the one it came with; `existing` is the cube that holds it already, if that is why.
    """

    where: str
    reason: str
    id: str | None = None
    existing: str | None = None
