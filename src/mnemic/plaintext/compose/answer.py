"""An answer from memory."""

from __future__ import annotations

from dataclasses import dataclass

from mnemic.models.base import LanguageModel
from mnemic.plaintext.recall.filters import Filter, Reach
from mnemic.plaintext.recall.search import Recall


@dataclass(frozen=True, slots=True)
class Answer:
    text: str


def answer(
    recall: Recall,
    question: str,
    reach: Reach,
    *,
    model: LanguageModel | None,
    budget: int,
    where: Filter,
    asked_at: int | None,
) -> Answer:
    hits = recall.search(question, reach, k=1, where=where, asked_at=asked_at)
    return Answer(hits[0].text if hits else "")
