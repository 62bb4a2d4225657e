"""The signals: each a named function from a view (question, index, what may be seen) to one number per row.

A row that may not be seen has no influence on any other row's signals, so that a score never depends on what
the caller may not read. Neighbours are those of `mnemic.index.sessions`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from types import MappingProxyType
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mnemic.index.lexical import ENDS_ASKING, HOLDS_NUMBER, term
from mnemic.index.scope import ScopeIndex
from mnemic.plaintext.recall.question import Question

FloatArray = NDArray[np.float32]
BoolArray = NDArray[np.bool_]

K1: Final = 0.9  # BM25 for short turns: a repeated word says little,
B: Final = 0.4  # and a long turn is only slightly less to the point
AROUND: Final = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5)  # worth of a term that stands 0, 1, … turns away
FOLLOW: Final = (1.0, 1.0, 0.8, 0.6, 0.5)  # the same, but only for terms said before
DENSE_AROUND: Final = ((1.0, 0), (0.6, 1), (0.4, -1), (0.3, 2), (0.2, -2))  # weight, turns back
FEEDBACK: Final = 5  # rows
SESSION_BEST: Final = 3  # rows
SELF: Final = term("user")  # the role that stands for a speaker without a name


class Words(NamedTuple):
    """Three readings of the question's words, by row."""

    bm25: FloatArray
    around: FloatArray
    follow: FloatArray


class View:
    """One question on one index; `mask` says which rows may be seen (None: all). What signals share."""

    def __init__(self, question: Question, index: ScopeIndex, mask: BoolArray | None = None) -> None:
        self.question, self.index = question, index
        self.mask = np.ones(index.size, np.bool_) if mask is None else mask

    @cached_property
    def named(self) -> list[int]:
        """Speakers that the question names, in order: hashes of whole names."""
        mentions = self.question.mentions
        found = {}
        for whole, first in self.index.speakers.items():
            places = [mentions[name] for name in (whole, first) if name in mentions]
            if places:
                found[whole] = min(places)
        return sorted(found, key=lambda whole: (found[whole], whole))

    @cached_property
    def words(self) -> Words:
        """BM25 (Robertson & Zaragoza 2009, §3) and the share of the question's words found nearby, by idf."""
        index, sessions = self.index, self.index.sessions
        bm25, around, follow, near = (np.zeros(index.size, np.float32) for _ in range(4))
        names = {index.speakers[whole] for whole in self.named}
        total = 0.0
        for wanted in self.question.terms.tolist():
            if wanted in names:
                continue
            places = np.flatnonzero(index.term == wanted)
            rows = index.term_row[places]
            known = int(np.searchsorted(rows, index.counted))
            idf = float(np.log1p((index.counted - known + 0.5) / (known + 0.5)))
            total += idf
            seen = self.mask[rows]
            places, rows = places[seen], rows[seen]
            if not len(rows):
                continue
            count = index.term_frequency(places)
            length = index.lengths[rows] / np.float32(index.mean_length)
            bm25[rows] += np.float32(idf) * count * (K1 + 1) / (count + K1 * (1 - B + B * length))
            position = sessions.position[rows]
            for out, reach, ways in ((around, AROUND, (1, -1)), (follow, FOLLOW, (1,))):
                near[:] = 0
                for far in range(len(reach) - 1, 0, -1):
                    for way in ways:
                        there = position + way * far
                        inside = (there >= 0) & (there < index.size)
                        there = there[inside]
                        there = there[sessions.number[there] == sessions.number[position[inside]]]
                        near[there] = np.maximum(near[there], np.float32(reach[far]))
                near[position] = 1
                out += np.float32(idf) * near
        scale = np.float32(max(total, 1e-6))
        return Words(bm25 / scale, sessions.by_row(around) / scale, sessions.by_row(follow) / scale)

    @cached_property
    def has_vector(self) -> BoolArray:
        """Rows that may be seen and whose vector is there."""
        return self.mask & (self.index.vectors[:, :1] != 0).any(axis=1) if self.index.size else self.mask

    @cached_property
    def cosine(self) -> FloatArray:
        """Cosine with the question; rows without a vector, or not to be seen, get 0."""
        question = self.question
        query = self.index.embed_question(question.tokens, question.vector)
        if query is None:
            return np.zeros(self.index.size, np.float32)
        return np.where(self.mask, self.index.vectors @ query, np.float32(0))

    @cached_property
    def likely(self) -> FloatArray:
        """A first guess: words and meaning, each by its spread."""
        return _spread(self.words.bm25, self.mask) + _spread(self.cosine, self.mask)


def _spread(values: FloatArray, mask: BoolArray) -> FloatArray:
    seen = values[mask]
    deviation = float(seen.std()) if len(seen) else 0.0
    return (
        (values - np.float32(seen.mean())) / np.float32(deviation)
        if deviation > 1e-9
        else np.zeros_like(values)
    )


def lexical(view: View) -> FloatArray:
    """BM25 over stems."""
    return view.words.bm25


def lexical_around(view: View) -> FloatArray:
    """How much of the question is said in this turn or near it: words may be spread over a few turns."""
    return view.words.around


def lexical_follow(view: View) -> FloatArray:
    """How much of the question was said up to and in this turn: answers follow what they answer."""
    return view.words.follow


def dense(view: View) -> FloatArray:
    """Cosine of static or model vectors."""
    return view.cosine


def dense_around(view: View) -> FloatArray:
    """The same, smoothed over the turns around."""
    sessions = view.index.sessions
    ordered = sessions.ordered(view.cosine)
    total = np.zeros_like(ordered)
    weight = np.zeros_like(ordered)
    present = np.ones_like(ordered)
    for share, back in DENSE_AROUND:
        total += np.float32(share) * (sessions.shifted(ordered, back) if back else ordered)
        weight += np.float32(share * share) * (sessions.shifted(present, back) if back else present)
    return sessions.by_row((total / np.sqrt(weight)).astype(np.float32))


def feedback(view: View) -> FloatArray:
    """Likeness to the likeliest rows (pseudo relevance feedback; Rocchio 1971)."""
    if not view.cosine.any():
        return np.zeros(view.index.size, np.float32)
    guess = np.where(view.mask, view.likely, -np.inf)
    best = np.argsort(-guess, kind="stable")[:FEEDBACK]
    centroid = view.index.vectors[best[view.mask[best]]].mean(axis=0)
    return np.where(view.mask, view.index.vectors @ centroid, np.float32(0))


def session(view: View) -> FloatArray:
    """The three likeliest turns of the session."""
    sessions = view.index.sessions
    guess = np.where(view.mask, view.likely, np.float32(-np.inf))
    return sessions.by_row(sessions.best(sessions.ordered(guess), SESSION_BEST))


def speaker(view: View) -> FloatArray:
    """Said by the one whom the question names; half as sure when it names several (the first one then)."""
    named = view.named
    out = np.zeros(view.index.size, np.float32)
    if named:
        out[view.index.speaker == named[0]] = 1.0 if len(named) == 1 else 0.5
    elif view.question.about_asker:
        out[view.index.speaker == SELF] = 1.0
    return out


def statement(view: View) -> FloatArray:
    """Does not end by asking."""
    return 1 - (view.index.flags & np.uint32(ENDS_ASKING)).astype(np.float32)


def answer_type(view: View) -> FloatArray:
    """Holds what the question asks for: a time (when), a number (how many), a name (who, where)."""
    question, index = view.question, view.index
    out = np.zeros(index.size, np.float32)
    if question.wants_time:
        out += np.minimum(index.time_marks, 2) / np.float32(2)
    if question.wants_number:
        out += (index.flags & np.uint32(HOLDS_NUMBER)) / np.float32(HOLDS_NUMBER)
    if question.wants_name:
        out += np.minimum(index.name_marks, 3) / np.float32(3)
    return np.minimum(out, np.float32(1.5))


def names(view: View) -> FloatArray:
    """Holds names: something particular is said."""
    return np.minimum(view.index.name_marks, 3).astype(np.float32)


def time(view: View) -> FloatArray:
    """Said in the time that the question names, or soon after."""
    at = view.index.at
    out = np.zeros(len(at), np.float32)
    for start, end, soft in view.question.windows:
        outside = np.maximum(np.maximum(at - end, 2 * (start - at)), 0)
        np.maximum(out, np.exp(outside.astype(np.float32) / np.float32(-soft)), out=out)
    return out


def opening(view: View) -> FloatArray:
    """Stands near the beginning of its session, where news is told."""
    sessions = view.index.sessions
    return sessions.by_row(-np.log1p(sessions.depth()).astype(np.float32))


def recency(view: View) -> FloatArray:
    """Later, where the question asks for the latest; earlier, where for the earliest; else nothing."""
    question, at = view.question, view.index.at
    if not len(at) or question.wants_latest == question.wants_earliest:
        return np.zeros(len(at), np.float32)
    seen = at[view.mask]
    first, last = (int(seen.min()), int(seen.max())) if len(seen) else (0, 0)
    share = ((at - first) / max(last - first, 1)).astype(np.float32)
    return np.where(view.mask, share if question.wants_latest else 1 - share, np.float32(0))


SIGNALS: Final[Mapping[str, Callable[[View], FloatArray]]] = MappingProxyType(
    {
        one.__name__: one
        for one in (
            lexical,
            lexical_around,
            lexical_follow,
            dense,
            dense_around,
            feedback,
            session,
            speaker,
            statement,
            answer_type,
            names,
            time,
            opening,
            recency,
        )
    }
)
