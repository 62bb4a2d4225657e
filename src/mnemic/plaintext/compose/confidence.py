"""How sure it is that a memory holds the answer: two numbers about the best hits, and a logistic of them.

The weights and the limit are printed by `mnemic bench abstain --data DIR` (LoCoMo). What makes it sure:
words of the question in one thing that was said by the one it asks about, and that what others said fits less
(a question about Ana whose every trace is in what Tom said has no answer). Paraphrases count for nothing: it
rather says no too often than yes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

from mnemic.index.lexical import speaker_terms
from mnemic.plaintext.compose.words import words
from mnemic.plaintext.ingest.features import speaker_of
from mnemic.plaintext.recall.question import parse_question
from mnemic.plaintext.recall.search import Hit

DEPTH: Final = 30  # hits that are looked at
READ: Final = 8  # hits whose words are compared with the question's
FEATURES: Final = ("whose", "covered")
WEIGHTS: Final = (0.246, 3.949)
BIAS: Final = -2.135
LIMIT: Final = 0.295  # refuses a tenth of what LoCoMo's dialogues hold


def confidence(question: str, hits: Sequence[Hit]) -> float:
    """How likely it is, from 0 to 1, that these hits (the best `DEPTH`) hold the answer; 0 without hits."""
    if not hits:
        return 0.0
    return logistic(features(question, hits), WEIGHTS, BIAS)


def logistic(values: Sequence[float], weights: Sequence[float], bias: float) -> float:
    total = bias + sum(weight * value for weight, value in zip(weights, values, strict=True))
    return 1 / (1 + math.exp(-max(-30.0, min(30.0, total))))


def features(question: str, hits: Sequence[Hit]) -> tuple[float, ...]:
    """The numbers named in `FEATURES`; `hits` are not empty. O(characters of `READ` hits)."""
    mentions = parse_question(question, asked_at=0).mentions
    speakers = [speaker_of(hit.cube.header) for hit in hits]
    asked = {name for name in speakers if name and any(term in mentions for term in speaker_terms(name))}
    mine = [len(asked) != 1 or name in asked for name in speakers]
    said = [hit.score - hit.signals.get("speaker", 0.0) for hit in hits]
    names = {word for name in asked for word in words([name])[0]}
    wanted = set(words([question])[0]) - names
    found = [len(wanted & set(some)) for some in words([hit.text for hit in hits[:READ]])]
    most = max((n for n, is_mine in zip(found, mine, strict=False) if is_mine), default=0)
    if not wanted:  # "What did Tom do in May?": nothing but names, times and function words
        most, wanted = 1, {""}
    return (
        _best(said, mine, True) - _best(said, mine, False) if False in mine else 0.0,
        most / len(wanted),
    )


def _best(scores: Sequence[float], mine: Sequence[bool], which: bool) -> float:
    return max(
        (score for score, is_mine in zip(scores, mine, strict=True) if is_mine is which), default=min(scores)
    )
