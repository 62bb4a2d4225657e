"""What a memory must beat: words, vectors, the last turns, everything."""

# ruff: noqa: ARG002 - a baseline need not use all that it is told

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mnemic.bench.locomo import Question, Turn
from mnemic.bench.pack import pack
from mnemic.bench.vectors import MINILM_INSTALL, MINILM_NEEDS, embed

_WORD = re.compile(r"[a-z0-9]+")


class Ranked:
    """The part that all simple systems share: the turns told, and a context packed from their own ranking."""

    needs: tuple[str, ...] = ()
    install = "mnemic"
    ranked = True

    def __init__(self) -> None:
        self.turns: dict[str, Turn] = {}

    def open(self, folder: Path) -> None:
        self.turns = {}

    def add(self, turns: Sequence[Turn]) -> None:
        self.turns = {turn.id: turn for turn in turns}

    def search(self, question: str, k: int) -> list[str]:
        raise NotImplementedError

    def context(self, question: str, budget: int) -> str:
        # No turn is shorter than five tokens with its speaker, so no more than budget / 5 of them can fit.
        k = min(len(self.turns), budget // 5 + 1)
        return pack((self.turns[id] for id in self.search(question, k)), budget)

    def close(self) -> None:
        self.turns = {}


class BM25(Ranked):
    """Stemmed BM25 with k1 = 0.9, b = 0.4 (Robertson & Zaragoza 2009; Anserini's values)."""

    name = "bm25"

    def __init__(self, k1: float = 0.9, b: float = 0.4) -> None:
        super().__init__()
        self.k1, self.b = k1, b

    def add(self, turns: Sequence[Turn]) -> None:
        """Weights of every (term, turn) once, so that a search only adds. O(tokens)."""
        super().add(turns)
        counts = [Counter(terms(turn.line)) for turn in turns]
        lengths = np.array([sum(count.values()) for count in counts], dtype=np.float64)
        norm = self.k1 * (1 - self.b + self.b * lengths / lengths.mean())
        found: dict[str, list[int]] = {}
        for place, count in enumerate(counts):
            for term in count:
                found.setdefault(term, []).append(place)
        self.postings: dict[str, tuple[NDArray[np.intp], NDArray[np.float64]]] = {}
        for term, where in found.items():
            places = np.array(where)
            frequency = np.array([counts[place][term] for place in where], dtype=np.float64)
            idf = np.log(1 + (len(turns) - len(where) + 0.5) / (len(where) + 0.5))
            self.postings[term] = (places, idf * frequency * (self.k1 + 1) / (frequency + norm[places]))

    def scores(self, question: str) -> NDArray[np.float64]:
        """BM25 of every turn, in the order told. O(postings of the question's terms)."""
        total = np.zeros(len(self.turns))
        for term in terms(question):
            if term in self.postings:
                places, weights = self.postings[term]
                total[places] += weights
        return total

    def search(self, question: str, k: int) -> list[str]:
        return best(list(self.turns), self.scores(question), k)

    def describe(self) -> str:
        return f"BM25, English Snowball stems, k1 {self.k1}, b {self.b}"


class DenseStatic(Ranked):
    """Cosine of mean WordLlama vectors."""

    name = "dense-static"
    embedder = "static"

    def add(self, turns: Sequence[Turn]) -> None:
        super().add(turns)
        self.matrix = embed(self.embedder, [turn.line for turn in turns])

    def search(self, question: str, k: int) -> list[str]:
        return best(list(self.turns), self.matrix @ embed(self.embedder, [question])[0], k)

    def describe(self) -> str:
        return f"cosine of plain mean {self.embedder} vectors"


class DenseMiniLM(DenseStatic):
    """Cosine of all-MiniLM-L6-v2 sentence vectors: what most products do."""

    name = "dense-minilm"
    embedder = "minilm"
    needs = MINILM_NEEDS
    install = MINILM_INSTALL


class Recent(Ranked):
    """The latest turns, whatever the question."""

    name = "recent"

    def search(self, question: str, k: int) -> list[str]:
        return list(self.turns)[::-1][:k]

    def describe(self) -> str:
        return "the latest turns, newest first"


class FullContext(Ranked):
    """Everything, in order. It has no ranking and knows no budget."""

    name = "full-context"
    ranked = False

    def search(self, question: str, k: int) -> list[str]:
        return list(self.turns)[:k]

    def context(self, question: str, budget: int) -> str:
        return pack(self.turns.values(), None)

    def describe(self) -> str:
        return "the whole dialogue, no budget"


class Oracle(FullContext):
    """The evidence and nothing else: what a perfect search would hand over. The only system shown the key."""

    name = "oracle"

    def reveal(self, questions: Sequence[Question]) -> None:
        """Show it the evidence of every question."""
        self.evidence = {question.text: question.evidence for question in questions}

    def context(self, question: str, budget: int) -> str:
        return pack((self.turns[id] for id in self.evidence[question]), None)

    def describe(self) -> str:
        return "the gold evidence alone: an upper bound, not a memory"


def best(ids: Sequence[str], scores: NDArray[Any], k: int) -> list[str]:
    """The k highest, best first; equal scores in the order told."""
    return [ids[i] for i in np.argsort(-scores, kind="stable")[:k]]


def terms(text: str) -> list[str]:
    """Lower-case words, stemmed."""
    return list(_stemmer().stemWords(_WORD.findall(text.lower())))


@lru_cache(maxsize=1)
def _stemmer() -> Any:
    import Stemmer

    return Stemmer.Stemmer("english")
