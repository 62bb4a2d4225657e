"""What a caller may hand to a verb wrongly, and the typed error for each."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from desk import Case, Desk, first_id, on

import mnemic
from mnemic.cube import errors as e

BIG = "a" * 50_000_000


def add(what: str, error: type[e.MnemicError], says: str, content: Any = "x", **options: Any) -> Case:
    return on("add", what, error, says, content, **{"user": "ana", **options})


def say(what: str, error: type[e.MnemicError], says: str, **message: Any) -> Case:
    """The second of two messages: the first is fine, and is not stored either."""
    messages = [{"role": "user", "content": "fine"}, {"role": "user", "content": "x", **message}]
    return on("add", f"message: {what}", error, f"message 1: .*{says}", messages, user="ana")


def gives(what: str, error: type[e.MnemicError], says: str, give: Callable[[int], Any]) -> Case:
    return Case("add", f"embedder gives {what}", error, says, lambda at: at.embed(give))


def search(
    what: str, error: type[e.MnemicError], says: str, question: Any = "where?", **options: Any
) -> Case:
    return on("search", what, error, says, question, **{"user": "ana", **options})


def where(what: str, says: str, condition: Any) -> Case:
    return on("list", f"where: {what}", e.InvalidFilter, says, user="ana", where=condition)


def bound(at: Desk) -> None:
    at.memory.scope(user="ana").search("x", user="bo")


VECTOR, SHAPE = e.InvalidVector, r"one row of 4 for each text"
ADDS = [
    add("empty text", e.InvalidText, "empty. Leave", ""),
    add("only white space", e.InvalidText, "empty", " \n\u00a0\t"),
    add("text of 50 MB", e.InvalidText, "50,000,000 characters.*import", BIG),
    add("half of a surrogate pair", e.InvalidText, "UTF-8.*errors='replace'", "a\ud83d"),
    add("bytes", e.InvalidInput, "bytes.*Give text", b"caf\xe9"),
    add("None", e.InvalidInput, "NoneType.*Give text", None),
    add("no user and no agent", e.ScopeRequired, "user='…' or agent='…'", user=None),
    add("user with NUL", e.InvalidOption, "user=.*512", user="a\x00"),
    add("user that is empty", e.InvalidOption, "user=.*512", user=""),
    add("user that is a number", e.InvalidOption, "user=7.*text", user=7),
    add("session of 10,000 characters", e.InvalidOption, "session=.*512", session="s" * 10_000),
    add("session of half a surrogate pair", e.InvalidOption, "session=.*Unicode", session="\udc00"),
    add("id of 10,000 characters", e.InvalidOption, "id=.*512", id="i" * 10_000),
    add("id with NUL", e.InvalidOption, "id=.*NUL", id="i\x00"),
    add("one id for two messages", e.InvalidOption, "put an id in each", ["a", "b"], id="1"),
    add("id taken by other content", e.IdempotencyConflict, "update", "something else", session="s1", id="0"),
    add("unknown role", e.InvalidInput, "robot.*assistant", role="robot"),
    add("at='yesterday'", e.InvalidTime, "ISO 8601", at="yesterday"),
    add("at in the year 10000", e.InvalidTime, "ISO 8601", at="10000-01-01"),
    add("at=NaN", e.InvalidTime, "not a time", at=math.nan),
    add("at=10**5000", e.InvalidTime, "many digits is not a time", at=10**5000),
    add("at=1e300", e.InvalidTime, "not a time", at=1e300),
    add("nested metadata", e.InvalidOption, "flat.*place.city", metadata={"place": {"city": "Porto"}}),
    add("metadata with infinity", e.InvalidOption, "finite", metadata={"x": math.inf}),
    add("metadata with NUL", e.InvalidOption, "NUL", metadata={"x": "\x00"}),
    add("metadata above 64 bits", e.InvalidOption, "64 bits; store.* as text", metadata={"x": 2**64}),
    add("label with NUL", e.InvalidOption, "label=", labels=["\x00"]),
    say("content missing", e.InvalidText, "empty", content=None),
    say("unknown key", e.InvalidOption, "'tiemstamp'.*metadata", tiemstamp=1),
    say("unknown part", e.InvalidOption, "hologram.*known are", content=[{"type": "hologram"}]),
    say("id that is a number", e.InvalidOption, "id=7", id=7),
    say("unknown role", e.InvalidInput, "robot", role="robot"),
    gives("NaN", VECTOR, "odd: vector 0 holds NaN", lambda n: np.full((n, 4), np.nan)),
    gives("infinity", VECTOR, "odd: vector 0 holds NaN or infinity", lambda n: np.full((n, 4), np.inf)),
    gives("8 numbers where it said 4", VECTOR, SHAPE, lambda n: np.ones((n, 8))),
    gives("one vector too many", VECTOR, SHAPE, lambda n: np.ones((n + 1, 4))),
    gives("zeros", VECTOR, "no direction", lambda n: np.zeros((n, 4))),
    gives("None", VECTOR, SHAPE, lambda _: None),
    gives("an exception of its own", e.ModelError, "odd failed: ZeroDivisionError", lambda n: n / 0),
    add("vectors= with NaN", VECTOR, "NaN", vectors=[[math.nan] * 4]),
    add("vectors= of the wrong size", VECTOR, SHAPE, vectors=[[1, 2, 3]]),
    add("vectors= for other messages", VECTOR, SHAPE, vectors=np.ones((2, 4))),
    add("vectors= that are no numbers", VECTOR, SHAPE, vectors=["a"]),
    add("vectors= for a text in pieces", e.InvalidInput, "short enough", "a " * 2000, vectors=[[1] * 4]),
]
READS = [
    search("without user or agent", e.ScopeRequired, "everyone=True", user=mnemic.ANY),
    search("user=None and no agent", e.ScopeRequired, "user='…' or agent='…'", user=None),
    search("user that is a list", e.InvalidOption, "user=.*text", user=["ana"]),
    search("empty question", e.InvalidText, "empty; ask in a few words", ""),
    search("question of 50 MB", e.InvalidText, "at most 20,000.*shorter", BIG),
    search("half of a surrogate pair", e.InvalidText, "errors='replace'", "\ud83d"),
    search("question that is a number", e.InvalidText, "must be text, not int", 7),
    *(
        search(f"k={k!r}", e.InvalidOption, "k must be a whole number of at least 1", k=k)
        for k in (0, -3, 2.5, True, "3", None)
    ),
    search("asked_at='soon'", e.InvalidTime, "asked_at='soon'.*ISO 8601", asked_at="soon"),
    *(
        on(
            "context",
            f"budget={size!r}",
            e.InvalidOption,
            "budget must be a whole number of at least 1",
            "where?",
            user="ana",
            budget=size,
        )
        for size in (0, -5, 1.5, "100", None)
    ),
    on("context", "unknown strategy", e.InvalidOption, "auto, full", "x", user="ana", strategy="best"),
    on("list", "limit=0", e.InvalidOption, "limit must be", user="ana", limit=0),
    on("list", "unknown cursor", e.InvalidOption, "cursor.*next", user="ana", after="x"),
    on("list", "cursor beyond 64 bits", e.InvalidOption, "cursor", user="ana", after=f"1:{10**30}"),
    where("unknown field", "unknown field 'colour'.*labels", {"colour": "red"}),
    where("field that is a number", "unknown field 5.*labels", {5: "red"}),
    where("unknown operator", "unknown operator 'like'.*gte", {"at": {"like": "2024"}}),
    where("no operator", r"at={}.*gte", {"at": {}}),
    where("no value", "no value", {"labels": []}),
    where("bad time", "ISO 8601", {"at": {"gte": "soon"}}),
    where("several times for 'valid'", "one time", {"valid": ["2024-01-01", "2025-01-01"]}),
    where("unknown kind", "plaintext, activation, parametric", {"kind": "text"}),
    where("list for 'gte'", "must be text, a number", {"name": {"gte": ["a", "b"]}}),
    where("nested value", "must be text, a number", {"labels": [{"a": 1}]}),
    where("list instead of a dict", "must be a dict", ["labels"]),
    on("get", "what is no id", e.InvalidOption, "not a cube id", "x"),
    on("get", "unknown id", e.NotFound, "no cube", "0" * 32),
    on("get", "version 9 of 1", e.NotFound, "versions 1 to 1", first_id, version=9),
    on("get", "version 1.5", e.NotFound, "versions 1 to 1", first_id, version=1.5),
    Case("scope", "a handle turned to another user", e.InvalidOption, "bound to user='ana'", bound),
]
CHANGES = [
    on("delete", "neither ids nor where", e.InvalidOption, "say which"),
    on("delete", "where={}", e.InvalidOption, "say which", where={}, user="ana"),
    on("delete", "where without user or agent", e.ScopeRequired, "user='…'", where={"role": "user"}),
    on("delete", "ids and where", e.InvalidOption, "already", ["x"], where={"role": "user"}, user="ana"),
    on("delete", "an unknown id among known", e.NotFound, "no cube", lambda at: [first_id(at), "0" * 32]),
    on("delete", "what is no id", e.InvalidOption, "not a cube id", [7]),
    on("delete", "reason of half a surrogate pair", e.InvalidOption, "reason=", first_id, reason="\ud800"),
    on("update", "empty text", e.InvalidText, "empty", first_id, ""),
    on("update", "text of 50 MB", e.InvalidText, "more than", first_id, BIG),
    on("update", "a number", e.InvalidText, "must be text, not int", first_id, 7),
]
CASES = [*ADDS, *READS, *CHANGES]
