"""Invented people, places and statements about them: nothing that a model or a word list could know.

`updates` pairs a fact with a later one that contradicts it and a question; `compatible` pairs statements that
only look as if they contradicted each other.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from mnemic.cube.errors import InvalidFile

_ONSETS: Final = "b br c cr d dr f g gr h k l m n p pr qu r s sh st t tr v w y z".split()  # noqa: SIM905
_VOWELS: Final = "a e i o u ae ia oe".split()  # noqa: SIM905
_CODAS: Final = ["", "n", "l", "r", "s", "t", "th", "x", "nd", "rn", "lm"]
# Relations of which a subject has several values at once: a second one contradicts nothing.
SEVERAL: Final = frozenset({"P40", "P463", "P641", "P800", "P937", "P1412"})
# First-person statements of the slots that a person tells: before, after, question.
PERSONAL: Final[Mapping[str, tuple[str, str, str]]] = {
    "home": ("I live in {a}.", "I moved to {b} last week.", "Where do I live?"),
    "home, ended": (
        "I'm living in {a}.",
        "I don't live in {a} anymore. I live in {b}.",
        "Where do I live now?",
    ),
    "employer": ("I work at {a}.", "I just got a new job at {b}!", "Where do I work?"),
    "employer, joined": ("I work for {a}.", "I joined {b} this month.", "Which company do I work for?"),
    "partner": ("I'm dating {a}.", "I'm engaged to {b}!", "Who is my partner?"),
    "partner, married": ("My boyfriend is {a}.", "I married {b} in May.", "Who is my husband?"),
    "favourite": ("My favourite band is {a}.", "My favourite band is {b} now.", "What is my favourite band?"),
    "phone": ("My phone number is 555 {n}.", "My phone number is 555 {m}.", "What is my phone number?"),
    "email": ("My email is {x}@a.org", "My new email is {x}@b.org", "What is my email address?"),
    "age": ("I'm {i} years old.", "I turned {j} today.", "How old am I?"),
    "schedule": (
        *("My dentist appointment is on Tuesday.", "My dentist appointment has been moved to Friday."),
        "When is my dentist appointment?",
    ),
    "doctor": ("My dentist is {a}.", "My dentist is {b} now.", "Who is my dentist?"),
}
# The same in other words. Written after the rules: 3 of the 14 were read then, and rules were added since.
OTHER_WORDS: Final[Mapping[str, tuple[str, str, str]]] = {
    "wedding": ("{p} is married to {a}.", "{p} got married to {b} in June.", "Who is the spouse of {p}?"),
    "capital": (
        "The capital of {e} is {a}.",
        "{b} became the capital of {e}.",
        "Which city is {e}'s capital?",
    ),
    "work": ("{p} is employed by {a}.", "{p} has started working at {b}.", "Where does {p} work?"),
    "home": ("{p} lives in {a}.", "{p} found a new place in {b}.", "Where does {p} live?"),
    "director": ("The director of {e} is {a}.", "{b} took over as director of {e}.", "Who runs {e}?"),
    "owner": ("{e} is owned by {a}.", "{e} was bought by {b}.", "Who owns {e}?"),
    "coach": ("The head coach of {e} is {a}.", "{e}'s new head coach is {b}.", "Who coaches {e}?"),
    "chair": ("The chairperson of {e} is {a}.", "{e} elected {b} as its chairperson.", "Who chairs {e}?"),
    "my home": ("I live in {a}.", "We packed everything and settled in {b}.", "Where do I live?"),
    "my work": ("I work at {a}.", "My first day at {b} was great.", "Where do I work?"),
    "my phone": (
        "My phone number is 555 {n}.",
        "You can reach me at 555 {m} now.",
        "What is my phone number?",
    ),
    "my band": ("My favourite band is {a}.", "These days I prefer {b} to {a}.", "What is my favourite band?"),
    "my dentist": (
        *("My dentist appointment is on Tuesday.", "They moved my dentist appointment; it's Friday now."),
        "When is my dentist appointment?",
    ),
    "my dog": ("My dog is called {a}.", "My dog died. We have a new one, {b}.", "What is my dog called?"),
}
# More of them, written later: the rules of then put the present answer of 8 of the 22 first, and said of 6
# that the old one is over; rules were added since.
MORE_WORDS: Final[Mapping[str, tuple[str, str, str]]] = {
    "relocated": ("I'm based in {a}.", "I've relocated to {b}.", "Where am I based?"),
    "home now": ("I live in {a}.", "{b} is my home now.", "Where do I live?"),
    "the move": ("I live in {a}.", "We finally made the move to {b}.", "Where do I live?"),
    "a flat": ("I live in {a}.", "I bought a flat in {b} and moved in on Monday.", "Where do I live?"),
    "left for": ("I work at {a}.", "I left {a} for {b}.", "Where do I work?"),
    "new employer": ("I work at {a}.", "My new employer is {b}.", "Where do I work?"),
    "was hired": ("{p} works for {a}.", "{p} was hired by {b}.", "Where does {p} work?"),
    "hired": ("{p} works at {a}.", "{b} hired {p} last month.", "Where does {p} work?"),
    "succeeded": (
        "The mayor of {e} is {a}.",
        "{b} succeeded {a} as mayor of {e}.",
        "Who is the mayor of {e}?",
    ),
    "replaced": (
        *("The president of {e} is {a}.", "{b} replaced {a} as president of {e}."),
        "Who is the president of {e}?",
    ),
    "headquarters": (
        *("The headquarters of {e} is located in {a}.", "{e} moved its headquarters to {b}."),
        "Where is the headquarters of {e}?",
    ),
    "acquired": ("{e} is owned by {a}.", "{b} acquired {e}.", "Who owns {e}?"),
    "sold": ("{e} is owned by {a}.", "{a} sold {e} to {b}.", "Who owns {e}?"),
    "changed email": (
        *("My email is {x}@a.org", "I changed my email to {x}@b.org"),
        "What is my email address?",
    ),
    "new number": (
        *("My phone number is 555 {n}.", "I have a new number: 555 {m}."),
        "What is my phone number?",
    ),
    "married again": ("I'm married to {a}.", "I got divorced and married {b}.", "Who am I married to?"),
    "boss": ("My boss is {a}.", "{b} is my boss now.", "Who is my boss?"),
    "doctors": ("My doctor is {a}.", "I switched doctors; my new one is {b}.", "Who is my doctor?"),
    "appointment": (
        *("My dentist appointment is on Tuesday.", "The dentist moved my appointment to Friday."),
        "When is my dentist appointment?",
    ),
    "colour": (
        *("My favourite colour is {c}.", "My favourite colour changed to teal."),
        "What is my favourite colour?",
    ),
    "left and settled": ("{p} lives in {a}.", "{p} left {a} and settled in {b}.", "Where does {p} live?"),
    "school": ("My son's school is {a}.", "My son switched to {b}.", "Which school does my son go to?"),
}
# Statements that leave each other alone: what was said first, and then.
COMPATIBLE: Final[Mapping[str, tuple[str, str]]] = {
    "another person's home": ("{p} lives in {a}.", "{q} lives in {b}."),
    "a visit": ("I live in {a}.", "I visited {b} last week and stayed at a nice hotel."),
    "a stay": ("I live in {a}.", "I'm staying in {b} this week."),
    "a plan": ("I live in {a}.", "I want to move to {b} one day."),
    "an intention": ("I live in {a}.", "I'm going to move to {b}, I think."),
    "a condition": ("I live in {a}.", "If I moved to {b}, I would miss the sea."),
    "the past": ("I live in {a}.", "I used to live in {b}."),
    "a question": ("I live in {a}.", "Should I move to {b}?"),
    "a denial": ("I live in {a}.", "I don't live in {b}."),
    "hearsay": ("I live in {a}.", "{p} said I moved to {b}."),
    "a quotation": ("I live in {a}.", 'The song goes "I live in {b}", over and over.'),
    "a relative": ("I live in {a}.", "My brother lives in {b}."),
    "somebody's plan": ("{p} lives in {a}.", "{p} might move to {b}."),
    "a refinement": ("I live in {a}.", "I live in {a}, near the old {b} bridge."),
    "the same again": ("I live in {a}.", "Yes, I live in {a}, I love it here."),
    "home and work": ("I live in {a}.", "I work at {b}."),
    "employer and job": ("I work at {a}.", "I work as a nurse."),
    "a business trip": ("I work at {a}.", "I had a long meeting at {b} today."),
    "an application": ("I work at {a}.", "I applied for a job at {b}."),
    "two friends": ("My friend is {p}.", "My friend is {q}."),
    "two pets": ("I have a dog named {p}.", "I adopted a cat named {q}."),
    "two children": ("{p}'s child is {a}.", "{p}'s child is {b}."),
    "two languages": ("{p} speaks {a}.", "{p} speaks {b}."),
    "two memberships": ("{p} is a member of {a}.", "{p} is a member of {b}."),
    "two likings": ("I love {a}.", "I love {b}."),
    "two favourites": ("My favourite colour is {c}.", "My favourite food is {d}."),
    "two appointments": ("My dentist appointment is on Tuesday.", "My haircut is on Thursday."),
    "two contacts": ("My phone number is 555 {n}.", "My email is {x}@b.org"),
    "country and city": ("{a} is located in the country of {b}.", "{a} is located in the city of {e}."),
    "founder and owner": ("{a} was founded by {p}.", "{a} is owned by {q}."),
    "birth and home": ("{p} was born in the city of {a}.", "{p} lives in {b}."),
    "two offices": ("The director of {a} is {p}.", "The director of {b} is {q}."),
    "two titles": ("The director of {a} is {p}.", "The head coach of {a} is {q}."),
    "a date": ("I'm married to {p}.", "I had dinner with {q} yesterday."),
    "another's partner": ("{p} is married to {a}.", "{q} is married to {b}."),
    "an age of another": ("I'm {i} years old.", "My sister is {j} years old."),
    "an office elsewhere": ("The mayor of {a} is {p}.", "{q} succeeded {p} as captain of {e}."),
    "a sale of a part": ("{e} is owned by {a}.", "{a} sold its shop to {b}."),
    "a flat for others": ("I live in {a}.", "I bought a flat in {b} and let it to students."),
    "a hire of another": ("{p} works at {a}.", "{b} hired {q}."),
    "a home of another": ("I live in {a}.", "{b} is her home now."),
    "a journey": ("I live in {a}.", "We packed everything and drove to {b}."),
    "a number of another": ("My phone number is 555 {n}.", "{p} has a new number: 555 {m}."),
    "a wish for a home": ("I live in {a}.", "I wish {b} were my home now."),
    "a boss of another": ("My boss is {p}.", "{q} is her boss now."),
    "a talk of a change": ("My email is {x}@a.org", "I never changed my email to {x}@b.org"),
}
_COLOURS: Final = ("red", "blue", "green", "dark blue", "yellow")
_FOODS: Final = ("soup", "rice", "bread", "plums", "stew")


@dataclass(frozen=True, slots=True, kw_only=True)
class Update:
    """A statement, a later one that contradicts it, a question, and the words by which each is told apart."""

    kind: str
    before: str
    after: str
    question: str
    old: str
    new: str


class Inventor:
    """Names that nobody has, each once."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)  # noqa: S311  # not for secrets
        self._taken: set[str] = set()

    def word(self) -> str:
        pick = self.random.choice
        while True:
            made = "".join(pick(_ONSETS) + pick(_VOWELS) + pick(_CODAS) for _ in range(2)).capitalize()
            if made not in self._taken and len(made) > 4:
                self._taken.add(made)
                return made

    def person(self) -> str:
        return f"{self.word()} {self.word()}"


def updates(data: Path, *, each: int, seed: int) -> list[Update]:
    """`each` updates of every relation of MQuAKE's templates (Zhong et al. 2023), of invented entities."""
    cloze, questions = _read(data / "cloze_templates.json"), _read(data / "question_templates.json")
    invent = Inventor(seed)
    out = []
    for relation, statement in cloze.items():
        for _ in range(each):
            subject = f"Governor of {invent.word()}" if relation == "P1308" else invent.person()
            old, new = invent.word(), invent.word()
            said = statement.replace("[X]", subject)
            out.append(
                Update(
                    kind=relation,
                    before=said.replace("__", old) + ".",
                    after=said.replace("__", new) + ".",
                    question=questions[relation].replace("[X]", subject),
                    old=old,
                    new=new,
                )
            )
    return out


def one_of_each(kinds: Mapping[str, tuple[str, str, str]], seed: int) -> Iterator[Update]:
    """One update of each kind, of invented names."""
    for kind, (before, after, question) in kinds.items():
        values = _values(Inventor(seed + sum(map(ord, kind))))
        yield Update(
            kind=kind,
            before=before.format_map(values),
            after=after.format_map(values),
            question=question.format_map(values),
            old=before.format_map(values),
            new=after.format_map(values),
        )


def compatible(count: int, seed: int) -> Iterator[tuple[str, str, str]]:
    """(kind, first, second), kind by kind."""
    invent = Inventor(seed)
    kinds = list(COMPATIBLE.items())
    for number in range(count):
        kind, (first, second) = kinds[number % len(kinds)]
        values = _values(invent)
        yield kind, first.format_map(values), second.format_map(values)


def pairs_of(kinds: Mapping[str, tuple[str, str]], seed: int) -> Iterator[tuple[str, str, str]]:
    """(kind, first, second), one of each kind."""
    for kind, (first, second) in kinds.items():
        values = _values(Inventor(seed + sum(map(ord, kind))))
        yield kind, first.format_map(values), second.format_map(values)


def _values(invent: Inventor) -> Mapping[str, object]:
    pick: Callable[..., int] = invent.random.randint
    age = pick(20, 80)
    return {
        **{name: invent.word() for name in "abe"},
        **{name: invent.person() for name in "pq"},
        "x": invent.word().lower(),
        **dict(zip("nm", invent.random.sample(range(100_000, 999_999), 2), strict=True)),
        "i": age,
        "j": age + 1,
        "c": invent.random.choice(_COLOURS),
        "d": invent.random.choice(_FOODS),
    }


def _read(path: Path) -> dict[str, str]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InvalidFile(
            f"{path} cannot be read ({error}). Take cloze_templates.json and question_templates.json from "
            "github.com/princeton-nlp/MQuAKE (MIT), folder prompts/templates"
        ) from error
    return {str(key): str(value) for key, value in found.items()}
