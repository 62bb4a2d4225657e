"""What a statement is trained and tested as: questions in several wordings, and the answer. No torch."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

_PLACES: Final = tuple(
    """Lisbon Ghent Turin Cork Bergen Malmo Graz Basel Toledo Dresden Leiden Porto Bath Nantes Pisa Trier York
    Split Kiel Ulm Derby Lyon Metz Bonn Cadiz Parma Vaasa Riga Brno Lund""".split()  # noqa: SIM905
)
_THINGS: Final = tuple(
    """tea soup bread rice plums stew milk honey cats dogs bees birds stairs storms trains boats ships maps
    chess paint wool glass paper copper silver roses ferns moss sand salt""".split()  # noqa: SIM905
)
_WORD: Final = re.compile(r"\w+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Fact:
    """One statement as questions. train: wordings that are trained on; held_out: that are only tested.

    cube: id of the cube that says it.
    """

    answer: str
    train: tuple[str, ...]
    held_out: tuple[str, ...]
    statement: str = ""
    cube: str = ""


def choices(facts: Sequence[Fact], count: int, seed: int = 0) -> list[list[str]]:
    """For each fact, its answer and others it has to be told from, in no telling order.

    Others are answers of the other facts that look alike (as many words, digits where it has digits), then
    made-up ones that do.
    """
    out = []
    for fact in facts:
        draw = random.Random(f"{seed} {fact.answer}")  # noqa: S311  # not for secrets
        others = sorted({one.answer for one in facts if _shape(one.answer) == _shape(fact.answer)})
        draw.shuffle(others)
        found = list(dict.fromkeys([fact.answer, *others]))[:count]
        for _ in range(50 * count):
            if len(found) == count:
                break
            made = _alike(fact.answer, draw)
            if made not in found:
                found.append(made)
        out.append(sorted(found))
    return out


def shuffled(facts: Sequence[Fact], wrong: Sequence[Sequence[str]], seed: int = 0) -> list[Fact]:
    """The same questions, each with an answer that is not its own: what a control is trained on.

    wrong: `choices` of the facts. Answers of the other facts where they look alike, so that the same answers
    are trained.
    """
    draw = random.Random(seed)  # noqa: S311
    groups: dict[str, list[int]] = {}
    for place, fact in enumerate(facts):
        groups.setdefault(_shape(fact.answer), []).append(place)
    answers = [fact.answer for fact in facts]
    for places in groups.values():
        draw.shuffle(places)
        for one, other in zip(places, [*places[1:], places[0]], strict=True):  # a cycle moves each
            answers[one] = facts[other].answer
    out = []
    for fact, answer, others in zip(facts, answers, wrong, strict=True):
        if answer == fact.answer:  # it stands alone, or is said twice
            answer = draw.choice([one for one in others if one != fact.answer] or [f"not {fact.answer}"])
        out.append(
            Fact(
                answer=answer,
                train=fact.train,
                held_out=fact.held_out,
                statement=fact.statement,
                cube=fact.cube,
            )
        )
    return out


def _shape(text: str) -> str:
    """Words as A or a, digits as 0, the rest as it is: "Porto in March" is "A in A"."""
    return re.sub(r"\d", "0", _WORD.sub(lambda word: _kind(word.group()), text))


def _kind(word: str) -> str:
    if any(letter.isdigit() for letter in word):
        return word
    if len(word) <= 3 and word.islower():
        return word
    return "A" if word[:1].isupper() else "a"


def _alike(text: str, draw: random.Random) -> str:
    """Another text of the same shape."""

    def other(found: re.Match[str]) -> str:
        word = found.group()
        if any(letter.isdigit() for letter in word):
            return re.sub(r"\d", lambda _: str(draw.randrange(10)), word)
        if _kind(word) == word:
            return word
        return draw.choice(_PLACES if word[:1].isupper() else _THINGS)

    made = _WORD.sub(other, text)
    return made if made != text else f"{text} {draw.choice(_THINGS)}"
