"""How long things are kept: rules in words, and when a cube's time is over.

    keep 30 days              counted from when it was told or last changed
    keep while used 30 days   counted from its last use
    decay half-life 7 days below 0.1
                              (1 + uses) halves every 7 days since the last use, and under 0.1 it is over
    archive after 90 days     is set aside when it was not used for so long, and stays findable
    legal hold                nothing that it covers expires or may be deleted

Of several rules the earliest end counts, a cube's own `expires_at` among them; a legal hold counts most.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from mnemic.cube.errors import InvalidOption
from mnemic.cube.model import Scope
from mnemic.cube.reach import EVERYWHERE, Reach
from mnemic.vault.governing import Use

IntArray = NDArray[np.int64]
NEVER: Final = int(np.iinfo(np.int64).max)
SECOND: Final = 1_000_000
UNITS: Final = {"second": 1, "minute": 60, "hour": 3600, "day": 86_400, "week": 604_800, "year": 31_557_600}
_SPAN: Final = rf"(\d{{1,9}}) ?({'|'.join(UNITS)})s?"
GRACE: Final = 30 * 86_400 * SECOND  # after its end, in which a cube can be restored


@dataclass(frozen=True, slots=True)
class Keep:
    """Kept for so long (µs) after it was told or last changed."""

    span: int

    def ends(self, recorded_at: IntArray, uses: IntArray, last_used: IntArray) -> IntArray:  # noqa: ARG002
        """(rows,) when it is over."""
        return recorded_at + self.span

    def __str__(self) -> str:
        return f"keep {say(self.span)}"


@dataclass(frozen=True, slots=True)
class WhileUsed:
    """Kept for so long after its last use."""

    span: int

    def ends(self, recorded_at: IntArray, uses: IntArray, last_used: IntArray) -> IntArray:  # noqa: ARG002
        return np.maximum(recorded_at, last_used) + self.span

    def __str__(self) -> str:
        return f"keep while used {say(self.span)}"


@dataclass(frozen=True, slots=True)
class Decay:
    """Its heat, 1 and one more for each use, halves every `half_life` since the last; below `floor` it is
    over.
    """

    half_life: int
    floor: float

    def ends(self, recorded_at: IntArray, uses: IntArray, last_used: IntArray) -> IntArray:
        lasts = np.log2(np.maximum((1 + uses) / self.floor, 1)) * self.half_life
        return np.maximum(recorded_at, last_used) + lasts.astype(np.int64)

    def __str__(self) -> str:
        return f"decay half-life {say(self.half_life)} below {self.floor:g}"


@dataclass(frozen=True, slots=True)
class Archive:
    """Set aside when it was not used for so long."""

    span: int

    def __str__(self) -> str:
        return f"archive after {say(self.span)}"


@dataclass(frozen=True, slots=True)
class Hold:
    """It stays, whatever other rules say."""

    def __str__(self) -> str:
        return "legal hold"


Ending = Keep | WhileUsed | Decay
Rule = Ending | Archive | Hold


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """A rule for the cubes of some scopes, or only for those with a label."""

    id: str
    rule: Rule
    reach: Reach = EVERYWHERE
    label: str | None = None

    def covers(self, scope: Scope, labels: Collection[str]) -> bool:
        return self.reach.has(scope) and (self.label is None or self.label in labels)


def read_rule(text: str) -> Rule | None:
    """A rule in words, or None where it is none about keeping. Raises InvalidOption for a half one."""
    said = " ".join(text.lower().split())
    if said == "legal hold":
        return Hold()
    if found := re.fullmatch(rf"keep {_SPAN}", said):
        return Keep(_span(found[1], found[2]))
    if found := re.fullmatch(rf"keep while used(?: (?:within )?{_SPAN})?", said):
        return WhileUsed(_span(found[1], found[2]) if found[1] else 30 * UNITS["day"] * SECOND)
    if found := re.fullmatch(rf"decay half-life {_SPAN}(?: below (0?\.\d+|1(?:\.0+)?))?", said):
        floor = float(found[3] or 0.1)
        if not floor:
            raise InvalidOption(f"{text!r:.80}: below 0 nothing would ever be over; use a number such as 0.1")
        return Decay(_span(found[1], found[2]), floor)
    if found := re.fullmatch(rf"archive after {_SPAN}", said):
        return Archive(_span(found[1], found[2]))
    return None


def read_span(text: str) -> int:
    """Such as "7 days", in microseconds. Raises InvalidOption."""
    found = re.fullmatch(_SPAN, " ".join(str(text).lower().split()))
    if found is None:
        raise InvalidOption(f"{text!r:.80} is no span of time; write it as in '30 days' or '12 hours'")
    return _span(found[1], found[2])


def _span(number: str, unit: str) -> int:
    span = int(number) * UNITS[unit] * SECOND
    if not 0 < span < NEVER // 4:
        raise InvalidOption(
            f"{number} {unit}s is not a span that a clock can count; use 1 second to 9999 years"
        )
    return span


def say(span: int) -> str:
    """A span of microseconds in the largest unit that fits."""
    for unit, seconds in reversed(UNITS.items()):
        if unit not in ("year", "week") and span % (seconds * SECOND) == 0:
            count = span // (seconds * SECOND)
            return f"{count} {unit}{'s' if count != 1 else ''}"
    return f"{span / SECOND:g} seconds"


def needs_usage(policies: Iterable[Policy]) -> bool:
    """Does any rule ask when a cube was last used?"""
    return any(isinstance(policy.rule, WhileUsed | Decay | Archive) for policy in policies)


def end_of(
    policies: Iterable[Policy],
    scope: Scope,
    labels: Collection[str],
    *,
    recorded_at: int,
    expires_at: int | None,
    use: Use | None = None,
    frozen: bool = False,
) -> tuple[int, str]:
    """When one cube's time is over (µs, NEVER), and by which rule: the readable form. O(policies)."""
    if frozen:
        return NEVER, "frozen"
    end, why = (NEVER, "") if expires_at is None else (expires_at, "expires_at")
    uses, last = use or Use(0, recorded_at)
    columns = [np.array([value], np.int64) for value in (recorded_at, uses, last)]
    for policy in policies:
        if not policy.covers(scope, labels):
            continue
        if isinstance(policy.rule, Hold):
            return NEVER, str(policy.rule)
        if not isinstance(policy.rule, Archive) and (over := int(policy.rule.ends(*columns)[0])) < end:
            end, why = over, str(policy.rule)
    return end, why
