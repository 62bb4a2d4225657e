"""Search: catch the indexes up, mask what may be seen, rank it, and fetch the texts, all in one snapshot."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from mnemic.cube.checks import require_count
from mnemic.cube.errors import InvalidText, InvalidVector, ModelError
from mnemic.cube.model import MemCube, Scope, Unset
from mnemic.cube.reach import Reach
from mnemic.governance.guard import Guard, Sight
from mnemic.index.cache import Entry, IndexCache, Part
from mnemic.index.scope import BoolArray
from mnemic.models.base import Embedder, TokenEmbedder
from mnemic.models.vectors import embed_checked
from mnemic.plaintext.recall import sight
from mnemic.plaintext.recall.current import Superseded, lifts, superseded, untrue_rows
from mnemic.plaintext.recall.filters import Filter
from mnemic.plaintext.recall.question import Question, event_clause, parse_question
from mnemic.plaintext.recall.rank import Ranked, Weights, rank
from mnemic.plaintext.recall.visible import Known, Visible
from mnemic.vault.snapshot import Snapshot
from mnemic.vault.vault import Vault

MAX_QUESTION_CHARS = 20_000


@dataclass(frozen=True, slots=True)
class Hit:
    """A cube that answers, its final score, and what each signal added to it.

    superseded: what of it has ceased to be true, since when and by what.
    """

    cube: MemCube
    score: float
    signals: Mapping[str, float]
    superseded: tuple[Superseded, ...] = ()

    @property
    def text(self) -> str:
        return self.cube.text

    @property
    def superseded_by(self) -> str | None:
        """The id of the cube that put an end to what this one says; None while it holds."""
        return self.superseded[0].by if self.superseded else None

    def __repr__(self) -> str:
        return f"Hit({self.score:.2f}, {self.cube!r})"


class Hits(list[Hit]):
    """Hits, best first; `notes` says which signals were missing and why, by name."""

    def __init__(self, hits: Iterable[Hit], notes: Mapping[str, str]) -> None:
        super().__init__(hits)
        self.notes = dict(notes)


class Recall:
    """The reading side of plaintext memory. Thread-safe: one search at a time an open memory."""

    def __init__(
        self,
        vault: Vault,
        embedder: Embedder,
        cache: IndexCache,
        weights: Weights | None = None,
        *,
        guard: Guard | None = None,
    ) -> None:
        self.guard = guard or Guard(vault)
        self.vault = vault.as_actor(self.guard)
        self._embedder = embedder
        self.cache = cache
        self._weights = weights or Weights()

    def behind(self, guard: Guard) -> Recall:
        """The same indexes, seen as another principal sees them."""
        return Recall(guard.vault, self._embedder, self.cache, self._weights, guard=guard)

    def visible(self, snapshot: Snapshot, reach: Reach, where: Filter) -> list[Visible]:
        """The spaces within reach, caught up and masked. Call it under `cache.lock`.

        Raises AccessDenied where no grant could show anything of it. O(rows + new changes).
        """
        asker = self.guard.require_reach(snapshot.transaction, reach)
        if isinstance(reach.user, Unset):
            spaces = [row.space for row in snapshot.spaces()]
        else:
            found = snapshot.space_of(reach.user)
            spaces = [] if found is None else [found]
        out = []
        for space in spaces:
            scopes = self.cache.scopes(snapshot, space)
            if not any(reach.has(names) and sight.opens(asker, names) for names in scopes.values()):
                continue
            entry = self.cache.catch_up(snapshot, space)
            if entry is None:
                continue
            entry.scopes = scopes
            shown = self._shown(snapshot, space, entry, scopes, asker)
            if where.as_of is not None:
                present, entry = entry, self.cache.past(snapshot, space, where.as_of) or entry
                still = sight.still(asker, snapshot, space, present, shown, entry)
                shown = self._shown(snapshot, space, entry, scopes, asker)
                shown = {derived: mask & still[derived] for derived, mask in shown.items()}
            out += self._views(snapshot, space, entry, scopes, reach, where, shown)
        return out

    def _views(
        self,
        snapshot: Snapshot,
        space: int,
        entry: Entry,
        scopes: Mapping[int, Scope],
        reach: Reach,
        where: Filter,
        shown: Mapping[bool, BoolArray],
    ) -> list[Visible]:
        """What was told and what was derived, as far as the filter looks at them. Never what is stale."""
        told, made = where.parts
        known = None
        indexes = {False: entry.told.index, True: entry.made.index}
        seen = {
            derived: shown[derived] & Filter().mask(index, scopes, reach, _no_columns)
            for derived, index in indexes.items()
            if index.size or not derived
        }
        if True in seen:
            made_rows = (indexes[True].row_of(cube) for cube in entry.stale)
            seen[True][[row for row in made_rows if row is not None]] = False
            known = Known(self.cache.facts(snapshot, space, entry), indexes, seen)
        out = []
        for derived, part, wanted in ((False, entry.told, told), (True, entry.made, made)):
            if not wanted or derived not in seen:
                continue

            def columns(part: Part = part) -> Any:
                return self.cache.columns(snapshot, space, part)

            mask = seen[derived]
            if where.tests:
                mask = mask & where.mask(part.index, scopes, reach, columns)
                if known and not derived and where.valid_at is not None:
                    mask[untrue_rows(known, where.valid_at)] = False
            out.append(Visible(space, part.index, scopes, seen[derived], mask, derived, known))
        return out

    def _shown(
        self, snapshot: Snapshot, space: int, entry: Entry, scopes: Mapping[int, Scope], asker: Sight
    ) -> dict[bool, BoolArray]:
        """What of both indexes the asker may see at all, and is not over."""
        return sight.masks(
            asker, snapshot, space, entry, scopes, partial(self.cache.columns, snapshot, space)
        )

    def search(
        self,
        text: str,
        reach: Reach,
        *,
        k: int = 10,
        where: Filter | None = None,
        asked_at: int | None = None,
    ) -> Hits:
        """The k best cubes, or fewer, best first.

        O(rows within reach), all of them scored with every signal.
        """
        require_count(k=k)
        question = self.question(text, asked_at=asked_at)
        with self.cache.lock, self.vault.snapshot() as snapshot:
            where = where or Filter()
            views = self.visible(snapshot, reach, where)
            ranked = self.rank(question, views, k=k, valid_at=where.valid_at)
            return Hits(self.fetch(snapshot, views, ranked), self.notes(question, views))

    def forget(self) -> None:
        """Drop what is held in memory of texts that were erased."""
        with self.cache.lock:
            self.cache.forget()

    def question(self, text: str, *, asked_at: int | None = None) -> Question:
        """Parse and embed a question. Raises InvalidText;

        a failing remote embedder leaves out the dense signal.
        """
        if not isinstance(text, str):
            raise InvalidText(f"the question must be text, not {type(text).__name__}")
        if not text.strip():
            raise InvalidText("the question is empty; ask in a few words, or use list() for everything")
        if len(text) > MAX_QUESTION_CHARS:
            raise InvalidText(
                f"the question has {len(text):,} characters, at most {MAX_QUESTION_CHARS:,} are "
                "read: ask something shorter"
            )
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise InvalidText(
                f"the question is not valid Unicode at character {error.start}; decode what it came from "
                "with errors='replace'"
            ) from error
        moment = self.vault.clock() if asked_at is None else asked_at
        clause, before_it = event_clause(text, moment) or ("", False)
        asked, *rest = self._seen([text, clause] if clause else [text])
        event = parse_question(clause, asked_at=moment, **rest[0]) if rest else None
        return parse_question(text, asked_at=moment, event=event, before_it=before_it, **asked)

    def _seen(self, texts: Sequence[str]) -> list[dict[str, Any]]:
        """Texts as the embedder sees them: tokens, or a vector, or nothing where its answer is of no use."""
        if isinstance(self._embedder, TokenEmbedder):
            return [{"tokens": tokens} for tokens in self._embedder.tokenize(texts)]
        try:
            vectors = embed_checked(self._embedder, texts, dim=self.cache.dim)
        except (ModelError, InvalidVector):
            return [{} for _ in texts]
        return [{"vector": vector} for vector in vectors]

    def notes(self, question: Question, views: Sequence[Visible]) -> dict[str, str]:
        """What was not as it should be: signals that are missing for some or all cubes."""
        if question.tokens is None and question.vector is None:
            return {"dense": "unavailable: the embedder did not answer"}
        pending = sum(view.pending for view in views)
        return {"dense": f"pending for {pending} cubes; flush() waits for them"} if pending else {}

    def rank(
        self, question: Question, views: Sequence[Visible], *, k: int, valid_at: int | None = None
    ) -> list[Ranked]:
        """The k best rows; of what states the same thing at different times, what is true first."""
        return rank(
            question,
            [view.index for view in views],
            [view.mask for view in views],
            within=[view.within for view in views],
            lifts=lifts(question, views, valid_at=valid_at),
            weights=self._weights,
            k=k,
        )

    def fetch(self, snapshot: Snapshot, views: Sequence[Visible], ranked: Sequence[Ranked]) -> list[Hit]:
        """The cubes of ranked rows. O(k)."""
        seqs: dict[int, list[int]] = {}
        for one in ranked:
            seqs.setdefault(one.view, []).append(int(views[one.view].index.seq[one.row]))
        cubes = {
            number: dict(zip(wanted, snapshot.cubes(views[number].space, wanted), strict=True))
            for number, wanted in seqs.items()
        }
        out = []
        for one in ranked:
            cube = cubes[one.view][int(views[one.view].index.seq[one.row])]
            out.append(Hit(cube, one.score, one.signals, superseded(cube.id, views[one.view])))
        return out


def _no_columns() -> Any:
    raise AssertionError("an empty filter reads no header")
