"""The words of a text that carry meaning, in one form each: what sentences are compared by.

Independent of the index's analyser on purpose, so that a confidence keeps its meaning when ranking changes.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise
from typing import Final

import Stemmer

_WORD: Final = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")
# Scripts written without spaces, or with few: pairs of characters are their words.
_DENSE: Final = re.compile(
    r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uac00-\ud7a3]+"
)
_EMPTY: Final = frozenset(
    """a about after all also am an and any are as at be because been before being both but by can could did
    do does doing done during each ever for from get gets getting go goes going got had has have having he her
    hers him his how i if in into is it its just kind know like made make many may me might more most much my
    no nor not of off on once one only or other our out over own really s same say said says shall she should
    so some someone something sort still such t take tell than that the their them then there these they thing
    things this those through to too told type under until up us use used very was we were what when where
    which while who whom whose why will with would you your
    de la el los las un una y en que es der die das und ist ein eine le les et est il elle""".split()  # noqa: SIM905
)


def words(texts: Sequence[str]) -> list[list[str]]:
    """The content words of each text, stemmed, in order, repeats kept. O(characters)."""
    stem = Stemmer.Stemmer("english").stemWord  # one a call: stemmers are not thread-safe
    return [[stem(word) for word in _content(text)] for text in texts]


def _content(text: str) -> list[str]:
    out = []
    for match in _WORD.findall(text.casefold()):
        word = match.replace("’", "'").split("'")[0]
        if word in _EMPTY:
            continue
        position = 0
        for dense in _DENSE.finditer(word):
            if dense.start() > position:
                out.append(word[position : dense.start()])
            run = dense[0]
            out += [a + b for a, b in pairwise(run)] if len(run) > 1 else [run]
            position = dense.end()
        if position < len(word):
            out.append(word[position:])
    return out
