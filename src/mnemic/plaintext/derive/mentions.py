"""What a text states of whom: subject, attribute, value. Rules over sentences; English.

A rule is a pattern for one clause. A clause states nothing when it asks, supposes, wishes, plans, quotes or
reports; only present states, and events that change them ("moved to", "joined", "no longer"), count. What
is not understood is left alone: the raw turn is there all the same.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Final

from mnemic.plaintext.derive.attributes import FAVOURITE, HOLDER, KINDS, OFFICES, OPINION, SEVERAL, TIME_OF
from mnemic.plaintext.ingest.cut import sentences

LONGEST: Final = 100  # characters of a value


@dataclass(frozen=True, slots=True)
class Mention:
    """A value of an attribute of a subject, said in [start, end) of a text.

    single: it excludes any other value. ends: it says that the value (None: whatever it was) holds no more.
    """

    subject: str
    attribute: str
    value: str | None
    start: int
    end: int
    single: bool = True
    ends: bool = False


_CAP = r"[A-Z0-9][\w'’&-]*(?:\.(?=\w)[\w'’&-]+)*"
_LINK = r"(?:of|de|da|do|dos|del|della|di|la|le|the|and|&|von|van|der|den|du|al|el|for|upon|bin|ibn)"
NAME: Final = rf"{_CAP}(?:(?: {_LINK}){{0,2}} {_CAP}){{0,6}}"
_LOW = r"[a-z][\w'’-]*"
_VALUE = rf"(?:(?:the|a|an) )?(?P<v>{NAME})"
_I = r"(?:I|i|we|We)"
_SUBJECT = rf"(?P<s>{_I}|(?:[Tt]he )?{NAME})"
_HAVE = r"(?:'ve|’ve| have| has|'s|’s)?"
_BE = r"(?:'m|’m|'re|’re| am| are| is|'s|’s)"
_NOW = r"(?: now| currently| still| officially| finally| recently| just| both| already)?"
_PLACE = rf"(?P<article>(?:the|a|an) )?(?P<v>{NAME}|{_LOW}(?: {_LOW}){{0,2}})"

# What comes before or in a clause that states nothing.
_UNREAL: Final = re.compile(
    r"\b(?:if|wish(?:es|ed)?|would(?:n't)?|could(?:n't)?|might|may(?= )|maybe|perhaps|possibly|probably"
    r"|should|want(?:s|ed|ing)?|plan(?:s|ned|ning)?|hop(?:e|es|ed|ing)|going to|gonna|will|won't|shall"
    r"|think(?:s|ing)?|thought|consider(?:s|ed|ing)?|dream(?:s|ed|ing)?|imagin(?:e|es|ed|ing)|pretend(?:s|ed|ing)?|almost"
    r"|nearly|used to|jok(?:e|ed|ing)|kidding|said|says|told|claim(?:s|ed)?|heard|rumou?rs?|ask(?:s|ed)?"
    r"|wonder(?:s|ed|ing)?|guess|suppose(?:d)?|unless|whether|decid(?:e|ed|ing)|about to|try(?:ing)?|tried"
    r"|as if|like when|once|before|when I was|years? ago|back when|last (?:year|century)|in (?:19|20)\d\d"
    r"|previously|formerly|ex|hypothetically|story|novel|movie|film|song|game|character|never|not|n't)\b"
    r"|\b\w+n['’]t\b|['’](?:ll|d)\b",
)
_NO_SUBJECT: Final = frozenset(
    """he she it they we you this that these those there here who what which when where why how everyone
    everybody someone somebody nobody anyone one all some many most yesterday today tomorrow now then but and
    so also well yes no oh hey hi hello ok okay thanks my our your his her their its mr the a an in on at for
    with since after as my monday tuesday wednesday thursday friday saturday sunday january february march
    april june july august september october november december actually anyway btw by if though although
    because while once finally recently meanwhile lately wow great sorry please let just""".split()  # noqa: SIM905
)
_NO_VALUE: Final = frozenset(
    """a an the my your his her our their its this that these those it there here home town work school
    somewhere anywhere away abroad back together alone well fine good great nice bad very so really quite
    too not no me you him us them myself one two hard happily right now together different another new old
    small big little few many much fun peace fear hope love same place house apartment flat city country
    building area neighbourhood neighborhood street moment past future i we he she they who what where when
    how why if and or but monday tuesday wednesday thursday friday saturday sunday january february march
    april may june july august september october november december tomorrow today yesterday""".split()  # noqa: SIM905
)
_CLAUSE: Final = re.compile(r"(?:[;:—–]|, |\s-\s|\b(?:and|but|so|because|though|although|while) )+")
_QUOTED: Final = re.compile(r"[\"“][^\"”]*[\"”]?")

Make = Callable[[re.Match[str]], "Found | None"]


@dataclass(frozen=True, slots=True)
class Found:
    """What a rule reads from a clause; the subject as it stands there."""

    subject: str
    attribute: str
    value: str | None
    single: bool = True
    ends: bool = False


def mentions(text: str, speaker: str) -> Iterator[Mention]:
    """What is stated in a text that `speaker` said, in order. O(characters · rules)."""
    for start, end in sentences(text):
        sentence = text[start:end]
        if sentence.rstrip().endswith(("?", "？")) or not _MAY_STATE.search(sentence):
            continue
        plain = _QUOTED.sub(lambda found: "·" * len(found.group()), sentence)
        seen: set[tuple[str, str]] = set()
        who = ""
        for first in _starts(plain):
            clause = plain[first:].rstrip()
            before = plain[:first]
            if _UNREAL.search(before[_last_stop(before) :]):
                continue
            heard = list(_read(clause))
            if not heard and who:  # "I live in Lisbon and work at Acme."
                heard = [(found, length - len(who) - 1) for found, length in _read(f"{who} {clause}")]
            for found, length in heard:
                who = who or found.subject
                subject = _subject(found.subject, speaker)
                if subject is None or (subject, found.attribute) in seen:
                    continue
                seen.add((subject, found.attribute))
                at = start + first
                yield Mention(
                    subject, found.attribute, found.value, at, at + length, found.single, found.ends
                )


def same(one: str, other: str) -> bool:
    """Whether two values are the same, or one says the other more exactly: "Porto" and "Porto, Portugal"."""
    mine, its = key_of(one).split(), key_of(other).split()
    if any(word.isdigit() for word in (*mine, *its)):
        return mine == its
    return bool(mine) and bool(its) and (set(mine) <= set(its) or set(its) <= set(mine))


def key_of(name: str) -> str:
    """A name or value without case, articles and punctuation."""
    kept = re.sub(r"[^\w\s@.+-]", " ", name.lower().replace("’s", "").replace("'s", ""))
    return " ".join(word for word in kept.strip(" .").split() if word not in ("the", "a", "an"))


def _starts(sentence: str) -> Iterator[int]:
    """Where clauses may begin: the sentence itself, and after commas and conjunctions."""
    skipped = len(sentence) - len(sentence.lstrip(" \t\n\r-*>•#\"'“"))
    yield skipped
    for mark in _CLAUSE.finditer(sentence, skipped):
        if mark.end() < len(sentence):
            yield mark.end()


def _last_stop(before: str) -> int:
    """A doubt reaches as far as its own half of the sentence: "I would stay, but I moved"."""
    return max((mark.end() for mark in re.finditer(r"\bbut |; ", before)), default=0)


def _read(clause: str) -> Iterator[tuple[Found, int]]:
    for pattern, make in _rules():
        match = pattern.match(clause)
        if match is None:
            continue
        found = make(match)
        if found is None or (not found.ends and _UNREAL.search(_outside(match))):
            continue
        if found.value is not None and not 0 < len(found.value) <= LONGEST:
            continue
        yield found, match.end()
        return


def _outside(match: re.Match[str]) -> str:
    """What a rule matched but the value and the subject, which may be called anything."""
    text = match.group()
    for name in ("v", "s", "neg"):
        if name in match.re.groupindex and match.group(name):
            start, end = match.start(name) - match.start(), match.end(name) - match.start()
            text = text[:start] + "·" * (end - start) + text[end:]
    return text


def _subject(said: str, speaker: str) -> str | None:
    if said in ("I", "i", "we", "We", "my", "My", "our", "Our"):
        return speaker
    tokens = re.sub(r"['’]s?$", "", said).split()
    while tokens and tokens[0].lower() in _NO_SUBJECT:
        tokens = tokens[1:]
    if not tokens or not tokens[0][0].isalnum() or tokens[0][0].islower():
        return None
    return " ".join(tokens)


def _name(value: str) -> str | None:
    """A value that is a name, without what trails it; None for words that name nothing."""
    value = value.strip(" .,;:!'’\"")
    first, last = value.split(" ")[0].lower(), value.split(" ")[-1].lower()
    if not value or (last in _NO_VALUE and value.islower()):
        return None
    if first in _NO_VALUE and (value[0].islower() or " " not in value):  # but "New York"
        return None
    return value


def _of(
    attribute: str, *, single: bool = True, ends: bool = False
) -> Callable[[re.Match[str]], Found | None]:
    def make(match: re.Match[str]) -> Found | None:
        value = _name(match["v"]) if match["v"] else None
        if value is None and not ends:
            return None
        return Found(match["s"], attribute, value, single, ends)

    return make


def _place_of(attribute: str) -> Callable[[re.Match[str]], Found | None]:
    """A lower-case place only of the speaker, who may type so, and only to the end of the clause."""

    def make(match: re.Match[str]) -> Found | None:
        value = _name(match["v"])
        if value is None or (value[0].islower() and (match["article"] or not _ends_here(match))):
            return None
        return Found(match["s"], attribute, value)

    return make


def _ends_here(match: re.Match[str]) -> bool:
    rest = match.string[match.end() :]
    return not rest or rest[0] in ".,;!" or rest.startswith((" now", " since", " with", " and ", " but "))


def _employer(match: re.Match[str]) -> Found | None:
    value = _name(match["v"])
    if value is None or not _GATHERINGS.isdisjoint(value.lower().split()):
        return None
    return Found(match["s"], "employer", value)


def _described(match: re.Match[str]) -> Found | None:
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
        if not any(word in OFFICES for word in key_of(run.group()).split()) or not _is_name(value):
            return None
        return Found(run.group(), HOLDER, _name(value))
    if not head:
        return None
    if not (_is_name(value) or head in KINDS or any(word in KINDS for word in wanted.split())):
        return None
    named = _name(value)
    if named is None:
        return None
    single = head not in SEVERAL
    if attribute.endswith(" of …") and not wanted:  # the same as "Zor's capital is Vel"
        return Found(run.group(), attribute.removesuffix(" of …"), named, single)
    return Found(run.group(), attribute + (f" is {wanted.strip()}" if wanted else " is"), named, single)


def _became(match: re.Match[str]) -> Found | None:
    """ "Vel became the capital of Zor", "Zor elected Mora as its chair": the post is the attribute."""
    noun = match["a"].lower()
    head, named = noun.split()[-1], _name(match["v"])
    known = head in OFFICES or noun in ("capital", "owner", "author", "editor", "architect")
    if named is None or not known:
        return None
    return Found(match["s"], noun, named)


def _owner(match: re.Match[str]) -> Found | None:
    named = _name(match["v"])
    return None if named is None else Found(match["s"], "… is owned by", named)


def _owned(match: re.Match[str]) -> Found | None:
    """ "Ana's dentist is Bo", "my favourite colour is red"."""
    owner, value = match["s"], match["v"]
    noun = match["a"].lower().removeprefix("new ").removeprefix("current ")
    named = _name(value)
    if named is None:
        return None
    words_ = noun.split()
    head = words_[-1]
    is_favourite = words_[0] in ("favourite", "favorite")
    if is_favourite and len(words_) > 1:
        return Found(owner, FAVOURITE + " ".join(words_[1:]), named)
    if noun in _PARTNERS or head in ("fiance", "fiancé", "fiancée"):
        return Found(owner, "partner", named) if _is_name(value) else None
    if head in _PETS:
        return Found(owner, "pet", named, single=False) if _is_name(value) else None
    if noun in _CONTACT:
        return Found(owner, _CONTACT[noun], named)
    if noun in ("employer", "company"):
        return Found(owner, "employer", named) if _is_name(value) else None
    if noun in ("job", "profession", "occupation", "job title"):
        return Found(owner, "job", named)
    if not (_is_name(value) or head in KINDS):
        return None
    return Found(owner, noun, named, head not in SEVERAL and not _is_plural(head))


def _scheduled(match: re.Match[str]) -> Found | None:
    event = key_of(match["e"])
    words_ = event.split()
    if not words_ or len(words_) > 5 or words_[0] in _NO_SUBJECT - {"my"}:
        return None
    owner = match["s"] if match["s"].lower() in ("my", "our") else "my"
    return Found(owner, TIME_OF + event, match["v"].strip(" ."))


def _opinion(match: re.Match[str]) -> Found | None:
    thing = _name(match["v"])
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


def _age(match: re.Match[str]) -> Found | None:
    return Found(match["s"], "age", match["v"]) if 0 < int(match["v"]) < 130 else None


def _head(attribute: str) -> str:
    """The noun a description is about: the last word before "of", "in", "where", … or the name."""
    before = re.split(r" (?:of|in|for|at|where|that|which|who|to|from|on|with)\b|…", attribute)[0].split()
    return before[-1] if before else (attribute.split()[-1] if attribute.startswith("…") else "")


def _is_plural(noun: str) -> bool:
    return noun.endswith("s") and not noun.endswith(("ss", "us", "is", "headquarters"))


def _is_name(value: str) -> bool:
    return bool(value) and (value[0].isupper() or value[0].isdigit())


def _passive(match: re.Match[str]) -> Found | None:
    participle, preposition, kind = match["p"].lower(), match["prep"], match["t"]
    named = _name(match["v"])
    if named is None or not (_is_name(match["v"]) or kind):
        return None
    if participle == "married" or (participle == "engaged" and preposition == "to"):
        return Found(match["s"], "partner", named)
    if participle == "employed":
        return Found(match["s"], "employer", named)
    single = participle not in _LOOSE
    attribute = f"… is {participle} {preposition}" + (f" the {kind} of" if kind else "")
    return Found(match["s"], attribute, named, single)


def _verb(match: re.Match[str]) -> Found | None:
    verb, kind = match["verb"].lower(), match["t"]
    named = _name(match["v"])
    if named is None or not (_is_name(match["v"]) or kind):
        return None
    plain = _VERBS.get(verb)
    if plain is None:
        return None
    attribute, single = plain
    return Found(match["s"], attribute + (f" the {kind} of" if kind else ""), named, single)


_PARTNERS: Final = frozenset(
    "wife husband partner spouse girlfriend boyfriend fiance fiancé fiancée fiancee".split()  # noqa: SIM905
)
_PETS: Final = frozenset(
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
_PARTICIPLES = (
    "born|located|situated|headquartered|based|married|engaged|employed|founded|established|owned|created"
    "|written|composed|directed|painted|performed|developed|produced|manufactured|published|represented"
    "|educated|buried|affiliated|associated|known|famous|invented|discovered|designed|built|governed|led"
    "|chaired|managed|coached|broadcast|named|sponsored|spoken"
)
_VERBS: Final = {
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
    "belongs to": ("… belongs to", True),
}
_KIND = r"(?: the (?P<t>[a-z]+(?: [a-z]+)?) of)?"
_MONTH = "(?:January|February|March|April|May|June|July|August|September|October|November|December)"
_WEEKDAY = "(?:Mon|Tues|Wednes|Thurs|Fri|Satur|Sun)days?"
_HALF = r"(?:am|pm|a\.m\.|p\.m\.|h\b|o'clock)"
_HOUR = r"\d{1,2}(?::\d\d)?"
_ORDINAL = r"\d{1,2}(?:st|nd|rd|th)?"
_WHEN = (
    rf"(?P<v>(?:(?:this |next )?{_WEEKDAY}(?: (?:morning|afternoon|evening|night))?"
    rf"|(?:the )?{_ORDINAL}(?: of)? {_MONTH}|{_MONTH} (?:the )?{_ORDINAL}|{_HOUR} ?{_HALF}|\d{{1,2}}:\d\d"
    rf"|\d{{4}}-\d\d-\d\d|noon|midnight)(?:,? (?:at )?{_HOUR} ?{_HALF}?)?)"
)


_ENDED: Final = r"(?: anymore| any more| any longer)?"
_RULES: Final[tuple[tuple[str, Make], ...]] = (
    # ends
    (rf"{_SUBJECT}(?: no longer lives?| (?:do|does)n['’]t live) in {_VALUE}", _of("home", ends=True)),
    (
        rf"{_SUBJECT}(?: no longer works?| (?:do|does)n['’]t work) (?:at|for) {_VALUE}",
        _of("employer", ends=True),
    ),
    (
        rf"{_SUBJECT}{_HAVE} (?:quit|left|resigned from|lost|got fired from|got laid off from)"
        rf"(?: (?:my|his|her|the|our) (?:old )?job)? ?(?:at|with|from)? ?{_VALUE}"
        r"(?= (?:and|to|after|because)|[.,;!]|$)",
        _of("employer", ends=True),
    ),
    (rf"{_SUBJECT}{_HAVE} moved (?:out of|away from) {_VALUE}", _of("home", ends=True)),
    (
        rf"(?P<v>)(?P<s>{_I})(?:{_BE}| got|{_HAVE} been| are)? ?"
        r"(?:divorced|broke up|broken up|split up|separated)",
        _of("partner", ends=True),
    ),
    (rf"{_SUBJECT}{_HAVE} (?:broke up|split up|broken up) with {_VALUE}", _of("partner", ends=True)),
    # home
    (
        rf"{_SUBJECT}(?:{_BE}|{_HAVE} been)?{_NOW} "
        rf"(?:live|lives|living|reside|resides|residing|based){_NOW} (?:in|at) {_PLACE}",
        _place_of("home"),
    ),
    (
        rf"{_SUBJECT}{_HAVE}{_NOW} (?:moved|relocated|move|moves)(?: back| over| out| house)?"
        rf"(?: from (?:the )?{NAME})? (?:in)?to {_PLACE}",
        _place_of("home"),
    ),
    (
        rf"{_SUBJECT}{_HAVE}{_NOW} (?:settled(?: down)?"
        r"|(?:found|got|bought|rented)(?: an?| our| my)?(?: new)?"
        rf" (?:place|flat|apartment|house|home)) in {_VALUE}",
        _of("home"),
    ),
    # work
    (rf"(?P<s>[Mm]y|[Oo]ur) first (?:day|week|month) at {_VALUE} (?:was|is|went)", _employer),
    (
        rf"{_SUBJECT}(?:{_BE}|{_HAVE} been)?{_NOW}"
        rf" (?:work|works|working|employed){_NOW} (?:at|for|by) {_VALUE}",
        _employer,
    ),
    (
        rf"{_SUBJECT}{_HAVE}{_NOW} (?:joined"
        r"|started (?:work(?:ing)?|a (?:new )?job|my new job) (?:at|for|with)"
        rf"|got (?:a|the) (?:new )?job (?:at|with)|switched (?:jobs )?to) {_VALUE}",
        _employer,
    ),
    (
        rf"{_SUBJECT}{_BE}?{_NOW} (?:work|works|working){_NOW} as (?:an? |the )?"
        r"(?P<v>[A-Za-z][\w-]*(?: [a-z][\w-]*){0,3}?)"
        r"(?= (?:at|for|in|now|and|but|since|with)\b|[.,;!]|$)",
        _of("job"),
    ),
    # partner
    (rf"{_SUBJECT}{_HAVE}{_NOW} (?:married|wed|got married to|got engaged to) {_VALUE}", _of("partner")),
    (rf"{_SUBJECT}{_BE}{_NOW} dating {_VALUE}", _of("partner")),
    # age, opinions
    (rf"{_SUBJECT}{_BE}{_NOW} (?P<v>\d{{1,3}}) years old", _age),
    (rf"(?P<s>{_I}){_BE}{_NOW} (?P<v>\d{{1,2}})(?= now\b|[.,;!]|$)", _age),
    (rf"{_SUBJECT}{_HAVE}{_NOW} turned (?P<v>\d{{1,3}})\b(?! (?:pages|heads))", _age),
    (
        rf"(?P<s>{_I}|{NAME})(?: really| absolutely| also| still| now)?"
        r"(?P<neg> (?:do|does)n['’]t| no longer)?(?: really)?"
        r" (?P<verb>likes?|loves?|enjoys?|hates?|dislikes?|detests?|can't stand|prefers?)"
        rf" (?P<v>{NAME}|{_LOW}(?: (?!any|now\b){_LOW})?){_ENDED}"
        r"(?=[.,;!]| (?:a lot|very much|so much|anymore|now)\b|$)",
        _opinion,
    ),
    # schedule
    (
        r"(?P<s>[Mm]y|[Oo]ur|[Tt]he) (?P<e>[a-z][\w'’-]*(?: (?:with |at |in )?[\w'’-]+){0,4}?)"
        r"(?: is| was| has been| got| will be|'s)?(?: now)?"
        r"(?: (?:moved|rescheduled|postponed|scheduled|set|pushed|brought|changed|shifted)"
        r"(?: back| forward)?)?"
        rf" (?:on|at|to|for|until) {_WHEN}",
        _scheduled,
    ),
    # pets
    (
        rf"{_SUBJECT}{_HAVE} (?:have|has|got|adopted|bought|own|owns)(?: an?| my| our| another)?"
        rf"(?: [a-z]+){{0,2}}? (?:{'|'.join(sorted(_PETS))})(?:,)? (?:named|called) (?P<v>{NAME})",
        _of("pet", single=False),
    ),
    # posts and owners that change
    (
        rf"(?P<v>{NAME})(?: has| was)? (?:became|become|is now|is|took over as|taken over as|takes over as"
        r"|elected(?: as)?|named|appointed(?: as)?) (?:the )?(?:new )?"
        r"(?P<a>[a-z]+(?: [a-z]+){0,3}) of (?:the )?"
        rf"(?P<s>{NAME})(?=[.,;!]|$)",
        _became,
    ),
    (
        rf"{_SUBJECT}{_HAVE} (?:elected|appointed|named|hired|chose) (?P<v>{NAME}) as"
        r" (?:its|their|the|his|her)"
        r"(?: new)? (?P<a>[a-z]+(?: [a-z]+){0,3})(?=[.,;!]|$)",
        _became,
    ),
    (
        rf"{_SUBJECT}(?: was| has been|{_BE} now) (?:bought|acquired|taken over|purchased) by {_VALUE}",
        _owner,
    ),
    (
        r"(?P<s>)(?:[Yy]ou can |[Pp]lease )?(?:[Rr]each|[Cc]all|[Tt]ext) me (?:at|on|under)"
        r" (?P<v>\+?\d[\d ()/-]{4,}\d)",
        lambda match: Found("I", "phone", match["v"]),
    ),
    # descriptions and properties
    (
        rf"(?P<s>[Mm]y|[Oo]ur|(?:[Tt]he )?{NAME}['’]s?) (?P<a>[a-z][a-z-]*(?: [a-z][a-z-]*){{0,3}}?)"
        rf"(?:['’]s name)? (?:is|are)(?: now| currently)?(?: called| named)? (?:(?:the|a|an) )?"
        rf"(?P<v>{NAME}|[\w.+-]+@[\w.-]+\w|\+?\d[\d ()/-]{{4,}}\d|{_LOW}(?: {_LOW}){{0,2}})"
        r"(?= now\b|[.,;!]|$)",
        _owned,
    ),
    (
        rf"{_SUBJECT}(?:{_BE}| was| were| has been| have been)(?: now| currently| originally)?"
        rf" (?P<p>{_PARTICIPLES}) (?P<prep>in|by|to|with|for|at|from|on|as){_KIND} (?:the )?"
        rf"(?P<v>{NAME}|{_LOW}(?: {_LOW})?)(?=[.,;!]|$| in | since )",
        _passive,
    ),
    (
        rf"{_SUBJECT} (?P<verb>{'|'.join(sorted(_VERBS, key=len, reverse=True))}){_KIND} (?:the )?"
        rf"(?P<v>{NAME}|{_LOW}(?: {_LOW})?)(?=[.,;!]|$| in | since | and )",
        _verb,
    ),
    (
        r"(?:[Tt]he )(?P<d>[^,.;!?]{3,100}?) (?:is|are)(?: now| currently)?"
        r"(?P<more> (?:located|situated|based|written|spoken) in(?: the [a-z]+ of)?)? (?:(?:the|a|an) )?"
        rf"(?P<v>{NAME}|{_LOW}(?: {_LOW}){{0,2}})(?=[.;!]|$)",
        _described,
    ),
)


@cache
def _rules() -> tuple[tuple[re.Pattern[str], Make], ...]:
    """Compiled at first use, 40 ms: opening a memory does not wait for it."""
    return tuple((re.compile(pattern), make) for pattern, make in _RULES)


_MAY_STATE: Final = re.compile(
    r"\b(?:elected|appointed|named|hired|chose|became|become|took|taken|takes|settled|found|bought|acquired|first"
    r"|reach|Reach|call|Call|text|Text|live|lives|living|reside|resides|based|moved|move|moves|relocated|work|works|working|worked|employed"
    r"|joined|started|job|quit|left|resigned|lost|fired|married|wed|dating|engaged|broke|broken|split|divorced"
    r"|separated|turned|years old|likes?|loves?|enjoys?|hates?|dislikes?|detests?|prefers?|stand|named|called"
    r"|speaks?|plays?|died|belongs|on|at|to)\b|['’]m \d|\b(?:is|are|was|were|am)\b"
)
