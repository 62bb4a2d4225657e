"""What is printed: safe on a terminal, plain in JSON, and every signal in words."""

from __future__ import annotations

from dataclasses import dataclass, fields
from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mnemic.cli.output import plain, safe, short
from mnemic.cli.why import WORDS, in_words, strongest
from mnemic.cube.model import Kind
from mnemic.plaintext.recall.rank import Weights


def test_every_signal_has_words_of_its_own() -> None:
    signals = {field.name for field in fields(Weights)} - {"diversity"}  # which only takes away
    assert signals | {"current"} == WORDS.keys()
    assert len(set(WORDS.values())) == len(WORDS)


def test_reasons_are_shares_of_what_was_added() -> None:
    assert in_words({"lexical": 3.0, "dense": 1.0, "time": -9.0}) == "same words 75 %, similar meaning 25 %"
    assert in_words({"lexical": 0.0, "time": -1.0}) == "nothing stood out"
    assert in_words({"a signal of tomorrow": 1.0}) == "a signal of tomorrow 100 %"
    many = {f"s{number}": 1.0 for number in range(10)}
    assert len(strongest(many)) == 3


@given(st.text())
def test_what_is_shown_holds_no_control_character(text: str) -> None:
    shown = safe(text)
    assert len(shown) == len(text)
    assert not [c for c in shown if (ord(c) < 32 and c not in "\t\n") or 0x7F <= ord(c) < 0xA0]
    assert not set(shown) & set("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
    assert "\n" not in short(text)
    assert len(short(text, 10)) <= 10


@dataclass
class Pair:
    one: object
    other: object


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (Pair(1, "a"), {"one": 1, "other": "a"}),
        (np.float32(0.5), 0.5),
        (datetime(2025, 3, 9, tzinfo=UTC), "2025-03-09T00:00:00+00:00"),
        (Kind.plaintext, "plaintext"),
        ({1: (None, True)}, {"1": [None, True]}),
    ],
)
def test_values_become_json(value: object, expected: object) -> None:
    assert plain(value) == expected
