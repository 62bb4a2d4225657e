"""What is kept of a text's words."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mnemic.index.lexical import (
    EMPTY,
    ENDS_ASKING,
    HEADER,
    HOLDS_NUMBER,
    MAX_COUNT,
    lexical_feature,
    lexical_features,
    speaker_terms,
    term,
    words,
)


def numbers(text: str, speaker: str | None = None) -> list[int]:
    return np.frombuffer(lexical_feature(text, speaker), "<u4").tolist()


@given(st.text(), st.none() | st.text(max_size=20))
def test_any_text_gives_a_whole_feature(text: str, speaker: str | None) -> None:
    feature = lexical_feature(text, speaker)
    assert len(feature) % 4 == 0
    assert len(feature) >= 4 * HEADER
    assert (feature == EMPTY) == (not text.strip())
    if feature != EMPTY:
        found = np.frombuffer(feature, "<u4")
        assert found[4] & 0xFFFF == len(found) - HEADER == len(set(found[HEADER:] >> 4))
        assert found[4] >> 16 == min(len(words(text)), 0xFFFF)
        assert found[0] or found[1]
    assert lexical_features([text], [speaker]) == [feature]


def test_stems_are_shared_and_counted() -> None:
    found = numbers("Paint, painting and PAINTED; Ana's paint" + " rain" * 40)
    terms = {number >> 4: number & 15 for number in found[HEADER:]}
    assert terms[term("painting")] == 4
    assert terms[term("ana")] == 1
    assert terms[term("rain")] == MAX_COUNT


@pytest.mark.parametrize(
    ("text", "spoken"),
    [
        ("Ana's café—naïve", ["ana", "café", "naïve"]),
        ("我喜欢北京", ["我喜", "喜欢", "欢北", "北京"]),
        ("茶", ["茶"]),
        ("iPhone手机2台", ["iphone", "手机", "2", "台"]),
        ("서울에서 만나", ["서울", "울에", "에서", "만나"]),
        ("snake_case 3.5", ["snake", "case", "3", "5"]),
        ("🎉 …", []),
    ],
)
def test_words_of_many_scripts(text: str, spoken: list[str]) -> None:
    assert words(text) == spoken


def test_equal_words_have_equal_hashes_and_signs_alone_their_own() -> None:
    assert numbers("I love kayaks!")[:2] == numbers("i  LOVE kayaks")[:2]
    assert numbers("🎉")[:2] != numbers("👍")[:2]
    assert numbers("kayaks")[:2] != numbers("kayak")[:2]


@pytest.mark.parametrize(
    ("text", "asks", "counts"),
    [
        ("Where do you live?", True, False),
        ("Is that her? [image: two dogs]", True, True),
        ("好吗？", True, False),
        ("Why? I know.", False, False),
        ("We have three cats", False, True),
    ],
)
def test_flags(text: str, asks: bool, counts: bool) -> None:
    flags = numbers(text)[5]
    assert bool(flags & ENDS_ASKING) == asks
    assert bool(flags & HOLDS_NUMBER) == counts


def test_marks_count_times_and_names() -> None:
    marks = numbers("Last summer I met Clara in Rome, on Monday")[6]
    assert marks & 0xFF == 3  # last, summer, Monday
    assert marks >> 8 & 0xFF == 3  # Clara, Rome, Monday


def test_a_speaker_is_known_by_whole_and_first_name() -> None:
    whole, first = speaker_terms("Bo Li")
    assert first == speaker_terms("bo")[1] == term("bo")
    assert whole != first
    assert speaker_terms(None) == speaker_terms("") == (0, 0)
