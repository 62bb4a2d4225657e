"""Statements as questions in several wordings: by templates, or with a language model's help. No torch."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from mnemic.cube.checks import require_count
from mnemic.cube.errors import ModelError
from mnemic.cube.model import MemCube
from mnemic.models.base import LanguageModel
from mnemic.parametric.questions import Fact
from mnemic.plaintext.compose.sentences import said, sentence_spans

LONGEST: Final = 12  # words of an answer
_BE: Final = re.compile(r"^(?P<subject>.+?) (?P<be>is|are|was|were|am) (?P<rest>.+)$")
_CLOSING: Final = (
    "to",
    "in",
    "at",
    "for",
    "with",
    "from",
    "on",
    "as",
    "of",
    "by",
    "called",
    "named",
    "about",
)
_LOWER: Final = frozenset(
    """The A An My Our His Her Their Your Its This That These Those We You He She It They There Every Each
    Some No Both In On At""".split()  # noqa: SIM905
)
_DETERMINED: Final = ("the", "my", "our", "his", "her", "their", "your", "its")


class Paraphraser(Protocol):
    """Makes a Fact of a sentence; None where it says nothing that could be asked."""

    def fact(self, sentence: str) -> Fact | None: ...


@dataclass(frozen=True, slots=True)
class Templates:
    """Four wordings to train on and two held out, from where a sentence can be cut into a question and its
    answer: after "is", after a preposition, after the verb, else before its last words.

    It reads English statements. What is said in the first person is asked in the first person.
    """

    def fact(self, sentence: str) -> Fact | None:
        text = " ".join(sentence.split()).rstrip(".!… ")
        words = text.split()
        if len(words) < 3 or text.endswith("?"):
            return None
        if (found := _attribute(text)) is not None:
            subject, be, answer = found
            asked, whole = f"what {subject} {be}", f"{_upper(subject)} {be}"
            train = (
                f"What {be} {subject}?",
                f"Tell me {subject}.",
                f"Do you know {asked}?",
                f"Complete the sentence: {whole}",
            )
            held_out = (f"Can you remind me {asked}?", f"I forgot {subject}. What {be} it?")
        else:
            cue, answer = _cut(words)
            asked = f"what {_lower(cue)}"
            train = (
                f"Do you know {asked}?",
                f"Tell me {asked}.",
                f"{_upper(cue)} what?",
                f"Complete the sentence: {_upper(cue)}",
            )
            held_out = (f"Can you remind me {asked}?", f"I forgot {asked}. What was it?")
        return Fact(answer=answer, train=train, held_out=held_out, statement=sentence.strip())


@dataclass(frozen=True, slots=True, kw_only=True)
class Reworded:
    """The templates' questions, and up to `more` wordings of each fact's first by a language model.

    A wording that gives the answer away, or repeats one that is there or held out, is dropped. One call a
    sentence; a call that fails leaves the templates.
    """

    model: LanguageModel
    more: int = 4

    def __post_init__(self) -> None:
        require_count(more=self.more)

    def fact(self, sentence: str) -> Fact | None:
        made = Templates().fact(sentence)
        if made is None:
            return None
        known = {*map(str.lower, (*made.train, *made.held_out))}
        extra = []
        for one in self._ask(made):
            wording = " ".join(one.split())
            if wording and wording.lower() not in known and made.answer.lower() not in wording.lower():
                known.add(wording.lower())
                extra.append(wording)
        return Fact(
            answer=made.answer,
            train=(*made.train, *extra[: self.more]),
            held_out=made.held_out,
            statement=made.statement,
        )

    def _ask(self, made: Fact) -> list[str]:
        wording = {"type": "string", "maxLength": 120}
        schema: dict[str, Any] = {
            "type": "object",
            "properties": {"questions": {"type": "array", "items": wording, "maxItems": self.more}},
            "required": ["questions"],
        }
        prompt = (
            f'Statement: "{made.statement}"\nQuestion: "{made.train[0]}"\nAsk the same question in '
            f"{self.more} other ways. Do not give the answer."
        )
        try:
            told = self.model.complete([{"role": "user", "content": prompt}], max_tokens=400, schema=schema)
        except ModelError:
            return []
        return [str(one) for one in told.parsed["questions"]]


def facts_of(cubes: Sequence[MemCube], paraphraser: Paraphraser) -> list[Fact]:
    """The facts of every sentence of these cubes, each naming its cube. What is said twice is one fact."""
    found: dict[tuple[str, str], Fact] = {}
    for cube in cubes:
        text = said(cube)
        for start, end in sentence_spans(text):
            one = paraphraser.fact(text[start:end])
            if one is not None:
                found[one.train[0], one.answer] = Fact(
                    answer=one.answer,
                    train=one.train,
                    held_out=one.held_out,
                    statement=one.statement,
                    cube=cube.id,
                )
    return list(found.values())


def _attribute(text: str) -> tuple[str, str, str] | None:
    """(subject, be, answer) of "The code of Ida is 4711"; None for what says no attribute's value."""
    found = _BE.match(text)
    if found is None:
        return None
    subject, be, answer = _lower(found["subject"]), found["be"], found["rest"]
    first = subject.split()[0]
    if first not in _DETERMINED and "'s " not in subject and "’s " not in subject:
        return None
    head = answer.split()
    if len(head) > LONGEST or any(word in _CLOSING for word in head[:3]):
        return None
    return subject, be, answer


def _cut(words: Sequence[str]) -> tuple[str, str]:
    """Where a question can end and its answer begin."""
    at = next((n + 1 for n in range(1, len(words) - 1) if words[n] in _CLOSING and n >= 2), 0)
    if not at and (found := _BE.match(" ".join(words))) is not None:
        at = len(found["subject"].split()) + 1
    if not at:
        names = next((n for n, word in enumerate(words) if not word[:1].isupper()), 1)
        at = min(max(1, names) + 1, len(words) - 1)
    at = max(at, len(words) - LONGEST)
    return " ".join(words[:at]), " ".join(words[at:])


def _lower(text: str) -> str:
    first, _, rest = text.partition(" ")
    return f"{first.lower()} {rest}".strip() if first in _LOWER else text


def _upper(text: str) -> str:
    return text[:1].upper() + text[1:]
