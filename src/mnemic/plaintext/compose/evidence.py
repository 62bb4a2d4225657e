"""The order in which rows claim room: by relevance, and by standing beside what is relevant."""

from __future__ import annotations

from collections.abc import Mapping

from mnemic.plaintext.compose.scene import Evidence, Scene


def by_worth(
    scene: Scene, found: Mapping[int, Evidence], *, beside: float, depth: int
) -> list[tuple[int, int | None]]:
    """Rows, the worthiest first, each with the evidence it stands beside, or None where it is evidence
    itself.

    A row ranked r is worth 1 / (depth + r) (reciprocal rank, Cormack et al. 2009: no ranker's scale matters),
    and passes `beside` of its own worth to the rows before and after it in the same session: an answer
    follows its question, and two neighbours of one good hit are rarely chance. O(found log found).
    """
    own = {row: 1 / (depth + one.rank) for row, one in found.items()}
    lent: dict[int, float] = {}
    lender: dict[int, int] = {}
    if beside:
        for row in found:  # best first, so the first lender is the best
            for other in scene.beside(row):
                lent[other] = lent.get(other, 0.0) + beside * own[row]
                lender.setdefault(other, row)
    worth = {row: own.get(row, 0.0) + lent.get(row, 0.0) for row in (*own, *lent)}
    ordered = sorted(worth, key=lambda row: (-worth[row], row))
    return [(row, None if own.get(row, 0.0) >= lent.get(row, 0.0) else lender[row]) for row in ordered]
