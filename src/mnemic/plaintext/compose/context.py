"""A context for a reader, within a token budget: all of a memory while it fits, else the best of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Final

from mnemic.cube.checks import require_count
from mnemic.cube.errors import NotFound
from mnemic.cube.model import MemCube
from mnemic.cube.reach import Reach
from mnemic.models.tokens import TokenCounter, estimate_tokens
from mnemic.plaintext.compose.account import Omitted, omissions, reasons
from mnemic.plaintext.compose.evidence import by_worth
from mnemic.plaintext.compose.fill import EVIDENCE, Draft, Why
from mnemic.plaintext.compose.gist import gists
from mnemic.plaintext.compose.policy import AUTO, Choice, ContextOptions, check_strategy, choose
from mnemic.plaintext.compose.scene import LEAST_LINE, Evidence, look
from mnemic.plaintext.compose.words import words
from mnemic.plaintext.recall.filters import Filter
from mnemic.plaintext.recall.question import Question
from mnemic.plaintext.recall.search import Recall

Found = Mapping[int, Evidence]


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """What a reader should see, and an account of it.

    text: a marked block that `add` never takes for news; "" where there is nothing to show. strategy: "full",
    "hybrid" or "retrieval"; reason: why this one. cubes: in the order shown; refs: cube id -> the reference
    in the text; why: cube id -> why it is there. omitted: what is not there, and why. tokens: of `text`, by
    the counter that was given; never above `budget`. notes: signals that were missing in the ranking.
    """

    text: str
    strategy: str
    reason: str
    cubes: Sequence[MemCube]
    tokens: int
    budget: int
    refs: Mapping[str, str]
    why: Mapping[str, str]
    omitted: Sequence[Omitted] = ()
    notes: Mapping[str, str] = field(default_factory=dict)

    @property
    def messages(self) -> list[dict[str, str]]:
        """The text for a chat API, to be put before the conversation;

        empty where there is nothing to show.
        """
        return [{"role": "system", "content": self.text}] if self.text else []

    def cite(self, ref: str) -> MemCube:
        """The cube behind a reference such as "a3f9" or "[a3f9]". Raises NotFound."""
        wanted = ref.strip().strip("[]").lower()
        for cube in self.cubes:
            if self.refs[cube.id] == wanted:
                return cube
        raise NotFound(f"{ref!r:.80} is no reference of this context; it has {len(self.cubes)}, see .refs")


def compose(
    recall: Recall,
    question: str,
    reach: Reach,
    *,
    budget: int,
    where: Filter,
    asked_at: int | None,
    count_tokens: TokenCounter | None,
    strategy: str = AUTO,
    previous: str | None = None,
    options: ContextOptions | None = None,
) -> Context:
    """Choose a strategy and fill the budget, from one snapshot for ranking, neighbours and texts.

    Raises InvalidOption, BudgetTooSmall, and as `search` does. O(rows within reach + characters looked at).
    """
    require_count(budget=budget)
    check_strategy(strategy, previous=previous)
    options = options or ContextOptions()
    parsed = recall.question(question, asked_at=asked_at)
    with ExitStack() as held:
        draft, found, notes = _look(
            recall, held, parsed, reach, where, options.room(budget), count_tokens or estimate_tokens
        )
        choice = _chosen(draft, found, strategy, previous, options)
        _FILL[choice.strategy](draft, found, options)
        text, tokens = draft.settle()
        ordered, refs = draft.ordered(), draft.refs()
        reason = choice.reason
        if choice.strategy == "full" and len(ordered) < draft.scene.count:
            reason += f"; {len(ordered):,} of {draft.scene.count:,} cubes are shown, the latest"
        return Context(
            text=text,
            strategy=choice.strategy,
            reason=reason,
            cubes=tuple(one.cube for one in ordered),
            tokens=tokens,
            budget=draft.budget,
            refs=refs,
            why=reasons(draft, refs, found),
            omitted=tuple(omissions(draft, found)),
            notes=notes,
        )


def _look(
    recall: Recall,
    held: ExitStack,
    question: Question,
    reach: Reach,
    where: Filter,
    budget: int,
    counter: TokenCounter,
) -> tuple[Draft, Found, dict[str, str]]:
    """Rank under the index's lock; texts are read and counted after it was given back, in the same
    snapshot.
    """
    with recall.cache.lock:
        snapshot = held.enter_context(recall.vault.snapshot())
        views = recall.visible(snapshot, reach, where)
        notes = recall.notes(question, views)
        scene, found = look(recall, snapshot, question, views, budget=budget, valid_at=where.valid_at)
    return Draft(scene, budget, counter, words([question.text])[0]), found, notes


def _chosen(
    draft: Draft, found: Found, strategy: str, previous: str | None, options: ContextOptions
) -> Choice:
    if not draft.scene.count:
        return Choice("full" if strategy == AUTO else strategy, "the memory holds no text within reach")
    if strategy != AUTO:
        return Choice(strategy, f"{strategy} was asked for")
    history = draft.history
    choice = choose(
        history.tokens, budget=draft.budget, options=options, previous=previous, exact=history.exact
    )
    if choice.strategy == "retrieval" and not found:
        return Choice("hybrid", f"{choice.reason}; nothing in it matches the question, so the last turns")
    return choice


def _everything(draft: Draft, found: Found, options: ContextOptions) -> None:  # noqa: ARG001
    """All rows. Where that was asked for and does not fit: the latest that do, without a gap."""
    if not draft.scene.count:
        return
    history = draft.history
    if history.all is not None and history.tokens <= draft.budget:
        draft.put_all(history.all, Why("full history"))
        return
    for _ in range(2):
        draft.fill(_recent(draft, "full history"), in_a_row=True)
        draft.settle()


def _best(draft: Draft, found: Found, options: ContextOptions) -> None:
    """Evidence in the order of its worth, until the budget is used up."""
    evidence = _evidence(draft, found, options)
    for _ in range(3):  # what `settle` finds to be free is filled again
        draft.fill(evidence, distinct=True)
        draft.settle()


def _best_and_around(draft: Draft, found: Found, options: ContextOptions) -> None:
    """Evidence, with shares kept for the last turns and for a sentence a session;

    what they leave goes to all.
    """
    recent, gist = int(draft.budget * options.recent), int(draft.budget * options.gist)
    draft.fill(
        _evidence(draft, found, options), share=draft.budget - draft.spent - recent - gist, distinct=True
    )
    draft.fill(_recent(draft, "recent"), share=recent, in_a_row=True, whole=True)
    limit = draft.spent + gist
    for shown in gists(draft.scene, limit=gist // LEAST_LINE):
        draft.put(shown, Why(f"gist of session {shown.scope.session or '(none)'}"), limit=limit)
    draft.settle()
    _best(draft, found, options)
    draft.fill(_recent(draft, "recent"), in_a_row=True)


_FILL: Final[Mapping[str, Callable[[Draft, Found, ContextOptions], None]]] = {
    "full": _everything,
    "hybrid": _best_and_around,
    "retrieval": _best,
}


def _recent(draft: Draft, why: str) -> Iterable[tuple[int, Why]]:
    """The latest first, as many as could fit."""
    return [(row, Why(why)) for row in draft.scene.newest_first(draft.budget // LEAST_LINE + 1)]


def _evidence(draft: Draft, found: Found, options: ContextOptions) -> list[tuple[int, Why]]:
    ordered = by_worth(draft.scene, found, beside=options.beside, depth=options.depth)
    return [(row, Why(EVIDENCE, lender)) for row, lender in ordered]
