"""The table of states is that of memos.md, section 4; nothing else is possible."""

from __future__ import annotations

from itertools import product

import pytest

from mnemic.cube.errors import InvalidOption
from mnemic.cube.lifecycle import STEPS, Event, Facts, follow, require
from mnemic.cube.model import State

g, a, m, r, e, f = State
# event -> from which states, and to which
TABLE = {
    Event.add: ({None}, g),
    Event.use: ({g, a, r}, a),
    Event.pin: ({g, a, r}, a),
    Event.fuse: ({g, a, r}, m),  # and what lay idle, which the table there leaves out
    Event.idle: ({a}, r),
    Event.expire: ({g, a, m, r}, e),
    Event.freeze: ({g, a, m, r}, f),
    Event.thaw: ({f}, m),
    Event.restore: ({m, r, e}, a),
}
MAY = Facts(now=100, used_at=10, archive_after=50, expires_at=100, reclaim_at=101, before=m)


@pytest.mark.parametrize(("state", "event"), list(product([None, *State], Event)))
def test_every_step_is_in_the_table_and_no_other(state: State | None, event: Event) -> None:
    starts, end = TABLE[event]
    assert follow(state, event, MAY) is (end if state in starts else None)
    if state in starts:
        assert require(state, event, MAY) is end
    else:
        with pytest.raises(InvalidOption, match=f"cannot {event.value} now"):
            require(state, event, MAY)


def test_guards_hold_back() -> None:
    assert follow(a, Event.idle, Facts(now=100, used_at=60, archive_after=50)) is None
    assert follow(a, Event.idle, Facts(now=100, used_at=0)) is None, "no rule says how long"
    assert follow(a, Event.idle, Facts(now=100, used_at=0, archive_after=50, pinned=True)) is None
    for state in (g, a, m, r):
        assert follow(state, Event.expire, Facts(now=99, expires_at=100)) is None
        assert follow(state, Event.expire, Facts(now=100)) is None
        assert follow(state, Event.expire, Facts(now=100, expires_at=100, held=True)) is None
    assert follow(f, Event.expire, MAY) is None, "what is frozen does not expire"
    assert follow(e, Event.restore, Facts(now=100, reclaim_at=100)) is None, "after its grace it is gone"
    assert follow(e, Event.restore, Facts(now=100)) is a


def test_a_step_stands_in_the_table_once() -> None:
    assert len({(step.start, step.event) for step in STEPS}) == len(STEPS)
