"""What facts speak of: which attributes exclude a second value, and which words of a question ask for them.

Named attributes (home, employer, …) have words of their own; any other is a phrase such as "capital of …" and
is asked for by its own words.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import Final

from mnemic.index.lexical import term, words

FAVOURITE: Final = "favourite "
OPINION: Final = "opinion of "
TIME_OF: Final = "time of "
HEADQUARTERS: Final = "headquarters"  # however it is described: "located in", "in the city of"
HOLDER: Final = "holder"  # of an office that the subject itself names

_CUES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "home": "home live lives living reside based move moved relocate city town country address house",
        "employer": "employer employed work works working job company firm office boss",
        "job": "job work works working profession occupation do role title career position",
        "partner": "partner married marry wife husband spouse girlfriend boyfriend dating fiance wedding",
        "relationship": "married single divorced relationship partner wife husband",
        "pet": "pet pets dog cat animal puppy kitten",
        "age": "age old years",
        "birthday": "birthday born birth",
        "name": "name called",
        "phone": "phone number call mobile telephone contact reach",
        "email": "email mail e address contact reach",
        "address": "address live street house contact",
        "language": "language languages speak speaks",
        "… is a citizen of": "citizen citizenship nationality national country passport",
        "… is born in": "born birth birthplace native hometown",
        "… is employed by": "employed employer work works job",
        "… is founded by": "founded founder founders started",
        "… is owned by": "owned owner owns belongs",
        HEADQUARTERS: "headquarters headquartered seat office based located",
        **{
            post: f"{post} {verbs}"
            for posts, verbs in (
                ("director head leader manager principal chief general", "run lead head direct manage"),
                ("chair chairman chairwoman chairperson", "chair run lead head"),
                ("president governor mayor chancellor minister premier", "govern run lead head"),
                ("coach", "coach train"),
                ("captain", "captain lead"),
                ("king queen emperor empress sultan", "rule reign"),
            )
            for post in posts.split()
        },
        "head coach": "head coach train",
    }
)
_OPINION_CUES: Final = (
    "like likes love loves hate hates enjoy prefer dislike think favourite favorite opinion"
)
_TIME_CUES: Final = "when time day date schedule scheduled hour"
_WEAK: Final = frozenset(
    "a an the of in at by to for with from on is was are were where that which who name current".split()  # noqa: SIM905
)

# Head nouns of which somebody may have several at once: "Ana's friend is Bo" excludes no other friend.
SEVERAL: Final = frozenset(
    """child children son daughter kid friend brother sister sibling cousin uncle aunt nephew niece colleague
    coworker neighbour neighbor classmate roommate flatmate teammate teacher student pupil pet dog cat hobby
    hobbies interest skill member goal dream passion strength weakness problem issue idea plan
    advantage thing reason part example favourite favorite fan customer client book song film movie grandchild
    grandson granddaughter ally rival enemy tributary suburb district town village product work""".split()  # noqa: SIM905
)
# What lower-case words may be a value of: "The type of music that Mora plays is jazz."
KINDS: Final = frozenset(
    """type kind genre style language colour color religion faith sport position instrument field currency
    name status job profession occupation title food drink dish cuisine season hobby subject size password
    code number diet allergy motto nationality blood""".split()  # noqa: SIM905
)
# Of what somebody may say that they prefer this to that, without naming it again.
FAVOURED: Final = tuple(
    """band singer artist musician author writer poet book novel film movie series show actor actress team
    club player song album restaurant cafe café bar pub shop brand game dish food drink city country
    place""".split()  # noqa: SIM905
)
# Whom somebody has one of: "Bo is my dentist now" ends another dentist.
ROLES: Final = frozenset(
    """boss manager supervisor mentor doctor gp dentist therapist psychologist physiotherapist optician vet
    lawyer accountant agent adviser advisor landlord landlady hairdresser barber trainer tutor nanny
    cleaner gardener plumber mechanic""".split()  # noqa: SIM905
)
OFFICES: Final = frozenset(
    """president governor mayor chancellor minister king queen emperor empress duke duchess prince princess
    director chair chairman chairwoman chairperson secretary speaker captain pope bishop archbishop rector
    dean commissioner ambassador sheriff marshal warden premier consul sultan champion manager coach head
    leader principal chief general treasurer provost senator""".split()  # noqa: SIM905
)


def asks_for(attribute: str, terms: frozenset[int]) -> bool:
    """Whether a question with these terms is about an attribute of a subject that it names."""
    return attribute == HOLDER or not terms.isdisjoint(cues(attribute))


@lru_cache(4096)
def cues(attribute: str) -> frozenset[int]:
    """Terms of a question that ask for an attribute. Cached."""
    asked = _CUES.get(attribute)
    if asked is None:
        asked = attribute
        for prefix, more in ((OPINION, _OPINION_CUES), (TIME_OF, _TIME_CUES)):
            if attribute.startswith(prefix):
                asked = f"{attribute.removeprefix(prefix)} {more}"
    return frozenset(term(word) for word in words(asked) if word not in _WEAK)


def phrase(subject: str, attribute: str, value: str) -> str:
    """A fact as a sentence, to be read and to be found."""
    if attribute in _PHRASES:
        return _PHRASES[attribute].format(subject=subject, value=value)
    if attribute.startswith(OPINION):
        return f"{subject} {value} {attribute.removeprefix(OPINION)}."
    if attribute.startswith(TIME_OF):
        return f"{subject}: {attribute.removeprefix(TIME_OF)} is {value}."
    if "…" in attribute:
        said = attribute.replace("…", subject)
        return f"{said} {value}." if attribute.startswith("…") else f"The {said} is {value}."
    return f"{subject}'s {attribute} is {value}."


_PHRASES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "home": "{subject} lives in {value}.",
        "employer": "{subject} works at {value}.",
        "job": "{subject} works as {value}.",
        "partner": "{subject} is together with {value}.",
        "relationship": "{subject} is {value}.",
        "pet": "{subject} has a pet: {value}.",
        "age": "{subject} is {value} years old.",
        HOLDER: "The {subject} is {value}.",
    }
)
