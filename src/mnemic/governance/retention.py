"""How long things are kept: rules in words, and when a cube's time is over.

    keep 30 days              counted from when it was told or last changed
    keep while used 30 days   counted from its last use
    decay half-life 7 days below 0.1
                              (1 + uses) halves every 7 days since the last use, and under 0.1 it is over
    archive after 90 days     is set aside when it was not used for so long, and stays findable
    legal hold                nothing that it covers expires or may be deleted
    keep 30 days then erase after 7 days
                              what ends by this rule is destroyed 7 days later; after any of the first three
    erase expired after 30 days
                              what is over by whatever rule, or its own `expires_at`, is destroyed then

Of several rules the earliest end counts, a cube's own `expires_at` among them; a legal hold counts most.
What is over is not served from that moment; what is to be destroyed is, by the next sweep.
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
    """Kept for so long (µs) after it was told or last changed; destroyed `then` µs later."""

    span: int
    then: int | None = None

    def ends(self, recorded_at: IntArray, uses: IntArray, last_used: IntArray) -> IntArray:  # noqa: ARG002
        """(rows,) when it is over."""
        return recorded_at + self.span

    def __str__(self) -> str:
        return f"keep {say(self.span)}{_then(self.then)}"


@dataclass(frozen=True, slots=True)
class WhileUsed:
    """Kept for so long after its last use; destroyed `then` µs later."""

    span: int
    then: int | None = None

    def ends(self, recorded_at: IntArray, uses: IntArray, last_used: IntArray) -> IntArray:  # noqa: ARG002
        return np.maximum(recorded_at, last_used) + self.span

    def __str__(self) -> str:
        return f"keep while used {say(self.span)}{_then(self.then)}"


@dataclass(frozen=True, slots=True)
class Decay:
    """Its heat, 1 and one more for each use, halves every `half_life` since the last; below `floor` it is
    over, and destroyed `then` µs later.
    """

    half_life: int
    floor: float
    then: int | None = None

    def ends(self, recorded_at: IntArray, uses: IntArray, last_used: IntArray) -> IntArray:
        lasts = np.log2(np.maximum((1 + uses) / self.floor, 1)) * self.half_life
        return np.maximum(recorded_at, last_used) + lasts.astype(np.int64)

    def __str__(self) -> str:
        return f"decay half-life {say(self.half_life)} below {self.floor:g}{_then(self.then)}"


@dataclass(frozen=True, slots=True)
class Archive:
    """Set aside when it was not used for so long."""

    span: int

    def __str__(self) -> str:
        return f"archive after {say(self.span)}"


@dataclass(frozen=True, slots=True)
class Reclaim:
    """What is over, by whatever rule, is destroyed so long after."""

    span: int

    def __str__(self) -> str:
        return f"erase expired after {say(self.span)}"


@dataclass(frozen=True, slots=True)
class Hold:
    """It stays, whatever other rules say."""

    def __str__(self) -> str:
        return "legal hold"


ByUse = WhileUsed | Decay  # what is pinned is in use all the time
Ending = Keep | ByUse
Rule = Ending | Archive | Reclaim | Hold


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
    if found := re.fullmatch(rf"erase expired after {_SPAN}", said):
        return Reclaim(_span(found[1], found[2]))
    ending, separator, rest = said.partition(" then erase after ")
    then = read_span(rest) if separator else None
    if found := re.fullmatch(rf"keep {_SPAN}", ending):
        return Keep(_span(found[1], found[2]), then)
    if found := re.fullmatch(rf"keep while used(?: (?:within )?{_SPAN})?", ending):
        return WhileUsed(_span(found[1], found[2]) if found[1] else 30 * UNITS["day"] * SECOND, then)
    if found := re.fullmatch(rf"decay half-life {_SPAN}(?: below (0?\.\d+|1(?:\.0+)?))?", ending):
        floor = float(found[3] or 0.1)
        if not floor:
            raise InvalidOption(f"{text!r:.80}: below 0 nothing would ever be over; use a number such as 0.1")
        return Decay(_span(found[1], found[2]), floor, then)
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


def _then(span: int | None) -> str:
    return "" if span is None else f" then erase after {say(span)}"


def needs_usage(policies: Iterable[Policy]) -> bool:
    """Does any rule ask when a cube was last used?"""
    return any(isinstance(policy.rule, WhileUsed | Decay | Archive) for policy in policies)


def erases(policies: Iterable[Policy]) -> bool:
    """Does any rule destroy?"""
    return any(
        isinstance(policy.rule, Reclaim) or (isinstance(policy.rule, Ending) and policy.rule.then is not None)
        for policy in policies
    )


@dataclass(frozen=True, slots=True)
class Fate:
    """When one cube's time is over, and when it is to be destroyed (µs, NEVER), each by which rule."""

    end: int
    why: str
    gone: int = NEVER
    why_gone: str = ""


def fate_of(
    policies: Iterable[Policy],
    scope: Scope,
    labels: Collection[str],
    *,
    recorded_at: int,
    expires_at: int | None,
    use: Use | None = None,
    frozen: bool = False,
    pinned: bool = False,
) -> Fate:
    """What becomes of a cube: the readable form. O(policies)."""
    if frozen:
        return Fate(NEVER, "frozen")
    end, why = (NEVER, "") if expires_at is None else (expires_at, "expires_at")
    gone, why_gone, reclaim = NEVER, "", None
    uses, last = use or Use(0, recorded_at)
    columns = [np.array([value], np.int64) for value in (recorded_at, uses, last)]
    for policy in policies:
        rule = policy.rule
        if not policy.covers(scope, labels):
            continue
        if isinstance(rule, Hold):
            return Fate(NEVER, str(rule))
        if isinstance(rule, Reclaim) and (reclaim is None or rule.span < reclaim.span):
            reclaim = rule
        if isinstance(rule, Ending) and not (pinned and isinstance(rule, ByUse)):
            over = int(rule.ends(*columns)[0])
            if over < end:
                end, why = over, str(rule)
            if rule.then is not None and over + rule.then < gone:
                gone, why_gone = over + rule.then, str(rule)
    if reclaim is not None and end < NEVER and end + reclaim.span < gone:
        gone, why_gone = end + reclaim.span, str(reclaim)
    return Fate(end, why, gone, why_gone)
