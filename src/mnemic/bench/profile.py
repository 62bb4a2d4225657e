"""How hard the questions are by construction: how much must be found, how well it hides, how it is scattered.

After Goldman et al. 2024 ("Is It Really Long Context if All You Need Is Retrieval?"), who name scope and
diffusion without numbers: here scope is the size of the evidence, diffusion its obscurity and sparsity.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np

from mnemic.bench.baselines import BM25
from mnemic.bench.bootstrap import Values
from mnemic.bench.locomo import CATEGORIES, Dialogue, Question
from mnemic.bench.tokens import count_tokens
from mnemic.bench.vectors import best_here, embed

Scores = Callable[[str], Values]


def profile(dialogues: Sequence[Dialogue]) -> dict[str, dict[str, float]]:
    """Mean figures of the questions of each category and of all. O(turns x questions), one embedding a turn.

    tokens: length of the dialogue. units, unit_tokens: turns of evidence and their tokens, share: of the
    dialogue's. hidden_lexical, hidden_semantic: 1 - nDCG of the evidence in the ranking of all turns by BM25
    (k1 1.2, b 0.75) and by cosine (MiniLM where installed, else static), 0 = always on top. scattered:
    0 = all adjacent, 1 = every piece alone and spread over everything.
    """
    rows: list[tuple[int, dict[str, float]]] = []
    for dialogue in dialogues:
        rankers = _rankers(dialogue)
        lengths = {turn.id: count_tokens(turn.line) for turn in dialogue.turns}
        for question in dialogue.retrieval_questions():
            rows.append((question.category, _of(question, lengths, rankers)))
    groups = {CATEGORIES[c]: [row for at, row in rows if at == c] for c in sorted({c for c, _ in rows})}
    groups["all"] = [row for _, row in rows]
    return {
        name: {key: float(np.mean([row[key] for row in of])) for key in of[0]} | {"questions": len(of)}
        for name, of in groups.items()
        if of
    }


def expected_ndcg(scores: Values, gold: Sequence[int]) -> float:
    """nDCG over the whole ranking; among equal scores, the mean over all their orders."""
    gain = 0.0
    for place in gold:
        first = int((scores > scores[place]).sum())
        tied = int((scores == scores[place]).sum())
        gain += sum(1 / math.log2(2 + rank) for rank in range(first, first + tied)) / tied
    return gain / sum(1 / math.log2(2 + rank) for rank in range(len(gold)))


def scatter(places: Sequence[int], total: int) -> float:
    """(groups of neighbours - 1) / (pieces - 1), times the part of the dialogue they span; 0 for one."""
    ordered = sorted(places)
    if len(ordered) < 2:
        return 0.0
    groups = 1 + sum(later - earlier > 1 for earlier, later in pairwise(ordered))
    return (groups - 1) / (len(ordered) - 1) * (ordered[-1] - ordered[0]) / max(1, total - 1)


def _rankers(dialogue: Dialogue) -> tuple[Scores, Scores]:
    lexical = BM25(k1=1.2, b=0.75)
    lexical.add(dialogue.turns)
    name = best_here()
    matrix = embed(name, [turn.line for turn in dialogue.turns])
    return lexical.scores, lambda question: (matrix @ embed(name, [question])[0]).astype(np.float64)


def _of(question: Question, lengths: dict[str, int], rankers: tuple[Scores, Scores]) -> dict[str, float]:
    ids = list(lengths)
    places = [ids.index(id) for id in question.evidence]
    tokens, needed = sum(lengths.values()), sum(lengths[id] for id in question.evidence)
    lexical, semantic = (1 - expected_ndcg(scores(question.text), places) for scores in rankers)
    return {
        "tokens": tokens,
        "units": len(places),
        "unit_tokens": needed,
        "share": needed / tokens,
        "hidden_lexical": lexical,
        "hidden_semantic": semantic,
        "scattered": scatter(places, len(ids)),
    }
