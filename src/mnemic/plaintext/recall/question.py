"""A question, parsed once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from mnemic.index.lexical import lexical_feature


@dataclass(frozen=True, slots=True)
class Question:
    text: str
    asked_at: int
    terms: Any
    vector: Any = None
    tokens: Any = None


def parse_question(text: str, *, asked_at: int, tokens: Any = None, vector: Any = None) -> Question:
    feature = np.frombuffer(lexical_feature(text, None), np.uint32)
    return Question(text, asked_at, feature[: len(feature) // 2], vector, tokens)
