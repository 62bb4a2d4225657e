"""A question, parsed once: what it asks for, whom it names, which time it means. Knows nothing of any
space.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from mnemic.index.lexical import term, words
from mnemic.plaintext.recall.times import Window, time_windows

LONGEST_NAME: Final = 3  # words
MAX_TERMS: Final = 64  # of a long question, the first ones

FUNCTION_WORDS: Final = frozenset(
    """a about am an and any are as at be been being but by can could did do does for from had has have he her
    him his how i if in into is it its may me might my not of on or our s shall she should so some than that
    the their them then there they this to us was we were what when where which who whom whose why will with
    would you your also during""".split()  # noqa: SIM905
)
_TIME: Final = re.compile(
    r"\bwhen\b|\bhow long\b|\b(?:what|which) (?:date|month|year|day|time|week|season)\b"
)
_NUMBER: Final = re.compile(r"\bhow (?:many|much|often|old|far|tall)\b|\bwhat (?:number|age|price)\b")
_NAME: Final = re.compile(
    r"\b(?:who|whom|whose|where|names?|named|called|title)\b"
    r"|\b(?:what|which) (?:city|country|state|place|town)\b"
)
_LATEST: Final = re.compile(
    r"\b(?:latest|newest|most recent(?:ly)?|currently?|right now|these days|nowadays|lately|recently)\b"
)
_EARLIEST: Final = re.compile(
    r"\b(?:earliest|originally|initially|at first|(?:the|for the|his|her|my|their) first time|oldest)\b"
)
_EVENT: Final = re.compile(
    r"\b(before|until|prior to|by the time|after|since|following)\s+([^,;?.!]+)", re.IGNORECASE
)
_SELF: Final = re.compile(r"\b(?:i|my|me|mine|myself)\b")


@dataclass(frozen=True, slots=True)
class Question:
    """What the signals read.

    terms: distinct stems without function words, in order. mentions: hash of every run of up to three words,
    with its position. windows: the times it names. event: what "before she moved" speaks of, to be
    looked for in memory; before_it: asks for what was earlier. tokens or vector: the question as the embedder
    sees it.
    """

    text: str
    asked_at: int
    terms: NDArray[np.uint32]
    mentions: dict[int, int]
    windows: tuple[Window, ...]
    wants_time: bool = False
    wants_number: bool = False
    wants_name: bool = False
    wants_latest: bool = False
    wants_earliest: bool = False
    about_asker: bool = False
    event: Question | None = None
    before_it: bool = False
    tokens: NDArray[np.uint16] | None = None
    vector: NDArray[np.float32] | None = None


def event_clause(text: str, asked_at: int) -> tuple[str, bool] | None:
    """What the question counts time from, and whether it asks for before; None where it names no event.

    A date is no event: `windows` has it.
    """
    found = _EVENT.search(text)
    if found is None or time_windows(found[2], asked_at):
        return None
    clause = found[2].strip()
    return (clause, found[1].lower() in ("before", "until", "prior to", "by the time")) if clause else None


def parse_question(
    text: str,
    *,
    asked_at: int,
    tokens: Any = None,
    vector: Any = None,
    event: Question | None = None,
    before_it: bool = False,
) -> Question:
    """Parse. asked_at: µs UTC, what "last week" is counted from. O(characters), about 50 µs.

    event: the clause of `event_clause` as a question of its own.
    """
    spoken = words(text)
    content = [word for word in spoken if word not in FUNCTION_WORDS] or spoken
    lowered = text.lower()
    mentions: dict[int, int] = {}
    for size in range(1, LONGEST_NAME + 1):
        for start in range(len(spoken) - size + 1):
            mentions.setdefault(term(" ".join(spoken[start : start + size])), start)
    return Question(
        text=text,
        asked_at=asked_at,
        terms=np.array(list(dict.fromkeys(map(term, content)))[:MAX_TERMS], np.uint32),
        mentions=mentions,
        windows=time_windows(text, asked_at),
        wants_time=bool(_TIME.search(lowered)),
        wants_number=bool(_NUMBER.search(lowered)),
        wants_name=bool(_NAME.search(lowered)),
        wants_latest=bool(_LATEST.search(lowered)),
        wants_earliest=bool(_EARLIEST.search(lowered)),
        about_asker=bool(_SELF.search(lowered)),
        event=event,
        before_it=before_it,
        tokens=tokens,
        vector=vector,
    )
