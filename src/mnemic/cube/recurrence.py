"""How long may something be silent before it is safe to drop? By its own rhythm (LazyEviction, arXiv
2506.15969).

Two whole numbers a thing: when it was last used, and the longest gap between two uses it has ever come back
from. A thing whose silence is well inside that gap is likely to be wanted again; one silent for much longer
is not. The same arithmetic serves tokens in a cache (steps) and notes in a memory (hours, days): it is
written for whatever arrays `xp` makes, numpy or torch, and imports neither.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from mnemic.cube.errors import InvalidInput, InvalidOption

SCORES: Final = ("gated", "code", "paper", "last")


def advance(last: Any, longest: Any, hit: Any, step: int, xp: Any) -> tuple[Any, Any]:
    """`last` and `longest` after `step`, in which the things with `hit` were used. Integer arrays, one shape.

    longest 0 means: never used since it came.
    """
    gap = step - last
    return xp.where(hit, step, last), xp.where(hit, xp.maximum(longest, gap), longest)


def importance(last: Any, longest: Any, step: int, score: str, xp: Any) -> Any:
    """How much each thing is worth keeping at `step`; float, higher stays. Never infinite, never NaN.

    With s = silence, M = longest gap, H1 = 2·sigmoid(-s/M), H2 = 2·sigmoid(-(M - 1)):
    "gated" (ours): H1·(1 + H2), 0 where M = 0: the bonus for a fast rhythm ends with the evidence for it.
    "paper": H1 + H2, and H1 alone where M = 0 (there 1 if used just now, else 0).
    "last": minus the silence, whatever the rhythm (RaaS's timestamps, arXiv 2502.11147): the control for M.
    "code": the published program's: H1 = 2·sigmoid(-(1 + s/(M + 1e-5))). Under both published scores
    something used in two consecutive steps (M = 1) scores 1 for ever, however long it has been silent.
    """
    silent = (step - last) * 1.0
    if score == "last":
        return -silent
    never = longest == 0
    rhythm = xp.maximum(longest, xp.ones_like(longest)) * 1.0
    often = _twice_sigmoid(rhythm - 1.0, xp)
    if score == "code":
        past = 1.0 + silent / xp.where(never, silent * 0.0 + 1e-5, rhythm)
        return _twice_sigmoid(past, xp) + xp.where(never, often * 0.0, often)
    steady = _twice_sigmoid(silent / rhythm, xp)
    if score == "paper":
        fresh = xp.where(silent == 0, silent * 0.0 + 1.0, silent * 0.0)
        return xp.where(never, fresh, steady + often)
    return xp.where(never, silent * 0.0, steady * (1.0 + often))


def _twice_sigmoid(x: Any, xp: Any) -> Any:
    """2·sigmoid(-x) for x >= 0, which no x overflows."""
    small = xp.exp(-x)
    return 2.0 * small / (1.0 + small)


@dataclass(slots=True, kw_only=True)
class RecurrenceTracker:
    """The rhythm of many things over time. `last`, `longest`: int arrays of any one shape.

        tracker = RecurrenceTracker.of(last=np.zeros(3, np.int64), xp=np)
        tracker.record(np.array([True, False, False]), step=5)
        tracker.allowed_silence()

    Steps must not go back; equal steps count once.
    """

    last: Any
    longest: Any
    xp: Any
    step: int = 0

    @classmethod
    def of(cls, *, last: Any, xp: Any, step: int = 0) -> RecurrenceTracker:
        """Things that came at `last` and have not been used since. xp: the arrays' module, numpy or torch."""
        return cls(last=last, longest=xp.zeros_like(last), xp=xp, step=step)

    def record(self, hit: Any, *, step: int) -> None:
        """The things with `hit` (bool, the same shape) were used at `step`. O(things)."""
        if step < self.step:
            raise InvalidInput(f"step {step} lies before step {self.step}, which has been recorded")
        if tuple(hit.shape) != tuple(self.last.shape):
            raise InvalidInput(f"hit has shape {tuple(hit.shape)}, the tracker {tuple(self.last.shape)}")
        self.step = step
        self.last, self.longest = advance(self.last, self.longest, hit, step, self.xp)

    def scores(self, *, step: int | None = None, score: str = "gated") -> Any:
        """How much each is worth keeping now (or at `step`): see `importance`."""
        if score not in SCORES:
            raise InvalidOption(f"score must be one of {', '.join(SCORES)}, got {score!r:.80}")
        return importance(self.last, self.longest, self.step if step is None else step, score, self.xp)

    def allowed_silence(self, *, level: float = 0.1) -> Any:
        """Steps each may be silent before its gated score falls below `level` (in (0, 1)): 0 where never
        used.

        The score at silence s is H1(s)·(1 + H2), so s = M · log(2·(1 + H2)/level - 1).
        """
        if not 0 < level < 1:
            raise InvalidOption(f"level must lie in (0, 1), got {level!r:.80}")
        rhythm = self.longest * 1.0
        often = _twice_sigmoid(
            self.xp.maximum(self.longest - 1, self.xp.zeros_like(self.longest)) * 1.0, self.xp
        )
        return rhythm * self.xp.log(2.0 * (1.0 + often) / level - 1.0)

    def droppable(self, *, step: int | None = None, level: float = 0.1) -> Any:
        """Bool: silent for longer than `allowed_silence`."""
        return ((self.step if step is None else step) - self.last) > self.allowed_silence(level=level)

    def take(self, index: Any) -> RecurrenceTracker:
        """The things at `index`, in a tracker of their own."""
        return RecurrenceTracker(
            last=self.last[index], longest=self.longest[index], xp=self.xp, step=self.step
        )

    def arrived(self, last: Any) -> RecurrenceTracker:
        """With further things that came at `last`, along the first axis."""
        join = getattr(self.xp, "concatenate", None) or self.xp.cat
        return RecurrenceTracker(
            last=join([self.last, last]),
            longest=join([self.longest, self.xp.zeros_like(last)]),
            xp=self.xp,
            step=self.step,
        )
