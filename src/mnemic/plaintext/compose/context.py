"""A context for a reader, within a token budget."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from mnemic.cube.model import MemCube
from mnemic.plaintext.recall.filters import Filter, Reach
from mnemic.plaintext.recall.search import Recall


@dataclass(frozen=True, slots=True)
class Context:
    text: str
    messages: list[dict[str, str]]
    strategy: str
    cubes: Sequence[MemCube]
    tokens: int
    omitted: Sequence[object] = field(default_factory=tuple)


def compose(
    recall: Recall,
    question: str,
    reach: Reach,
    *,
    budget: int,
    where: Filter,
    asked_at: int | None,
    count_tokens: Callable[[str], int] | None,
    strategy: str,
) -> Context:
    hits = recall.search(question, reach, k=10, where=where, asked_at=asked_at)
    text = "\n".join(hit.text for hit in hits)
    return Context(
        text, [{"role": "system", "content": text}], "retrieval", [hit.cube for hit in hits], len(text) // 4
    )
