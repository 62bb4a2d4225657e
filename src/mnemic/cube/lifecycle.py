"""The life of a cube: which event leads from which state to which, and when it may. A table, not code.

The union of MemOS §5.2 (five states) and §5.4.3 (frozen, and restoring an older version).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Final

from mnemic.cube.errors import InvalidOption
from mnemic.cube.model import State


class Event(Enum):
    """What can happen to a cube."""

    add = "add"
    use = "use"
    pin = "pin"
    fuse = "fuse"
    idle = "idle"
    expire = "expire"
    freeze = "freeze"
    thaw = "thaw"
    restore = "restore"


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What a guard looks at; times in microseconds UTC.

    used_at: the last use, or when it was told. archive_after: how long it may lie idle (None: for ever).
    pinned: it counts as in use all the time.
    expires_at: None for never. reclaim_at: when what expired is no longer there to be restored. held: under
    a legal hold. before: the state in which it was frozen.
    """

    now: int = 0
    used_at: int = 0
    archive_after: int | None = None
    pinned: bool = False
    expires_at: int | None = None
    reclaim_at: int | None = None
    held: bool = False
    before: State = State.generated


Guard = Callable[[Facts], bool]


def always(_: Facts) -> bool:
    return True


def long_idle(facts: Facts) -> bool:
    """Not used for longer than `archive_after`, nor pinned."""
    idle = facts.archive_after is not None and facts.now - facts.used_at > facts.archive_after
    return idle and not facts.pinned


def is_over(facts: Facts) -> bool:
    """Its time has come, and no legal hold is on it."""
    return facts.expires_at is not None and facts.expires_at <= facts.now and not facts.held


def in_grace(facts: Facts) -> bool:
    """What expired has not been reclaimed yet."""
    return facts.reclaim_at is None or facts.now < facts.reclaim_at


@dataclass(frozen=True, slots=True)
class Step:
    """`start` None: there was no cube. `end` None: the state in which it was frozen."""

    start: State | None
    event: Event
    guard: Guard
    end: State | None


_g, _a, _m, _r, _e, _f = State
STEPS: Final[tuple[Step, ...]] = (
    Step(None, Event.add, always, _g),
    *(Step(start, Event.use, always, _a) for start in (_g, _a, _r)),
    *(Step(start, Event.pin, always, _a) for start in (_g, _a, _r)),
    *(Step(start, Event.fuse, always, _m) for start in (_g, _a, _r)),  # what lay idle is often told twice
    Step(_a, Event.idle, long_idle, _r),
    *(Step(start, Event.expire, is_over, _e) for start in (_g, _a, _m, _r)),
    *(Step(start, Event.freeze, always, _f) for start in (_g, _a, _m, _r)),
    Step(_f, Event.thaw, always, None),
    *(Step(start, Event.restore, always, _a) for start in (_m, _r)),
    Step(_e, Event.restore, in_grace, _a),
)
_TABLE: Final = {(step.start, step.event): step for step in STEPS}
_NO_FACTS: Final = Facts()


def follow(state: State | None, event: Event, facts: Facts = _NO_FACTS) -> State | None:
    """The state after an event, or None where the table has no such step or its guard does not hold. O(1)."""
    step = _TABLE.get((state, event))
    if step is None or not step.guard(facts):
        return None
    return facts.before if step.end is None else step.end


def require(state: State | None, event: Event, facts: Facts = _NO_FACTS) -> State:
    """The state after an event. Raises InvalidOption, naming what would be possible."""
    after = follow(state, event, facts)
    if after is None:
        possible = ", ".join(step.event.value for step in STEPS if step.start is state)
        name = "not there" if state is None else state.name
        raise InvalidOption(f"what is {name} cannot {event.value} now; it can: {possible}")
    return after
