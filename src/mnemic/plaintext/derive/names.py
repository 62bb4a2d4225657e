"""Names and values as they stand in a text: how they look, when two are the same, what is none."""

from __future__ import annotations

import re
from typing import Final

_CAP = r"[A-Z0-9][\w'’&-]*(?:\.(?=\w)[\w'’&-]+)*"
_LINK = r"(?:of|de|da|do|dos|del|della|di|la|le|the|and|&|von|van|der|den|du|al|el|for|upon|bin|ibn)"
NAME: Final = rf"{_CAP}(?:(?: {_LINK}){{0,2}} {_CAP}){{0,6}}"
LOW: Final = r"[a-z][\w'’-]*"
NO_SUBJECT: Final = frozenset(
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


def name_of(value: str) -> str | None:
    """A value that is a name, without what trails it; None for words that name nothing."""
    value = value.strip(" .,;:!'’\"")
    first, last = value.split(" ")[0].lower(), value.split(" ")[-1].lower()
    if not value or (last in _NO_VALUE and value.islower()):
        return None
    if first in _NO_VALUE and (value[0].islower() or " " not in value):  # but "New York"
        return None
    return value


def is_name(value: str) -> bool:
    """Does it begin as a name does?"""
    return bool(value) and (value[0].isupper() or value[0].isdigit())
