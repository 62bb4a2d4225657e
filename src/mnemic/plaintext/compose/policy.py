"""Which strategy a context follows: everything, the best with its surroundings, or the best alone.

ConvoMem (Pakhomov et al. 2025) measures that up to some 150 conversations a reader given everything beats one
given what was retrieved. Its count of conversations is replaced by what it stands for: tokens against the
budget, the reader's window, and the length up to which the reader is known to stay reliable.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NamedTuple, Self

from mnemic.cube.checks import require_count, require_positive
from mnemic.cube.errors import InvalidOption

STRATEGIES: Final = ("full", "hybrid", "retrieval")
AUTO: Final = "auto"
RESERVE: Final = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class ContextOptions:
    """How a context is composed. Raises InvalidOption.

    window: tokens that fit into one call of the reader; None: not known, the budget alone decides. `reserve`
    of them are kept for the instruction, the question and the answer. reliable: tokens up to which the reader
    answers from everything at least as well as from the best of it (measure it with your reader); None: the
    budget. keep: after another strategy, full history comes back only below `keep` times the limit, so that a
    history near the limit does not flip between turns. reach: hybrid while the history is at most `reach`
    times the limit; beyond, gists of so many sessions say too little.

    recent, gist: the share of the budget that the hybrid strategy gives to the last turns and to one sentence
    a session; what they leave goes to evidence. beside: how much of a cube's worth passes to the cubes before
    and after it; 0: none, because the ranking has looked at them already, and a second time only costs
    evidence (docs/context.md). depth: a constant of that rule (see `evidence`).
    """

    window: int | None = None
    reserve: int = RESERVE
    reliable: int | None = None
    keep: float = 0.8
    reach: float = 10.0
    recent: float = 0.08
    gist: float = 0.0
    beside: float = 0.0
    depth: int = 10

    def __post_init__(self) -> None:
        for name in ("window", "reliable"):
            if getattr(self, name) is not None:
                require_count(**{name: getattr(self, name)})
        require_count(minimum=0, reserve=self.reserve)
        require_count(depth=self.depth)
        require_positive(keep=self.keep, reach=self.reach)
        for name in ("recent", "gist", "beside"):
            if getattr(self, name) != 0:
                require_positive(**{name: getattr(self, name)})
        if self.keep > 1 or self.recent + self.gist > 1:
            raise InvalidOption("keep, and recent and gist together, may not be above 1")
        if self.window is not None and self.window <= self.reserve:
            raise InvalidOption(
                f"window={self.window} leaves nothing after reserve={self.reserve} tokens; lower reserve="
            )

    @classmethod
    def of_reader(cls, window: int | None) -> Self:
        """The defaults for a reader with such a window; a small one keeps half of it for the rest."""
        return cls(window=window, reserve=RESERVE if window is None else min(RESERVE, window // 2))

    def room(self, budget: int) -> int:
        """What the text may take: the budget, and what the reader's window leaves."""
        return budget if self.window is None else min(budget, self.window - self.reserve)


class Choice(NamedTuple):
    """A strategy and why, in a sentence."""

    strategy: str
    reason: str


def check_strategy(strategy: object, *, previous: object = None) -> None:
    """Raises InvalidOption."""
    if strategy != AUTO and strategy not in STRATEGIES:
        raise InvalidOption(f"strategy={strategy!r:.80} must be one of {AUTO}, {', '.join(STRATEGIES)}")
    if previous is not None and previous not in STRATEGIES:
        raise InvalidOption(f"previous={previous!r:.80} must be one of {', '.join(STRATEGIES)}, or None")


def choose(
    history: int, *, budget: int, options: ContextOptions, previous: str | None = None, exact: bool = True
) -> Choice:
    """The strategy for a history of so many tokens. Pure; the reason names every input that decided.

    `exact` says whether `history` was counted or estimated; it only changes the wording.
    """
    limits = [(budget, f"the budget of {budget:,}")]
    if options.window is not None:
        limits.append((options.window - options.reserve, f"the reader's window of {options.window:,}"))
    if options.reliable is not None:
        limits.append((options.reliable, f"the reader's reliable length of {options.reliable:,}"))
    limit, name = min(limits)
    tokens = f"the history's {'' if exact else 'about '}{history:,} tokens"
    switching = previous is not None and previous != "full"
    if history <= limit * (options.keep if switching else 1):
        return Choice("full", f"{tokens} fit {name}")
    over = f"{tokens} do not fit {name}"
    if history <= limit:
        over = f"{tokens} are above {options.keep:g} of {name}, and the last context was {previous}"
    widest = limit * options.reach * (options.keep if previous == "retrieval" else 1)
    if history <= widest:
        return Choice("hybrid", f"{over}, and are at most {options.reach:g} times as many")
    return Choice("retrieval", f"{over}, by far (more than {widest / limit:g} times)")
