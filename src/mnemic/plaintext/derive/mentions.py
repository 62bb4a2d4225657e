"""What a text states of whom: subject, attribute, value. Rules over sentences; English.

A rule is a pattern for one clause. A clause states nothing when it asks, supposes, wishes, plans, quotes or
reports; only present states, and events that change them ("moved to", "joined", "no longer"), count. What
is not understood is left alone: the raw turn is there all the same.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from mnemic.plaintext.derive.names import NO_SUBJECT
from mnemic.plaintext.derive.readings import Found
from mnemic.plaintext.derive.rules import MAY_STATE, rules
from mnemic.plaintext.ingest.cut import sentences

LONGEST: Final = 100  # characters of a value


@dataclass(frozen=True, slots=True)
class Mention:
    """A value of an attribute of a subject, said in [start, end) of a text.

    single: it excludes any other value. ends: it says that the value (None: whatever it was) holds no more.
    instead: it counts only where this value holds.
    """

    subject: str
    attribute: str
    value: str | None
    start: int
    end: int
    single: bool = True
    ends: bool = False
    instead: str | None = None


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
_CLAUSE: Final = re.compile(r"(?:[;:—–]|, |\s-\s|\b(?:and|but|so|because|though|although|while) )+")
_SPEAKING: Final = re.compile(r"(?:I|i|We|we)\b(?!['’])")  # "We packed everything and settled in Faro."
_LEADS_IN: Final = frozenset(  # "Since I lost my job", but not "If I lost" or "When I lost"
    """since because and so but well yes no oh hey hi hello ok okay thanks actually anyway btw also now
    finally recently meanwhile lately wow great sorry""".split()  # noqa: SIM905
)
_QUOTED: Final = re.compile(r"[\"“][^\"”]*[\"”]?")


def mentions(text: str, speaker: str) -> Iterator[Mention]:
    """What is stated in a text that `speaker` said, in order. O(characters · rules)."""
    for start, end in sentences(text):
        sentence = text[start:end]
        if sentence.rstrip().endswith(("?", "？")) or not MAY_STATE.search(sentence):
            continue
        plain = _QUOTED.sub(lambda found: "·" * len(found.group()), sentence)
        seen: set[tuple[str, str, bool]] = set()
        who = "I" if _SPEAKING.match(plain.lstrip()) else ""
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
                said = (subject or "", found.attribute, found.ends)  # "I got divorced and married Bo."
                if subject is None or said in seen:
                    continue
                seen.add(said)
                at = start + first
                yield Mention(
                    subject, found.attribute, found.value, at, at + length, found.single, found.ends,
                    found.instead,
                )  # fmt: skip


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
    for pattern, make in rules():
        match = pattern.match(clause)
        if match is None:
            continue
        made = make(match)
        found = [
            one
            for one in ([made] if isinstance(made, Found) else made or ())
            if (one.ends or not _UNREAL.search(_outside(match)))
            and (one.value is None or 0 < len(one.value) <= LONGEST)
        ]
        if found:
            yield from ((one, match.end()) for one in found)
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
    tokens, led_in = re.sub(r"['’]s?$", "", said).split(), True
    while tokens and tokens[0].lower() in NO_SUBJECT:
        led_in = led_in and tokens[0].lower() in _LEADS_IN
        tokens = tokens[1:]
    if tokens and tokens[0] == "I":
        return speaker if led_in else None
    if not tokens or not tokens[0][0].isalnum() or tokens[0][0].islower():
        return None
    return " ".join(tokens)
