"""What a rule reads from the clause that it matches: whom it is about, which attribute, which value."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from mnemic.plaintext.derive.attributes import (
    FAVOURITE,
    HEADQUARTERS,
    HOLDER,
    KINDS,
    OFFICES,
    OPINION,
    ROLES,
    SEVERAL,
    TIME_OF,
)
from mnemic.plaintext.derive.names import NAME, NO_SUBJECT, is_name, key_of, name_of


@dataclass(frozen=True, slots=True)
class Found:
    """What a rule reads from a clause; the subject as it stands there.

    instead: it counts only where this is the value that holds: "I left Acme for Globex" says of what it
    speaks by that alone.
    """

    subject: str
    attribute: str
    value: str | None
    single: bool = True
    ends: bool = False
    instead: str | None = None


Make = Callable[[re.Match[str]], Found | Sequence[Found] | None]


def of(attribute: str, *, single: bool = True, ends: bool = False) -> Callable[[re.Match[str]], Found | None]:
    def make(match: re.Match[str]) -> Found | None:
        value = name_of(match["v"]) if match["v"] else None
        if value is None and not ends:
            return None
        return Found(match["s"], attribute, value, single, ends)

    return make


def place_of(attribute: str) -> Callable[[re.Match[str]], Found | None]:
    """A lower-case place only of the speaker, who may type so, and only to the end of the clause."""

    def make(match: re.Match[str]) -> Found | None:
        value = name_of(match["v"])
        if value is None or (value[0].islower() and (match["article"] or not _ends_here(match))):
            return None
        return Found(match["s"], attribute, value)

    return make


def _ends_here(match: re.Match[str]) -> bool:
    rest = match.string[match.end() :]
    return not rest or rest[0] in ".,;!" or rest.startswith((" now", " since", " with", " and ", " but "))


def employer(match: re.Match[str]) -> Found | None:
    value = name_of(match["v"])
    if value is None or not _GATHERINGS.isdisjoint(value.lower().split()):
        return None
    return Found("I" if match["s"] == "me" else match["s"], "employer", value)


def described(match: re.Match[str]) -> Found | None:
    """ "The capital of Zor is Vel": the name in the description is the subject, the rest the attribute."""
    said, value = match["d"], match["v"]
    runs = list(re.finditer(NAME, said))
    if not runs:
        return None
    run = runs[-1]
    attribute = " ".join((said[: run.start()] + "…" + said[run.end() :]).replace("…'s", "…").lower().split())
    head = _head(attribute)
    wanted = match["more"] or ""
    if attribute == "…":
        if not any(word in OFFICES for word in key_of(run.group()).split()) or not is_name(value):
            return None
        return Found(run.group(), HOLDER, name_of(value))
    if not head:
        return None
    if head == HEADQUARTERS:
        return Found(run.group(), HEADQUARTERS, name_of(value)) if is_name(value) else None
    if not (is_name(value) or head in KINDS or any(word in KINDS for word in wanted.split())):
        return None
    named = name_of(value)
    if named is None:
        return None
    single = head not in SEVERAL
    if attribute.endswith(" of …") and not wanted:  # the same as "Zor's capital is Vel"
        return Found(run.group(), attribute.removesuffix(" of …"), named, single)
    return Found(run.group(), attribute + (f" is {wanted.strip()}" if wanted else " is"), named, single)


def became(match: re.Match[str]) -> Found | None:
    """ "Vel became the capital of Zor", "Zor elected Mora as its chair": the post is the attribute."""
    noun = match["a"].lower()
    head, named = noun.split()[-1], name_of(match["v"])
    known = head in OFFICES or noun in ("capital", "owner", "author", "editor", "architect")
    if named is None or not known:
        return None
    return Found(match["s"], noun, named)


def exchanged(*attributes: str) -> Make:
    """ "I left Acme for Globex": of whichever attribute has the old value, the new one."""

    def make(match: re.Match[str]) -> Sequence[Found]:
        old, new = name_of(match["old"]), name_of(match["v"])
        if old is None or new is None:
            return ()
        return [Found(match["s"], attribute, new, instead=old) for attribute in attributes]

    return make


def resigned(match: re.Match[str]) -> Found | None:
    """ "Vel stepped down as mayor of Zor": the post, if Vel held it, is over."""
    noun = match["a"].lower()
    if noun.split()[-1] not in OFFICES:
        return None
    return Found(match["s"], noun, name_of(match["v"]), ends=True)


def owner(match: re.Match[str]) -> Found | None:
    named = name_of(match["v"])
    return None if named is None else Found(match["s"], "… is owned by", named)


def owned(match: re.Match[str]) -> Found | None:
    """ "Ana's dentist is Bo", "my favourite colour is red"."""
    owner, value = match["s"], match["v"]
    noun = match["a"].lower().removeprefix("new ").removeprefix("current ")
    named = name_of(value)
    if named is None:
        return None
    words_ = noun.split()
    head = words_[-1]
    is_favourite = words_[0] in ("favourite", "favorite")
    if is_favourite and len(words_) > 1:
        return Found(owner, FAVOURITE + " ".join(words_[1:]), named)
    if noun in _PARTNERS or head in ("fiance", "fiancé", "fiancée"):
        return Found(owner, "partner", named) if is_name(value) else None
    if head in PETS:
        return Found(owner, "pet", named, single=False) if is_name(value) else None
    if noun in _CONTACT:
        return Found(owner, _CONTACT[noun], named)
    if noun in ("employer", "company"):
        return Found(owner, "employer", named) if is_name(value) else None
    if noun in ("job", "profession", "occupation", "job title"):
        return Found(owner, "job", named)
    if not (is_name(value) or head in KINDS):
        return None
    return Found(owner, noun, named, head not in SEVERAL and not _is_plural(head))


def role(match: re.Match[str]) -> Found | None:
    """ "Bo is my dentist now", "Pulp is my favourite band": of few nouns, "Dance is my passion" is none."""
    words_ = match["a"].lower().split()
    known = words_[0] in ("favourite", "favorite") or words_[-1] in ROLES or words_[-1] in _PARTNERS
    return owned(match) if known else None


def scheduled(match: re.Match[str]) -> Found | None:
    event = key_of(match["e"])
    words_ = event.split()
    if not words_ or len(words_) > 5 or words_[0] in NO_SUBJECT - {"my"}:
        return None
    owner = match["s"] if match["s"].lower() in ("my", "our") else "my"
    return Found(owner, TIME_OF + event, match["v"].strip(" ."))


def opinion(match: re.Match[str]) -> Found | None:
    thing = name_of(match["v"])
    if (
        thing is None
        or not thing
        or thing.split()[0].lower() in ("to", "when", "how", "what", "that", "doing")
    ):
        return None
    verb = match["verb"].lower()
    if match["s"].lower() not in ("i", "we") and not verb.endswith("s") and not match["neg"]:
        return None  # "Themes like sisterhood"
    negative = bool(match["neg"]) or verb.startswith(("hate", "dislike", "can't stand", "detest"))
    return Found(match["s"], OPINION + key_of(thing), "dislikes" if negative else "likes")


def age(match: re.Match[str]) -> Found | None:
    return Found(match["s"], "age", match["v"]) if 0 < int(match["v"]) < 130 else None


def _head(attribute: str) -> str:
    """The noun a description is about: the last word before "of", "in", "where", … or the name."""
    before = re.split(r" (?:of|in|for|at|where|that|which|who|to|from|on|with)\b|…", attribute)[0].split()
    return before[-1] if before else (attribute.split()[-1] if attribute.startswith("…") else "")


def _is_plural(noun: str) -> bool:
    return noun.endswith("s") and not noun.endswith(("ss", "us", "is", "headquarters"))


def passive(match: re.Match[str]) -> Found | None:
    participle, preposition, kind = match["p"].lower(), match["prep"], match["t"]
    named = name_of(match["v"])
    if named is None or not (is_name(match["v"]) or kind):
        return None
    if participle == "married" or (participle == "engaged" and preposition == "to"):
        return Found(match["s"], "partner", named)
    if participle == "employed":
        return Found(match["s"], "employer", named)
    if participle == "headquartered":
        return Found(match["s"], HEADQUARTERS, named)
    single = participle not in _LOOSE
    attribute = f"… is {participle} {preposition}" + (f" the {kind} of" if kind else "")
    return Found(match["s"], attribute, named, single)


def verb(match: re.Match[str]) -> Found | None:
    verb, kind = match["verb"].lower(), match["t"]
    named = name_of(match["v"])
    if named is None or not (is_name(match["v"]) or kind):
        return None
    plain = VERBS.get(verb)
    if plain is None:
        return None
    attribute, single = plain
    return Found(match["s"], attribute + (f" the {kind} of" if kind else ""), named, single)


_PARTNERS: Final = frozenset(
    "wife husband partner spouse girlfriend boyfriend fiance fiancé fiancée fiancee".split()  # noqa: SIM905
)
PETS: Final = frozenset(
    "dog cat pet puppy kitten parrot hamster rabbit turtle horse goldfish snake lizard bird".split()  # noqa: SIM905
)
_GATHERINGS: Final = frozenset(
    """club team band choir gym group class course church community league party army navy society forum
    discord facebook instagram twitter reddit linkedin zoom home night christmas easter""".split()  # noqa: SIM905
)
_CONTACT: Final = {
    **dict.fromkeys(
        ("phone", "phone number", "mobile", "mobile number", "cell", "number", "cell number"), "phone"
    ),
    **dict.fromkeys(("email", "e-mail", "email address", "e-mail address", "mail"), "email"),
    **dict.fromkeys(("address", "home address", "new address", "postal address"), "address"),
    "birthday": "birthday",
    "name": "name",
}
_LOOSE: Final = frozenset("associated known famous interested involved inspired influenced praised".split())  # noqa: SIM905
PARTICIPLES: Final = (
    "born|located|situated|headquartered|based|married|engaged|employed|founded|established|owned|created"
    "|written|composed|directed|painted|performed|developed|produced|manufactured|published|represented"
    "|educated|buried|affiliated|associated|known|famous|invented|discovered|designed|built|governed|led"
    "|chaired|managed|coached|broadcast|named|sponsored|spoken"
)
VERBS: Final = {
    "speaks": ("… speaks", False),
    "speak": ("… speaks", False),
    "plays": ("… plays", True),
    "play": ("… plays", True),
    "works in": ("… works in", True),
    "work in": ("… works in", True),
    "worked in": ("… worked in", False),
    "died in": ("… died in", True),
    "is a citizen of": ("… is a citizen of", True),
    "is a member of": ("… is a member of", False),
    "am a member of": ("… is a member of", False),
    "am a citizen of": ("… is a citizen of", True),
    "belongs to": ("… is owned by", True),
}
