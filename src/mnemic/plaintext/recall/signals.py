"""The signals: each a named function from a question on an index to one number per row of it.

The index holds what the caller may see and nothing else (`ScopeIndex.within`). Neighbours are those of
`mnemic.index.sessions`. docs/recall.md says what each is good for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from types import MappingProxyType
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mnemic.index.lexical import ENDS_ASKING, HOLDS_NUMBER, term
from mnemic.index.scope import FAR, ScopeIndex
from mnemic.index.sessions import FARTHEST
from mnemic.plaintext.recall.question import Question
from mnemic.plaintext.recall.times import DAY

FloatArray = NDArray[np.float32]
IntArray = NDArray[np.int64]


Reach = Sequence[tuple[int, float]]  # how far a term counts: turns from where it stands, and its worth there


def reach(*worth: float, both: bool = False) -> Reach:
    """Worth 1 in the turn itself, then from 1 turn on (at most `FARTHEST`): after it, or before it as well.

    The farthest first.
    """
    steps = [(way * far, one) for far, one in enumerate(worth, 1) for way in ((1, -1) if both else (1,))]
    return [*reversed(steps), (0, 1.0)]


K1: Final = 0.9  # BM25 for short turns: a repeated word says little,
B: Final = 0.4  # and a long turn is only slightly less to the point
AROUND: Final = reach(0.9, 0.8, 0.7, 0.6, 0.5, both=True)  # worth of a term 1, 2, … turns away
FOLLOW: Final = reach(0.9, 0.7, 0.5, 0.3)  # the same, but only for terms said before
DENSE_AROUND: Final = ((1.0, 0), (0.6, 1), (0.4, -1), (0.3, 2), (0.2, -2))  # weight, turns back
FEEDBACK: Final = 10  # rows
HALF: Final = 0.5  # of the question's words, by idf
SELF: Final = term("user")  # the role that stands for a speaker without a name


class Words(NamedTuple):
    """Four readings of the question's words, by row."""

    bm25: FloatArray
    own: FloatArray
    around: FloatArray
    follow: FloatArray


class View:
    """One question on one index: what its signals share.

    guess: (rows,) the weighted sum of the signals that need no guess; likeliest: rows of this index among the
    `FEEDBACK` best of all indexes by it. Both are set between `DIRECT` and `GUESSED`.
    """

    def __init__(self, question: Question, index: ScopeIndex) -> None:
        self.question, self.index = question, index
        self.guess: FloatArray = np.zeros(index.size, np.float32)
        self.likeliest: IntArray = np.empty(0, np.int64)

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
        index, apart, room = self.index, self.index.sessions.apart, self.index.sessions.room
        bm25, own = (np.zeros(index.size, np.float32) for _ in range(2))
        around, follow, near = (np.zeros(room, np.float32) for _ in range(3))
        readings = [
            (out, [(near[FARTHEST + turns :], worth) for turns, worth in steps])
            for out, steps in ((around, AROUND), (follow, FOLLOW))
        ]
        names = {index.speakers[whole] for whole in self.named}
        lengths, mean_length = index.lengths, np.float32(index.mean_length)
        total = 0.0
        for wanted in self.question.terms.tolist():
            if wanted in names:
                continue
            places = index.places_of(wanted)
            rows = index.term_row[places].astype(np.intp)  # numpy takes and puts by no other type as fast
            known = int(np.searchsorted(rows, index.counted))
            idf = float(np.log1p((index.counted - known + 0.5) / (known + 0.5)))
            total += idf
            if not len(rows):
                continue
            count = index.term_frequency[places].astype(np.float32)
            length = lengths[rows] / mean_length
            own[rows] += np.float32(idf)
            bm25[rows] += np.float32(idf) * count * (K1 + 1) / (count + K1 * (1 - B + B * length))
            before = apart[rows].astype(np.intp) - FARTHEST
            for out, steps in readings:
                near.fill(0)
                for shifted, worth in steps:
                    shifted[before] = idf * worth  # the last, nearest one stays
                out += near
        scale = np.float32(max(total, 1e-6))
        return Words(bm25 / scale, own / scale, around[apart] / scale, follow[apart] / scale)

    @cached_property
    def cosine(self) -> FloatArray:
        """Cosine with the question; 0 for rows without a vector."""
        query = self.index.embed_question(self.question.tokens, self.question.vector)
        return np.zeros(self.index.size, np.float32) if query is None else likeness(self.index.vectors, query)


def likeness(vectors: FloatArray, one: FloatArray) -> FloatArray:
    """(rows,) products with one vector. Each row by itself, in one thread: the same on every machine's BLAS.

    At 100,000 rows also as fast as BLAS, since memory is what limits both.
    """
    products: FloatArray = np.einsum("ij,j->i", vectors, one)
    return products


def lexical(view: View) -> FloatArray:
    """BM25 over stems."""
    return view.words.bm25


def lexical_around(view: View) -> FloatArray:
    """How much of the question is said in this turn or near it: words may be spread over a few turns."""
    return view.words.around


def lexical_follow(view: View) -> FloatArray:
    """How much of the question was said up to and in this turn: answers follow what they answer."""
    return view.words.follow


def coverage(view: View) -> FloatArray:
    """How much more than half of the question this turn says all by itself.

    Rare, and then nearly an answer: in a large memory of things that have nothing to do with each other, what
    is said around means little.
    """
    more: FloatArray = np.maximum(view.words.own - np.float32(HALF), 0)
    return more


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


def novelty(view: View) -> FloatArray:
    """Says words that were not said for a while: something new is told."""
    return np.sqrt(view.index.news)


def sequence(view: View) -> FloatArray:
    """On the asked side of the event from which the question counts: "before she moved", "after the race".

    The event is the turn that fits its words best; what lies on the other side counts less, by 1/e a week.
    """
    question, index = view.question, view.index
    if question.event is None or not index.size:
        return np.zeros(index.size, np.float32)
    event = View(question.event, index)
    when = np.where(index.valid_from > FAR.min, index.valid_from, index.at)
    its = when[int(np.argmax(lexical_around(event) + dense_around(event)))]
    late = ((when - its) / (7 * DAY)).astype(np.float32)
    past: FloatArray = np.minimum(-late if question.before_it else late, np.float32(0))
    return np.exp(past)


def opening(view: View) -> FloatArray:
    """Stands near the beginning of its session, where news is told."""
    sessions = view.index.sessions
    return sessions.by_row(-sessions.depth)


def recency(view: View) -> FloatArray:
    """Later, where the question asks for the latest; earlier, where for the earliest; else nothing."""
    question, at = view.question, view.index.at
    if not len(at) or question.wants_latest == question.wants_earliest:
        return np.zeros(len(at), np.float32)
    first, last = int(at.min()), int(at.max())
    share = ((at - first) / max(last - first, 1)).astype(np.float32)
    return share if question.wants_latest else 1 - share


def feedback(view: View) -> FloatArray:
    """Likeness to the likeliest rows (pseudo relevance feedback; Rocchio 1971)."""
    if not len(view.likeliest):
        return np.zeros(view.index.size, np.float32)
    vectors = view.index.vectors
    return likeness(vectors, vectors[view.likeliest].mean(axis=0))


def session(view: View) -> FloatArray:
    """How good the best turn of the session is."""
    sessions = view.index.sessions
    return sessions.by_row(sessions.best(sessions.ordered(view.guess)))


Signal = Callable[[View], FloatArray]


def _table(*signals: Signal) -> Mapping[str, Signal]:
    return MappingProxyType({one.__name__: one for one in signals})


DIRECT: Final = _table(
    *(lexical, lexical_around, lexical_follow, coverage, dense, dense_around),
    *(speaker, statement, answer_type, names, novelty, time, sequence, opening, recency),
)
GUESSED: Final = _table(feedback, session)
