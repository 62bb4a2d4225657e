"""Rhythm: the arithmetic of LazyEviction, for tokens and notes alike."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mnemic.cube.errors import InvalidInput, InvalidOption
from mnemic.cube.recurrence import SCORES, RecurrenceTracker, advance, importance


def test_last_use_and_longest_gap() -> None:
    tracker = RecurrenceTracker.of(last=np.zeros(3, np.int64), xp=np)
    for step in range(1, 13):
        tracker.record(np.array([step % 4 == 0, step in (1, 2, 9), False]), step=step)
    assert tracker.last.tolist() == [12, 9, 0]
    assert tracker.longest.tolist() == [4, 7, 0]


def test_a_thing_within_its_rhythm_is_worth_more_than_one_beyond_it() -> None:
    """Equal silence of 30: one that has come back after 60 stays, one that never waited longer than 2
    goes.
    """
    tracker = RecurrenceTracker(last=np.array([70, 70, 70]), longest=np.array([60, 2, 0]), xp=np, step=100)
    slow, fast, never = tracker.scores()
    assert slow > 0.5 > 1e-3 > fast > never == 0


def test_the_published_scores_keep_for_ever_what_was_used_twice_running() -> None:
    dead = np.array([10]), np.array([1])  # used in steps 9 and 10, silent for a million
    for score, floor in (("paper", 1.0), ("code", 1.0)):
        assert importance(*dead, 1_000_000, score, np)[0] >= floor - 1e-6
    assert importance(*dead, 1_000_000, "gated", np)[0] < 1e-6


def test_allowed_silence_is_where_the_score_crosses_the_level() -> None:
    tracker = RecurrenceTracker(last=np.zeros(4, np.int64), longest=np.array([0, 1, 40, 900]), xp=np)
    allowed = tracker.allowed_silence(level=0.1)
    assert allowed[0] == 0
    for i in (1, 2, 3):
        assert importance(tracker.last, tracker.longest, int(allowed[i] - 1), "gated", np)[i] > 0.1
        assert importance(tracker.last, tracker.longest, int(allowed[i] + 2), "gated", np)[i] < 0.1
    assert tracker.droppable(step=int(allowed[2]) + 2).tolist() == [True, True, True, False]


def test_notes_come_and_go() -> None:
    tracker = RecurrenceTracker.of(last=np.array([0, 0]), xp=np)
    tracker.record(np.array([True, False]), step=7)
    tracker = tracker.arrived(np.array([8])).take(np.array([0, 2]))
    assert (tracker.last.tolist(), tracker.longest.tolist(), tracker.step) == ([7, 8], [7, 0], 7)


@pytest.mark.parametrize("score", SCORES)
def test_numpy_and_torch_agree_and_nothing_overflows(score: str) -> None:
    """Steps up to 100,000 in int32: exact, finite, equal in both libraries."""
    rng = np.random.default_rng(0)
    last, longest = np.zeros(500, np.int32), np.zeros(500, np.int32)
    t_last, t_longest = torch.zeros(500, dtype=torch.int32), torch.zeros(500, dtype=torch.int32)
    for step in [*range(1, 50), 300, 2_049, 65_535, 99_999, 100_000]:
        hit = rng.random(500) < 0.02
        last, longest = advance(last, longest, hit, step, np)
        t_last, t_longest = advance(t_last, t_longest, torch.from_numpy(hit), step, torch)
    assert (last.dtype, t_last.dtype, t_longest.dtype) == (np.int32, torch.int32, torch.int32)
    assert np.array_equal(last, t_last.numpy())
    assert np.array_equal(longest, t_longest.numpy())
    ours, theirs = (
        importance(last, longest, 100_001, score, np),
        importance(t_last, t_longest, 100_001, score, torch),
    )
    assert np.isfinite(ours).all()
    assert np.allclose(ours, theirs.numpy(), atol=1e-6)


def test_bad_use_is_refused() -> None:
    tracker = RecurrenceTracker.of(last=np.zeros(2, np.int64), xp=np, step=5)
    with pytest.raises(InvalidInput, match="before step 5"):
        tracker.record(np.array([True, True]), step=4)
    with pytest.raises(InvalidInput, match="shape"):
        tracker.record(np.array([True]), step=6)
    with pytest.raises(InvalidOption, match="gated"):
        tracker.scores(score="best")
    with pytest.raises(InvalidOption, match="level"):
        tracker.allowed_silence(level=0)
