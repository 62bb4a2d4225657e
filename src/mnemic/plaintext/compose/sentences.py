"""Sentences of a stored text, and the best run of them when the whole does not fit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from mnemic.cube.model import MemCube
from mnemic.plaintext.compose.words import words
from mnemic.plaintext.ingest.cut import Span, sentences
from mnemic.plaintext.ingest.features import utterance

MAX_READ: Final = 200_000  # characters of one text that are looked through for its best sentences


def said(cube: MemCube) -> str:
    """What was said in a cube: its text without what mnemic itself had put there."""
    return utterance(cube.text, cube.header.recalled, None).text.strip()


def bare(text: str, span: Span) -> Span:
    """The span without white space around it."""
    piece = text[span[0] : span[1]]
    start = span[0] + len(piece) - len(piece.lstrip())
    return start, max(start, span[0] + len(piece.rstrip()))


def sentence_spans(text: str) -> list[Span]:
    """Sentences without the white space between them; none is empty. O(characters), at most `MAX_READ`.

    In a longer text the sentence that `MAX_READ` cuts is left out.
    """
    found = sentences(text[:MAX_READ])
    if len(text) > MAX_READ:
        found = found[:-1]
    return [kept for span in found if (kept := bare(text, span))[0] < kept[1]]


def excerpt(text: str, question: Sequence[str], cost: Callable[[str], int], room: int) -> list[Span]:
    """A run of whole sentences that fits into `room`, around the one closest to the question; [] if none
    does.

    It grows forward first, because what follows explains more often than what came before. O(characters).
    """
    spans = sentence_spans(text)
    wanted = set(question)
    scores = [len(wanted & set(found)) for found in words([text[start:end] for start, end in spans])]
    for best in sorted(range(len(spans)), key=lambda i: (-scores[i], i))[:20]:
        spent = cost(text[slice(*spans[best])])
        if spent <= room:
            break
    else:
        return []
    first = last = best
    grows = True
    while grows:
        grows = False
        for other in (last + 1, first - 1):
            if 0 <= other < len(spans) and (more := cost(text[slice(*spans[other])])) + spent <= room:
                first, last, spent, grows = min(first, other), max(last, other), spent + more, True
    return spans[first : last + 1]
