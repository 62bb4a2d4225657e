"""Where sentences end: punctuation, and the few words after which a full stop is not one."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

_END = re.compile(
    r"""(?P<stop>(?<![.!?…؟۔।॥])[.!?…؟۔।॥]++)(?P<closing>["'”’»)\]*_]*+)(?P<space>\s++)"""
    r"""|[。！？｡．]++["'”’」』）】》]*+\s*+"""  # CJK: needs no space
    r"""|\n[ \t\r]*+\n\s*+"""  # a blank line
    r"""|\n\s*+(?=(?:[-*+•|>]|\#{1,6}|\d{1,3}[.)])[ \t])"""  # a heading, a list item, a quotation
)

_LOOK_BACK: Final = 24

# Never at the end of a sentence: something always follows.
_TITLES: Final = frozenset(
    re.findall(
        r"\S+",
        "mr mrs ms mx dr prof rev hon gen col capt lt sgt sr sra srta dra mme mlle st vs cf viz approx "
        "messrs gov sen rep fr jr e.g i.e z.b d.h u.a p.ej",
    )
)
# Only before a number: "No. 5" against "No. That is wrong."
_BEFORE_NUMBER: Final = frozenset(
    re.findall(
        r"\w+",
        "no nos nr p pp fig figs vol ch sec art eq ref ca c jan feb mar apr jun jul aug sep sept oct nov dec",
    )
)


def sentence_ends(text: str, start: int, stop: int) -> Iterator[int]:
    """Positions in (start, stop] just after a sentence and its white space, rising. O(stop - start)."""
    for mark in _END.finditer(text, start, stop):
        if mark["stop"] is None or _is_end(text, start, mark):
            yield mark.end()


def _is_end(text: str, start: int, mark: re.Match[str]) -> bool:
    following = text[mark.end() : mark.end() + 1]
    if "\n" in mark["space"] and mark["space"].count("\n") > 1:
        return True
    if mark["stop"] != ".":
        soft = mark["closing"] or mark["stop"][0] in ".…"
        return not (soft and following.islower())
    if mark["closing"]:
        return not following.islower()
    if following.islower():
        return False
    return not _is_abbreviation(text, start, mark.start(), following)


def _is_abbreviation(text: str, start: int, dot: int, following: str) -> bool:
    before = text[max(start, dot - _LOOK_BACK) : dot]
    word = before.rsplit(None, 1)[-1].lstrip("([{<\"'“‘«") if before and not before[-1].isspace() else ""
    lower = word.lower()
    if lower in _TITLES or (lower in _BEFORE_NUMBER and following.isdigit()):
        return True
    if word.isdigit():  # the number of a list item
        head = before[: -len(word)].rstrip(" \t")
        return not head or head.endswith("\n")
    if len(word) == 1:
        return word.isupper() and word != "I"  # an initial
    parts = word.split(".")
    return len(parts) > 1 and word.isupper() and all(len(part) == 1 for part in parts)
