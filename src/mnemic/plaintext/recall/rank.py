"""Ranking."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from mnemic.index.scope import ScopeIndex
from mnemic.plaintext.recall.question import Question


@dataclass(frozen=True, kw_only=True, slots=True)
class Weights:
    lexical: float = 1.0


class Ranked(NamedTuple):
    index: int
    row: int
    score: float
    signals: dict[str, float]


def rank(
    question: Question,
    indexes: Sequence[ScopeIndex],
    masks: Sequence[Any],
    *,
    weights: Weights | None = None,
    k: int,
) -> list[Ranked]:
    found = []
    for n, (index, mask) in enumerate(zip(indexes, masks, strict=True)):
        for i, row in enumerate(index.rows):
            if mask is None or mask[i]:
                f = np.frombuffer(row.lexical, np.uint32)
                score = float(np.isin(f[: len(f) // 2], question.terms).sum()) / (10 + len(f))
                found.append((score, row.seq, n, i))
    found.sort(reverse=True)
    return [Ranked(n, i, score, {"lexical": score}) for score, _, n, i in found[:k] if score > 0]
