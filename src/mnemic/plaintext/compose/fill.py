"""Rows into a token budget: taken in the order given, whole where they fit, else in whole sentences."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from itertools import islice
from typing import Final, NamedTuple

from mnemic.cube.errors import BudgetTooSmall, InvalidOption
from mnemic.models.tokens import TokenCounter
from mnemic.plaintext.compose.history import MOST_CHARS, History, count_history
from mnemic.plaintext.compose.render import REF_LENGTH, Shown, chronological, heading, line, make_refs, render
from mnemic.plaintext.compose.scene import LEAST_LINE, Scene
from mnemic.plaintext.compose.sentences import excerpt, said
from mnemic.plaintext.ingest.features import speaker_of
from mnemic.plaintext.ingest.recalled import CLOSING, OPENING

BATCH: Final = 64
GIVE_UP: Final = 24  # rows in a row that did not fit
LONG: Final = (
    0.25  # a text above this share of the budget may be shortened; below, half of it says too little
)
SMALLEST: Final = f"{OPENING}\n## Mon 8 May 2023\n[a3f9] 14:05 Ana: Yes.\n{CLOSING}"
EVIDENCE: Final = "evidence"
NO_ROOM: Final = "did not fit the budget"


class Why(NamedTuple):
    """Why a row is shown; `beside` is the row of the evidence it stands beside."""

    text: str
    beside: int | None = None


class Draft:
    """A context while it is filled. `spent` is an estimate on the safe side until `settle` counts the
    text.
    """

    def __init__(self, scene: Scene, budget: int, counter: TokenCounter, question: Sequence[str]) -> None:
        self.scene, self.budget, self._question, self._counter = scene, budget, question, counter
        self.shown: dict[int, Shown] = {}  # row -> what is shown of it, in the order taken
        self.why: dict[int, Why] = {}
        self.left_out: dict[int, str] = {}
        self._costs: dict[int, int] = {}
        self._groups: set[object] = set()
        self._said: dict[tuple[str | None, str], int] = {}
        smallest = self.count(SMALLEST)
        if budget < smallest:
            raise BudgetTooSmall(
                f"a budget of {budget} tokens cannot hold even one short line, which takes {smallest} with "
                "its date and marks; raise budget="
            )
        self.spent = self.count(f"{OPENING}\n{CLOSING}")
        self._settled: tuple[str, int] | None = None

    @cached_property
    def history(self) -> History:
        """What everything would take."""
        return count_history(self.scene, self.count, near=self.budget)

    def count(self, text: str) -> int:
        tokens = self._counter(text)
        if isinstance(tokens, bool) or not isinstance(tokens, int) or tokens < 0:
            raise InvalidOption(f"count_tokens must return a whole number of at least 0, got {tokens!r:.80}")
        return tokens

    def fill(
        self,
        rows: Iterable[tuple[int, Why]],
        *,
        share: int | None = None,
        distinct: bool = False,
        in_a_row: bool = False,
        whole: bool = False,
    ) -> None:
        """Take rows, each with why it is there, until the budget (or `share` tokens more) is used up.

        distinct: leave out what repeats a line word for word. in_a_row: stop at the first that does not fit,
        so that no gap arises. whole: never shorten.
        """
        limit = self.budget if share is None else min(self.budget, self.spent + share)
        refused = 0
        for row, why in self._fetched(rows):
            if limit - self.spent < LEAST_LINE or refused >= (1 if in_a_row else GIVE_UP):
                return
            if row in self.shown:
                continue
            worded = self._wording(row, limit - self.spent, distinct=distinct, whole=whole)
            if worded is not None:
                self._take(*worded, why)
                refused = 0
            elif self.left_out[row] == NO_ROOM:
                refused += 1

    def put(self, shown: Shown, why: Why, *, limit: int) -> None:
        """Take one row as it is worded, if `spent` stays within `limit`."""
        cost = self._cost(shown)
        if shown.row not in self.shown and self.spent + cost <= min(limit, self.budget):
            self._take(shown, cost, why)

    def put_all(self, shown: Iterable[Shown], why: Why) -> None:
        """Take rows that are known to fit together: what each costs is not asked."""
        for one in shown:
            self._take(one, 0, why)

    def settle(self) -> tuple[str, int]:
        """The text, within the budget, and its exact tokens.

        Drops the last taken where the estimate fell short.
        """
        if self._settled is not None:
            return self._settled
        text = self._text()
        tokens = self.count(text)
        while tokens > self.budget:
            excess = tokens - self.budget
            while excess > 0:
                row = next(reversed(self.shown))
                excess -= max(1, self._costs[row])
                self._drop(row)
            text = self._text()
            tokens = self.count(text)
        if self.shown:
            self.spent = tokens
        self._settled = text, tokens
        return text, tokens

    def ordered(self) -> list[Shown]:
        return chronological(self.shown.values())

    def refs(self) -> dict[str, str]:
        return make_refs(one.cube.id for one in self.shown.values())

    def _text(self) -> str:
        return render(self.ordered(), self.refs())

    def _fetched(self, rows: Iterable[tuple[int, Why]]) -> Iterator[tuple[int, Why]]:
        stream = iter(rows)
        while some := list(islice(stream, BATCH)):
            self.scene.cubes(row for row, _ in some)
            yield from some

    def _wording(self, row: int, room: int, *, distinct: bool, whole: bool) -> tuple[Shown, int] | None:
        """The row as it can be shown and what that costs; None with the reason in `left_out`."""
        (cube,) = self.scene.cubes([row])
        shown = Shown(row, cube, said(cube))
        if not shown.text:
            self.left_out[row] = "holds only recalled text"
            return None
        if distinct and (other := self._said.get(_key(shown))) is not None:
            self.left_out[row] = f"duplicate of {self.shown[other].cube.id}"
            return None
        cost = self._cost(shown) if len(shown.text) <= MOST_CHARS * room else None
        if cost is not None and cost <= room:
            return shown, cost
        shortened = None
        if not whole and (cost is None or cost > LONG * self.budget):
            shortened = self._shortened(shown, room)
        if shortened is None:
            self.left_out[row] = NO_ROOM
            return None
        return shortened, self._cost(shortened)

    def _shortened(self, shown: Shown, room: int) -> Shown | None:
        """A run of whole sentences, of at most `LONG` of the budget; None where none fits."""
        share = int(LONG * self.budget)
        frame = self._cost(replace(shown, text="", span=None)) + 2 * self.count(" …")
        spans = excerpt(shown.text, self._question, self.count, min(room, max(share, 2 * frame)) - frame)
        return replace(shown, span=(spans[0][0], spans[-1][1])) if spans else None

    def _cost(self, shown: Shown) -> int:
        text = "\n" + line(shown, "f" * REF_LENGTH, clock="00:00")
        return self.count(text if _group(shown) in self._groups else f"\n{heading(shown)}{text}")

    def _take(self, shown: Shown, cost: int, why: Why) -> None:
        row = shown.row
        self._costs[row] = cost
        self.spent += cost
        self._settled = None
        self._groups.add(_group(shown))
        self._said.setdefault(_key(shown), row)
        self.shown[row], self.why[row] = shown, why
        self.left_out.pop(row, None)

    def _drop(self, row: int) -> None:
        shown = self.shown.pop(row)
        self.left_out[row] = NO_ROOM
        if self._said.get(_key(shown)) == row:
            del self._said[_key(shown)]
        if all(_group(other) != _group(shown) for other in self.shown.values()):
            self._groups.discard(_group(shown))


def _key(shown: Shown) -> tuple[str | None, str]:
    """Who says what, white space and case aside."""
    return speaker_of(shown.cube.header), " ".join(shown.text.split()).casefold()


def _group(shown: Shown) -> object:
    """What shares a heading."""
    return shown.at.date(), shown.scope
