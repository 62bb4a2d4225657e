"""What is measured: retrieval, answers, abstention. Pure functions of one question's result."""

from __future__ import annotations

import math
import re
import string
from collections import Counter
from collections.abc import Collection, Sequence
from functools import lru_cache
from typing import Any

_ARTICLES = re.compile(r"\b(a|an|the|and)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ABSTAINS = re.compile(
    r"not (?:mentioned|specified|provided)|no (?:such )?(?:information|mention|record)"
    r"|(?:do(?:es)? ?n[o']t|cannot|can't|could not|couldn't) (?:know|say|tell|find|determine|be determined)"
    r"|\bunanswerable\b|\bunknown\b",
    re.IGNORECASE,
)


def recall_at_k(ranking: Sequence[str], evidence: Collection[str], k: int) -> float:
    """Share of the evidence among the first k. A repeated id counts once, at its first place."""
    return len(set(_unique(ranking, k)) & set(evidence)) / len(set(evidence))


def recall_all_at_k(ranking: Sequence[str], evidence: Collection[str], k: int) -> float:
    """1 if all the evidence is among the first k, else 0."""
    return float(set(evidence) <= set(_unique(ranking, k)))


def ndcg_at_k(ranking: Sequence[str], evidence: Collection[str], k: int) -> float:
    """Binary gains discounted by log2(1 + rank), over the best possible (Järvelin & Kekäläinen 2002)."""
    gold = set(evidence)
    gained = sum(1 / math.log2(1 + rank) for rank, id in enumerate(_unique(ranking, k), 1) if id in gold)
    return gained / sum(1 / math.log2(1 + rank) for rank in range(1, min(k, len(gold)) + 1))


def evidence_in(context: str, evidence_texts: Sequence[str]) -> float:
    """Share of the evidence texts that stand verbatim in the context, white space aside.

    A paraphrase does not count, and a text of a word or two may be found in another sentence: this is what a
    context holds at most, not what a reader makes of it.
    """
    flat = " ".join(context.split())
    return sum(" ".join(text.split()) in flat for text in evidence_texts) / len(evidence_texts)


def normalise(answer: str) -> str:
    """LoCoMo's normalisation: lower case; commas, punctuation and `a an the and` out; blanks collapsed."""
    bare = answer.replace(",", "").lower().translate(_PUNCTUATION)
    return " ".join(_ARTICLES.sub(" ", bare).split())


def token_f1(predicted: str, gold: str) -> float:
    """SQuAD's F1 over Porter-stemmed tokens of the normalised texts, as LoCoMo computes it."""
    said, wanted = _stems(predicted), _stems(gold)
    shared = sum((Counter(said) & Counter(wanted)).values())
    return 2 * shared / (len(said) + len(wanted)) if shared else 0.0


def answer_f1(predicted: str, gold: str, category: int) -> float:
    """F1 as LoCoMo scores each category.

    Category 1 holds several answers joined by commas: for each gold part the best predicted part, averaged.
    Category 3 gives its reasons after a semicolon: only what stands before it is compared.
    """
    if category == 1:
        said, wanted = _parts(predicted), _parts(gold)
        return sum(max((token_f1(p, g) for p in said), default=0.0) for g in wanted) / len(wanted)
    return token_f1(predicted, gold.split(";")[0] if category == 3 else gold)


def exact_match(predicted: str, gold: str) -> float:
    """1 if the two are equal after normalisation."""
    return float(normalise(predicted) == normalise(gold))


def abstains(answer: str) -> bool:
    """Does the answer say that it is not known? LoCoMo looks for two phrases; here are more."""
    return not answer.strip() or _ABSTAINS.search(answer) is not None


def percentile(values: Sequence[float], share: float) -> float:
    """Nearest rank: the smallest value that at least `share` of all values do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def _unique(ranking: Sequence[str], k: int) -> list[str]:
    return list(dict.fromkeys(ranking))[:k]


def _parts(answer: str) -> list[str]:
    return [part.strip() for part in answer.split(",") if part.strip()] or [answer]


@lru_cache(maxsize=1)
def _stemmer() -> Any:
    import Stemmer

    return Stemmer.Stemmer("porter")


def _stems(answer: str) -> list[str]:
    return list(_stemmer().stemWords(normalise(answer).split()))
