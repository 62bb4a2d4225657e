"""What may not be stored reaches neither disk, features, embedder, logs nor errors; other text stays."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import mnemic
from mnemic.cube.errors import InvalidInput, InvalidOption, MissingExtra, MnemicError
from mnemic.governance.redaction import (
    Pattern,
    Presidio,
    Redaction,
    iban_checks,
    luhn,
    of_detectors,
    presidio_model,
    read_redaction,
    say,
)

ALL = of_detectors("all")
FOUND = [
    ("write to ana.lopes+x@mail.example.com today", "write to [email] today"),
    ("søren@bücher.example, and x", "[email], and x"),
    ("Ana <ana@example.com>", "Ana <[email]>"),
    ("call +351 912 345 678!", "call [phone]!"),
    ("call 00351-912-345-678", "call [phone]"),
    ("ring (020) 7946 0958 or 020 7946 0958", "ring [phone] or [phone]"),
    ("call 415-555-2671 or 415 555 2671", "call [phone] or [phone]"),
    ("0176/1234 5678 is mine", "[phone] is mine"),
    ("card 4111 1111 1111 1111 exp 12/27", "card [card] exp 12/27"),
    ("5500-0000-0000-0004", "[card]"),
    ("378282246310005.", "[card]."),
    ("pay to DE89 3704 0044 0532 0130 00 please", "pay to [iban] please"),
    ("GB82WEST12345698765432", "[iban]"),
    ("pt50 0002 0123 1234 5678 9015 4", "[iban]"),
    ("my key is sk-proj-aB3dE5fG7hI9jK1lM3nO5pQ7", "my key is [key]"),
    ("ghp_aB3dE5fG7hI9jK1lM3nO5pQ7rS9tU1vW3xY5", "[key]"),
    ("AKIAIOSFODNN7EXAMPLE", "[key]"),
    ("xoxb-123456789012-abcdefGHIJKL", "[key]"),
    ("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.dozjgNryP4J3jVmN", "[key]"),
    ("Authorization: Bearer abcDEF123456.789-x", "Authorization: Bearer [key]"),
    ("password: hunter2!", "password: [key]"),
    ('{"api_key": "aaaabbbbcccc"}', '{"api_key": "[key]"}'),
    ("the password is Tr0ub4dor&3", "the password is [key]"),
    ("postgresql://ana:s3cret@db/x", "postgresql://ana:[key]@db/x"),
    ("-----BEGIN RSA PRIVATE KEY-----\nMIIE\nabc\n-----END RSA PRIVATE KEY-----\nthen", "[key]\nthen"),
    ("-----BEGIN OPENSSH PRIVATE KEY-----\nb3Bl cut off", "[key]"),
]
LEFT = [
    "I moved to Porto on 2025-03-09 at 10:30, flat 12.",
    "It was 09.03.2025 and 1,234,567 people came; 3.14159265358979 is pi.",
    "Order 20250309-17 costs 1 234.50, ISBN 978-3-16-148410-0.",
    "4111 1111 1111 1112 fails its check.",
    "GB82WEST12345698765433 fails its checksum.",
    "The token is invalid, the password is wrong, the secret is out.",
    "version 10.0.0.1 of a@b is no address; @ana said hi",
    "Room 101, 1984, 42nd Street, 300 000 km/s, 2001:db8::1",
    "sk-short and a task-force in risk-averse desk-bound work",
    "Meet at 12/05/2024 10:00, gate 7, seat 23A, row 12.",
]


@pytest.mark.parametrize(("text", "cleaned"), FOUND)
def test_what_is_found(text: str, cleaned: str) -> None:
    assert ALL.clean(text) == cleaned
    assert ALL.clean(cleaned) == cleaned, "what was taken out stays as it is"


@pytest.mark.parametrize("text", LEFT)
def test_what_is_left(text: str) -> None:
    assert ALL.clean(text) == text


@given(st.text(max_size=80))
def test_any_text_can_be_cleaned_and_twice_is_once(text: str) -> None:
    cleaned = ALL.clean(text)
    assert ALL.clean(cleaned) == cleaned


digits = st.lists(st.integers(0, 9), min_size=14, max_size=15)


@given(digits)
def test_one_last_digit_in_ten_passes_luhn(number: list[int]) -> None:
    said = "".join(map(str, number))
    assert sum(luhn(said + str(last)) for last in range(10)) == 1


def test_checks_of_cards_and_ibans() -> None:
    assert luhn("4111111111111111")
    assert not luhn("4111111111111112")
    assert iban_checks("DE89370400440532013000")
    assert not iban_checks("DE89370400440532013001")


def test_rules_in_words() -> None:
    assert read_redaction("keep 30 days") is None
    for said in ("redact email, card", "redact key", "redact badge=EMP-\\d{6}"):
        read = read_redaction(said)
        assert read is not None
        assert read_redaction(say(read)) == read
    badge = read_redaction(r"redact badge=EMP-(?P<secret>\d{6})")
    assert badge is not None
    assert badge.clean("I am EMP-123456.") == "I am EMP-[badge]."
    for wrong in ("redact badge=(", "redact badge=.*", "redact email=x"):
        with pytest.raises(InvalidOption):
            read_redaction(wrong)


class Listening:
    """An embedder that remembers all it was shown."""

    name, dim, inline = "listening", 4, True

    def __init__(self) -> None:
        self.heard: list[str] = []

    def embed(self, texts: Sequence[str]) -> Any:
        self.heard += texts
        return np.ones((len(texts), 4), np.float32)


CARD, MAIL, IBAN, PHONE = (
    "4111 1111 1111 1111",
    "eve@example.org",
    "GB82WEST12345698765432",
    "+351 912 345 678",
)
TOKEN = "ghp_aB3dE5fG7hI9jK1lM3nO5pQ7rS9tU1vW3xY5"
SECRETS = (CARD, MAIL, IBAN, PHONE, TOKEN, "EMP-991122")
TALE = f"Mail {MAIL}, card {CARD}, iban {IBAN}, phone {PHONE}, token {TOKEN}, badge EMP-991122."


def bytes_below(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file())


def use_everything(memory: mnemic.Memory, folder: Path) -> None:
    """Every way in, each with every secret."""
    (cube,) = memory.add(
        TALE,
        user="ana",
        name=f"Eve {PHONE}",
        labels=[f"of {MAIL}"],
        metadata={"contact": MAIL, "cards": [CARD, "none"], f"key {TOKEN}": 1, "number": 4111111111111111},
    )
    memory.add([{"role": "user", "content": TALE}, {"role": "assistant", "content": "ok"}], user="ana")
    memory.add({"role": "assistant", "content": None, "tool_calls": [
        {"id": "1", "type": "function", "function": {"name": "pay", "arguments": json.dumps({"card": CARD})}}
    ]}, user="ana")  # fmt: skip
    memory.add("long " * 500 + TALE + " tail" * 500, user="ana")
    memory.update(cube.id, f"now {TALE}", reason=f"because of {MAIL}")
    path = folder / "told.jsonl"
    path.write_text(json.dumps({"role": "user", "content": TALE, "name": MAIL, "session": "file"}) + "\n")
    account = memory.load_file(path, user="ana")
    path.unlink()
    assert any("taken out" in note for note in account.notes)
    memory.search(TALE, user="ana")
    memory.delete(cube.id, reason=f"holds {CARD}")


def test_the_secret_never_reaches_disk_features_embedder_or_logs(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A scan of every byte in the vault's folder while it is open, log included, and after it was closed."""
    vault, outside = tmp_path / "vault", tmp_path / "outside"
    vault.mkdir()
    outside.mkdir()
    embedder = Listening()
    with caplog.at_level(logging.DEBUG), mnemic.open(vault / "a.db", embedder=embedder) as memory:
        memory.policies.add("redact all")
        memory.policies.add(r"redact badge=EMP-\d{6}", user="ana")
        memory.audit.start()
        heard = len(embedder.heard)
        use_everything(memory, outside)
        embedder.heard = embedder.heard[heard:]
        open_bytes = bytes_below(vault)
        stored = memory.list(user="ana")
        assert any("Mail [email], card [card], iban [iban], phone [phone]" in cube.text for cube in stored)
    asked = [text for text in embedder.heard if text == TALE]
    told = [text for text in embedder.heard if text != TALE]
    assert len(asked) == 1, "a question is embedded as it is, and not stored"
    for secret in SECRETS:
        for form in (secret, secret.replace(" ", "")):
            assert form.encode() not in open_bytes, f"{form} is in the vault"
            assert form.encode() not in bytes_below(vault)
            assert form not in " ".join(told)
            assert form not in caplog.text


def test_without_rules_it_is_there(tmp_path: Path) -> None:
    """The scan above would find it."""
    (tmp_path / "vault").mkdir()
    with mnemic.open(tmp_path / "vault" / "a.db") as memory:
        memory.add(TALE, user="ana")
        for secret in SECRETS:
            assert secret.encode() in bytes_below(tmp_path / "vault")


def test_features_are_those_of_the_cleaned_text(database: str) -> None:
    with mnemic.open(database) as memory:
        memory.policies.add("redact all", user="ana")
        memory.add(f"My card is {CARD}, said Eve.", user="ana")
        memory.add("My card is [card], said Eve.", user="bo")
        ana, bo = (memory.search("card", user=user)[0] for user in ("ana", "bo"))
        assert (ana.text, ana.score, ana.signals) == (bo.text, bo.score, bo.signals)
        assert memory.search("4111", user="ana")[0].signals["lexical"] <= 0


def test_what_was_taken_out_is_counted(database: str) -> None:
    with mnemic.open(database, redact="email, card") as memory:
        added = memory.add(f"{MAIL} and {MAIL} and {CARD} and {PHONE}", user="ana")
        assert added.redacted == {"email": 2, "card": 1}
        assert added[0].text == f"[email] and [email] and [card] and {PHONE}"
        assert memory.add("nothing", user="ana").redacted == {}


def test_a_rule_counts_for_every_process_from_the_next_write(database: str) -> None:
    with mnemic.open(database) as one, mnemic.open(database) as other:
        other.add("before", user="ana")
        one.policies.add("redact email", user="ana")
        assert other.add(MAIL, user="ana")[0].text == "[email]"
        assert other.add(MAIL, user="bo")[0].text == MAIL
        one.policies.drop(one.policies.list()[0].id)
        assert other.add(MAIL, user="ana", session="s")[0].text == MAIL


def test_rules_for_a_label(database: str) -> None:
    with mnemic.open(database) as memory:
        memory.policies.add("redact email", label="public")
        assert memory.add(MAIL, user="ana", labels="public")[0].text == "[email]"
        assert memory.add(MAIL, user="ana")[0].text == MAIL


def test_errors_do_not_say_it(database: str) -> None:
    with mnemic.open(database, redact="all") as memory:
        memory.add("one", user="ana", id="1")
        attempts: list[Callable[[], Any]] = [
            lambda: memory.add(f"two {MAIL}", user="ana", id=MAIL),
            lambda: memory.add(MAIL, user="ana", id="1"),
            lambda: memory.add(MAIL, user="ana", name=f"{MAIL}\x00"),
            lambda: memory.add(MAIL, user="ana", role=MAIL),
            lambda: memory.add(MAIL, user="ana", labels=[f"{MAIL}\x00"]),
            lambda: memory.add(MAIL, user="ana", metadata={"x": {MAIL: 1}}),
            lambda: memory.add({"role": "user", "content": "x", MAIL: 1}, user="ana"),
            lambda: memory.add(MAIL, user="ana", at=MAIL),
            lambda: memory.list(user="ana", where={MAIL: 1}),
            lambda: memory.list(user="ana", after=MAIL),
            lambda: memory.get(MAIL),
            lambda: memory.update(memory.list(user="ana")[0].id, "x", reason=3),  # type: ignore[arg-type]
        ]
        for attempt in attempts:
            with pytest.raises(MnemicError) as caught:
                attempt()
            assert MAIL not in str(caught.value)


def test_vectors_of_a_text_that_had_to_be_cleaned_are_refused(tmp_path: Path) -> None:
    with mnemic.open(tmp_path / "a.db", embedder=Listening(), redact="email") as memory:
        memory.add("fine", user="ana", vectors=np.ones((1, 4)))
        with pytest.raises(InvalidInput, match="keep a trace"):
            memory.add(MAIL, user="ana", vectors=np.ones((1, 4)))
        assert memory.count(user="ana") == 1


def test_detectors_of_your_own(tmp_path: Path) -> None:
    class Names:
        name = "person"

        def find(self, text: str) -> list[tuple[int, int]]:
            return [(text.index("Eve"), text.index("Eve") + 3)] if "Eve" in text else []

    with mnemic.open(tmp_path / "a.db", redact=[Names(), Pattern("room", r"Room \d+"), "email"]) as memory:
        assert memory.add(f"Eve ({MAIL}) in Room 12", user="ana")[0].text == "[person] ([email]) in [room]"
    with pytest.raises(InvalidOption, match="there are all"):
        mnemic.open(tmp_path / "a.db", redact="everything")


def test_overlapping_finds_are_one() -> None:
    both = Redaction((Pattern("long", "abc"), Pattern("short", "cd")))
    assert both.clean("xabcdx cd") == "x[long]x [short]"


def test_presidio_says_what_is_missing_before_anything_is_stored(tmp_path: Path) -> None:
    if find_spec("presidio_analyzer") is not None:
        pytest.skip("Presidio is installed")
    with pytest.raises(MissingExtra, match=r"mnemic\[presidio\]"):
        mnemic.open(tmp_path / "a.db", redact="presidio")
    with mnemic.open(tmp_path / "b.db") as memory, pytest.raises(MissingExtra):
        memory.policies.add("redact presidio")


@pytest.fixture
def presidio() -> Any:
    return pytest.importorskip("presidio_analyzer", reason="Presidio is not here: mnemic[presidio]")


def test_patterns_of_presidio_without_a_model(tmp_path: Path, presidio: Any) -> None:
    detector = Presidio(analyzer=blank_engine(presidio), entities=("IP_ADDRESS",))
    with mnemic.open(tmp_path / "a.db", redact=[detector]) as memory:
        added = memory.add("ping 192.168.10.24 now", user="ana")
        assert (added[0].text, added.redacted) == ("ping [presidio] now", {"presidio": 1})
    assert not any(b"192.168.10.24" in path.read_bytes() for path in tmp_path.iterdir() if path.is_file())


def test_presidio_takes_out_names_by_a_rule(tmp_path: Path, presidio: Any) -> None:  # noqa: ARG001
    try:
        presidio_model()
    except MissingExtra as error:
        pytest.skip(str(error))
    with mnemic.open(tmp_path / "a.db") as memory:
        memory.policies.add("redact presidio, key", user="ana")
        added = memory.add("Yesterday Michael Thompson flew to Berlin.", user="ana")
        assert "Thompson" not in added[0].text
        assert added.redacted["presidio"] >= 1
        assert memory.add("Michael Thompson called.", user="bo")[0].text == "Michael Thompson called."


def blank_engine(presidio_analyzer: Any) -> Any:
    """Presidio's patterns without a language model: a blank spaCy pipeline."""
    import spacy
    from presidio_analyzer.nlp_engine import SpacyNlpEngine

    class Blank(SpacyNlpEngine):
        def __init__(self) -> None:
            super().__init__()
            self.nlp = {"en": spacy.blank("en")}

    return presidio_analyzer.AnalyzerEngine(nlp_engine=Blank(), supported_languages=["en"])
