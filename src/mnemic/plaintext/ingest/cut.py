"""Long texts in pieces, and texts in sentences. Lossless: the spans cover the text exactly.

A piece ends, best first, at the end of a paragraph, a sentence, a line, a word; only a run without any of
these is cut hard, between characters as a reader sees them. White space stays with what it follows. No
language model, no word lists but a few abbreviations.
"""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from itertools import pairwise
from typing import Final

from mnemic.cube.checks import require_count
from mnemic.cube.errors import InvalidOption
from mnemic.plaintext.ingest.sentence import sentence_ends

Span = tuple[int, int]

_FENCE_OR_HEADING = re.compile(
    r"^(?: {0,3}(?P<fence>`{3,}+|~{3,}+)(?P<info>[^\n]*+)|(?P<heading>#{1,6}[ \t][^\n]*+))", re.M
)
_PARAGRAPH = re.compile(r"\n[ \t\r]*+\n\s*+")
_LINE = re.compile(r"\n\s*+")
_WORD = re.compile(r"\s++")
_JOINERS: Final = frozenset("\u200d\ufe0e\ufe0f\n" + "".join(map(chr, range(0x1F3FB, 0x1F400))))
_LONGEST_GRAPHEME: Final = 32


def cut(text: str, *, target: int = 1200, limit: int = 2000) -> list[Span]:
    """Spans of at most `limit` characters, near `target` where the text allows it. O(characters).

    A text up to `limit` is one piece. In a longer one a Markdown heading starts a new piece (unless only
    headings stand before it), and a code fence that fits into a piece is not cut.
    """
    require_count(target=target, limit=limit)
    if limit < target:
        raise InvalidOption(f"limit={limit} must be at least target={target}")
    if len(text) <= limit:
        return [(0, len(text))] if text else []
    starts, fences = _structure(text, limit)
    spans: list[Span] = []
    for start, end in zip(starts, [*starts[1:], len(text)], strict=True):
        while end - start > limit:
            split = _split(text, start, target, limit, fences)
            spans.append((start, split))
            start = split
        spans.append((start, end))
    return spans


def sentences(text: str) -> list[Span]:
    """Spans of sentences, each with the white space that follows it. O(characters).

    Blank lines, headings and list items end a sentence too; "Dr. Smith", "e.g. this", "U.S." do not.
    """
    ends = sorted(set(sentence_ends(text, 0, len(text))))
    bounds = [0, *(end for end in ends if 0 < end < len(text)), len(text)]
    return [(a, b) for a, b in pairwise(bounds) if a < b]


def _structure(text: str, limit: int) -> tuple[list[int], list[Span]]:
    """Where sections start (0 and the headings outside code), and the code fences that fit into one piece."""
    starts, fences = [0], list[Span]()
    open_fence, fence_start, bare_until = "", 0, 0
    for mark in _FENCE_OR_HEADING.finditer(text):
        fence = mark["fence"]
        if fence and not open_fence:
            open_fence, fence_start = fence, mark.start()
        elif (
            fence and fence[0] == open_fence[0] and len(fence) >= len(open_fence) and not mark["info"].strip()
        ):
            end = min(mark.end() + 1, len(text))
            if end - fence_start <= limit:
                fences.append((fence_start, end))
            open_fence = ""
        elif mark["heading"] and not open_fence:
            if text[bare_until : mark.start()].strip():
                starts.append(mark.start())
            bare_until = mark.end()
    return starts, fences


def _split(text: str, start: int, target: int, limit: int, fences: list[Span]) -> int:
    """The best end for a piece that begins at `start`: the kind of end first, then nearness to `target`."""
    stop = start + limit
    near = fences[bisect_left(fences, (start - limit,)) : bisect_right(fences, (stop + 1,))]
    for least in (start + target // 3, start):
        for ends in _ends_by_rank(text, start, stop, near):
            fitting = [end for end in ends if least < end <= stop and _may_end(text, end, near)]
            if fitting:
                return min(fitting, key=lambda end: abs(end - start - target))
    return _hard_end(text, start, stop)


def _ends_by_rank(text: str, start: int, stop: int, fences: list[Span]) -> Iterator[list[int]]:
    around_code = [edge for fence in fences for edge in fence]
    yield [mark.end() for mark in _PARAGRAPH.finditer(text, start, stop)] + around_code
    yield list(sentence_ends(text, start, stop))
    for pattern in (_LINE, _WORD):
        yield [mark.end() for mark in pattern.finditer(text, start, stop)]


def _may_end(text: str, end: int, fences: list[Span]) -> bool:
    if text[end : end + 1].isspace():
        return False
    before = bisect_left(fences, (end,)) - 1  # the last fence that begins before `end`
    return before < 0 or fences[before][1] <= end


def _hard_end(text: str, start: int, stop: int) -> int:
    """`stop`, or a little before it where it would part an accent, an emoji sequence or a line end."""
    for end in range(stop, max(start, stop - _LONGEST_GRAPHEME), -1):
        after, before = text[end], text[end - 1]
        joined = after in _JOINERS or before == "\u200d" or unicodedata.category(after)[0] == "M"
        flags = (
            "\U0001f1e6" <= after <= "\U0001f1ff"
            and (end - start) % 2
            and "\U0001f1e6" <= before <= "\U0001f1ff"
        )
        if not joined and not flags:
            return end
    return stop
