"""What a sentence states, and what it only seems to."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mnemic.plaintext.derive.attributes import cues, phrase
from mnemic.plaintext.derive.mentions import mentions
from mnemic.plaintext.derive.names import key_of, same


def read(text: str, speaker: str = "Ana") -> list[tuple[str, str, str | None]]:
    return [(one.subject, one.attribute, one.value) for one in mentions(text, speaker)]


STATES = {
    "I moved to Porto in March.": ("Ana", "home", "Porto"),
    "Hey! I've been living in New York since 2020, you know.": ("Ana", "home", "New York"),
    "i live in lisbon": ("Ana", "home", "lisbon"),
    "We moved from Lisbon to Porto.": ("Ana", "home", "Porto"),
    "Yesterday Bo relocated to Rio de Janeiro.": ("Bo", "home", "Rio de Janeiro"),
    "I work at Acme Corp. now.": ("Ana", "employer", "Acme Corp"),
    "I just got a new job at Globex!": ("Ana", "employer", "Globex"),
    "I'm working as a night nurse at Santa Maria.": ("Ana", "job", "night nurse"),
    "Clara Reis married Tom Vale.": ("Clara Reis", "partner", "Tom Vale"),
    "My wife's name is Clara.": ("Ana", "partner", "Clara"),
    "I'm engaged to Tom!": ("Ana", "partner", "Tom"),
    "I turned 35 yesterday.": ("Ana", "age", "35"),
    "I adopted a little cat named Mochi.": ("Ana", "pet", "Mochi"),
    "My favourite colour is dark blue.": ("Ana", "favourite colour", "dark blue"),
    "I hate coffee.": ("Ana", "opinion of coffee", "dislikes"),
    "I don't like coffee anymore.": ("Ana", "opinion of coffee", "dislikes"),
    "My phone number is +351 912 345 678.": ("Ana", "phone", "+351 912 345 678"),
    "My email is ana@example.org": ("Ana", "email", "ana@example.org"),
    "The meeting with Tom is on Tuesday.": ("my", "time of meeting with tom", "Tuesday"),
    "My dentist appointment has been moved to Thursday at 10 am.": (
        *("Ana", "time of dentist appointment", "Thursday at 10 am"),
    ),
    "The capital of Zorvania is Vellin.": ("Zorvania", "capital", "Vellin"),
    "The head coach of Red Harbour is Ilo Trant.": ("Red Harbour", "head coach", "Ilo Trant"),
    "Ardex was founded in the city of Vellin.": ("Ardex", "… is founded in the city of", "Vellin"),
    "Ilo Trant died in the city of Vellin.": ("Ilo Trant", "… died in the city of", "Vellin"),
    "Rex died in March.": ("Ana", "pet", "Rex"),
    "The Governor of Zorvania is Ilo Trant.": ("Governor of Zorvania", "holder", "Ilo Trant"),
    "I would have stayed, but I moved to Faro.": ("Ana", "home", "Faro"),
    "Vellin became the capital of Zorvania.": ("Zorvania", "capital", "Vellin"),
    "Zorvania elected Ilo Trant as its president.": ("Zorvania", "president", "Ilo Trant"),
    "Ardex was bought by Globex.": ("Ardex", "… is owned by", "Globex"),
    "You can reach me at 555 123 456.": ("Ana", "phone", "555 123 456"),
    "My first day at Globex was great.": ("Ana", "employer", "Globex"),
    "We found a new place in Faro.": ("Ana", "home", "Faro"),
    "We packed everything and settled in Faro.": ("Ana", "home", "Faro"),
    "Faro is my home now.": ("Ana", "home", "Faro"),
    "We finally made the move to Faro.": ("Ana", "home", "Faro"),
    "Globex hired me last month.": ("Ana", "employer", "Globex"),
    "Bo Trant was hired by Globex.": ("Bo Trant", "employer", "Globex"),
    "Mora Ilk succeeded Ilo Trant as mayor of Vellin.": ("Vellin", "mayor", "Mora Ilk"),
    "Mora Ilk replaced Ilo Trant as president of Zorvania.": ("Zorvania", "president", "Mora Ilk"),
    "Globex has acquired Ardex.": ("Ardex", "… is owned by", "Globex"),
    "Globex sold Ardex to Initech.": ("Ardex", "… is owned by", "Initech"),
    "Ardex moved its headquarters to Vellin.": ("Ardex", "headquarters", "Vellin"),
    "The headquarters of Ardex is located in the city of Vellin.": ("Ardex", "headquarters", "Vellin"),
    "I changed my email to ana@example.org": ("Ana", "email", "ana@example.org"),
    "I have a new number: 555 123 456.": ("Ana", "phone", "555 123 456"),
    "My favourite colour changed to teal.": ("Ana", "favourite colour", "teal"),
    "Bo is my dentist now.": ("Ana", "dentist", "Bo"),
    "They moved my dentist appointment; it's Friday now.": ("Ana", "time of dentist appointment", "Friday"),
}

SILENT = [
    "If I moved to Rome, I would miss the sea.",
    "When I moved to Rome, I was twelve.",
    "Dance is my passion.",
    "Rome is her home now.",
    "I bought a flat in Rome and let it to students.",
    "We packed everything and drove to Rome.",
    "I never changed my email to ana@example.org",
    "Do I live in Lisbon?",
    "If I lived in Rome I would be happy.",
    "I'm going to move to Rome next year.",
    "I want to live in Rome.",
    "I might work at Acme.",
    "I used to live in Rome.",
    "She moved to Rome.",
    "Tom said I live in Rome.",
    'In the book, "I live in Rome" is the first line.',
    "I wish I worked at Acme.",
    "I never lived in Rome.",
    "I visited Rome and loved it.",
    "I moved to the living room.",
    "The weather in Porto is nice.",
    "The trip to Rome was great.",
    "I live in fear.",
    "I joined the Chess Club.",
    "Themes like sisterhood matter.",
    "The Hague is Dutch.",
    "My day is Monday busy.",
    "Porto is the heart of Portugal.",
    "My first day at school was great.",
    "We found a great restaurant in Faro.",
]


@pytest.mark.parametrize(("text", "stated"), STATES.items())
def test_what_is_stated_is_read(text: str, stated: tuple[str, str, str]) -> None:
    subject, attribute, value = stated
    assert (subject if subject != "my" else "Ana", attribute, value) in [
        (who if who != "my" else "Ana", what, which) for who, what, which in read(text)
    ]


@pytest.mark.parametrize("text", SILENT)
def test_what_is_asked_supposed_planned_or_told_of_others_states_nothing(text: str) -> None:
    assert read(text) == []


def test_a_sentence_may_state_several_things_of_one_subject() -> None:
    assert read("I live in Lisbon now and work at Acme Corp.") == [
        ("Ana", "home", "Lisbon"),
        ("Ana", "employer", "Acme Corp"),
    ]


@pytest.mark.parametrize(
    ("text", "attribute", "value"),
    [
        ("I don't live in Lisbon anymore.", "home", "Lisbon"),
        ("I no longer work at Acme.", "employer", "Acme"),
        ("I quit my job at Acme.", "employer", "Acme"),
        ("We broke up.", "partner", None),
    ],
)
def test_what_has_ended_is_read_as_an_end(text: str, attribute: str, value: str | None) -> None:
    (one,) = mentions(text, "Ana")
    assert (one.attribute, one.value, one.ends) == (attribute, value, True)


def test_a_mention_says_where_it_stands() -> None:
    text = "Hello there. By the way, I moved to Porto last week. Bye!"
    (one,) = mentions(text, "Ana")
    assert text[one.start : one.end] == "I moved to Porto"


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ("Porto", "porto", True),
        ("Porto", "Porto Portugal", True),
        ("the Acme Corp.", "Acme", True),
        ("Porto", "Lisbon", False),
        ("34", "35", False),
        ("Tuesday 10 am", "Tuesday 11 am", False),
        ("likes", "dislikes", False),
    ],
)
def test_the_same_value_may_be_said_more_exactly(one: str, other: str, expected: bool) -> None:
    assert same(one, other) is same(other, one) is expected


def test_what_several_may_share_excludes_nothing() -> None:
    several = [
        "Ana's friend is Bo.",
        "My dog's name is Rex.",
        "Ana speaks Portuguese.",
        "Ana is a member of Acme.",
    ]
    single = ["Ana's dentist is Bo.", "My boss is Tom.", "I live in Porto.", "Ana is a citizen of Zorvania."]
    assert [one.single for text in several for one in mentions(text, "Ana")] == [False] * 4
    assert [one.single for text in single for one in mentions(text, "Ana")] == [True] * 4


@given(st.text(max_size=300))
def test_any_text_is_read_and_spans_are_within_it(text: str) -> None:
    for one in mentions(text, "Ana"):
        assert 0 <= one.start < one.end <= len(text)
        assert one.value is None or key_of(one.value) or one.value
        assert phrase(one.subject, one.attribute, one.value or "x")
        assert isinstance(cues(one.attribute), frozenset)


def test_one_sentence_may_end_a_value_and_state_the_next() -> None:
    found = list(mentions("I got divorced and married Bo.", "Ana"))
    assert [(one.attribute, one.value, one.ends) for one in found] == [
        *(("partner", None, True), ("partner", "Bo", False)),
    ]
    (lost,) = mentions("Since I lost my job at Globex, things have been tough.", "Ana")
    assert (lost.subject, lost.attribute, lost.value, lost.ends) == ("Ana", "employer", "Globex", True)
