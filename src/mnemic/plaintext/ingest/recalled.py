"""Blocks that mnemic itself put into a prompt: how they are marked, found again and kept from ending early.

What was recalled is not news: such a span is stored verbatim and neither indexed nor derived from. A block is
`OPENING` or `<mnemic-memory ids="…">`, the memories, `CLOSING`; upper and lower case are the same.
"""

from __future__ import annotations

import re
from typing import Final

TAG: Final = "mnemic-memory"
OPENING: Final = f"<{TAG}>"
CLOSING: Final = f"</{TAG}>"

_MARK = re.compile(rf"<(?P<closing>/)?{TAG}(?![\w.-])[^<>]*+(?:>|\Z)", re.IGNORECASE)
_UNSAFE = re.compile(rf"<(?=\s*+/?+\s*+{TAG})", re.IGNORECASE)


def opening(**attributes: str) -> str:
    """The opening tag with attributes, such as `opening(ids="…")`; their values are escaped."""
    shown = "".join(f' {name}="{_attribute(value)}"' for name, value in attributes.items())
    return f"<{TAG}{shown}>"


def find_recalled(text: str) -> list[tuple[int, int]]:
    """Spans [start, end) of all marked blocks, tags included, in order and apart. O(characters).

    A block inside a block belongs to the outer one. A block without an end runs to the end of the text; a
    closing tag without a block is ordinary text.
    """
    spans: list[tuple[int, int]] = []
    depth = start = 0
    for mark in _MARK.finditer(text):
        if not mark["closing"]:
            if depth == 0:
                start = mark.start()
            depth += 0 if mark[0].endswith("/>") else 1
            if depth == 0:
                spans.append(mark.span())
        elif depth:
            depth -= 1
            if depth == 0:
                spans.append((start, mark.end()))
    if depth:
        spans.append((start, len(text)))
    return spans


def without_recalled(text: str) -> str:
    """The text with every marked block cut out: what was really said."""
    kept, position = [], 0
    for start, end in find_recalled(text):
        kept.append(text[position:start])
        position = end
    return "".join(kept) + text[position:]


def escape_recalled(text: str) -> str:
    """Make stored text safe inside a block: the `<` of anything like one of our tags becomes `&lt;`.

    Escape after joining pieces of one text, so that no tag arises at a seam.
    """
    return _UNSAFE.sub("&lt;", text)


def _attribute(value: str) -> str:
    return value.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;").replace(">", "&gt;")
