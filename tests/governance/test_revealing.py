"""What is sealed out of a text: only ciphertext on disk, shown only to who may reveal it, and on record."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import mnemic
from mnemic.cube.errors import AccessDenied, InvalidOption, NotFound
from mnemic.governance.redaction import BUILT, Pattern, Redaction, read_redaction, say

KEY = "correct horse battery"
SECRETS = ("eve@example.org", "4111 1111 1111 1111", "EMP-123456")
TOLD = "Write to eve@example.org; card 4111 1111 1111 1111, badge EMP-123456."


@pytest.fixture
def owner(database: str) -> Iterator[mnemic.Memory]:
    with mnemic.open(database, key=KEY) as memory:
        memory.audit.start()
        memory.policies.add("seal email, card")
        memory.policies.add(r"seal badge=EMP-\d{6}")
        yield memory


def test_it_comes_back_to_who_may_and_is_on_record(owner: mnemic.Memory) -> None:
    added = owner.add(TOLD, user="ana")
    assert added[0].text == "Write to [email]; card [card], badge [badge]."
    assert added.redacted == {"email": 1, "card": 1, "badge": 1}
    assert owner.reveal(added[0].id) == TOLD
    last = owner.audit.log()[-1]
    assert (last.verb, last.ids, last.allowed) == ("reveal", (added[0].id,), True)
    assert owner.search("4111 1111 1111 1111", user="ana")[0].text == added[0].text


def test_reading_is_not_revealing(owner: mnemic.Memory) -> None:
    (cube,) = owner.add(TOLD, user="ana", labels="support")
    for name in ("ana", "reader", "clerk", "stranger"):
        owner.governance.add_principal(name, owns="ana" if name == "ana" else None)
    owner.governance.grant("reader", "read", user="ana")
    owner.governance.grant("clerk", "read", user="ana")
    owner.governance.grant("clerk", "reveal", user="ana", label="support")
    owner.governance.grant("stranger", "reveal", user="ana")
    assert owner.as_principal("clerk").reveal(cube.id) == TOLD
    for name, error in (("ana", AccessDenied), ("reader", AccessDenied), ("stranger", NotFound)):
        with pytest.raises(error):
            owner.as_principal(name).reveal(cube.id)
    assert [one.by for one in owner.audit.log(verb="reveal", denied=True)] == ["ana", "reader", "stranger"]
    (other,) = owner.add(TOLD, user="ana")
    with pytest.raises(AccessDenied, match="reveal"):
        owner.as_principal("clerk").reveal(other.id)


def test_every_version_keeps_its_own(owner: mnemic.Memory) -> None:
    (cube,) = owner.add("I am eve@example.org.", user="ana")
    owner.update(cube.id, "I am bob@example.org.", reason="she is not eve@example.org")
    assert owner.get(cube.id).text == "I am [email]."
    assert (owner.reveal(cube.id, version=1), owner.reveal(cube.id)) == (
        *("I am eve@example.org.", "I am bob@example.org."),
    )
    owner.freeze(cube.id)
    owner.update(owner.thaw(cube.id).cubes[0].id, "nothing here")
    with pytest.raises(NotFound, match="nothing that was sealed"):
        owner.reveal(cube.id)
    owner.restore(cube.id, 1)
    assert owner.reveal(cube.id) == "I am eve@example.org."
    owner.delete(cube.id)
    with pytest.raises(NotFound, match="was deleted"):
        owner.reveal(cube.id)


def test_a_long_text_keeps_each_where_it_stood(owner: mnemic.Memory) -> None:
    text = " ".join(f"Sentence {n} is about user{n}@example.org, who is well." for n in range(150))
    pieces = owner.add(text, user="ana")
    assert len(pieces) > 2
    assert "".join(owner.reveal(one.id) for one in pieces) == text
    assert "@" not in "".join(one.text for one in pieces)


def test_what_any_rule_keeps_nowhere_is_kept_nowhere(owner: mnemic.Memory) -> None:
    owner.policies.add("redact email", user="bo")
    (cube,) = owner.add(TOLD, user="bo")
    assert owner.reveal(cube.id) == TOLD.replace("eve@example.org", "[email]")
    (cube,) = owner.add("Only eve@example.org.", user="bo")
    with pytest.raises(NotFound, match="kept nowhere"):
        owner.reveal(cube.id)


def test_without_encryption_it_is_refused_and_says_so(tmp_path: Path) -> None:
    with mnemic.open(tmp_path / "a.db") as owner:
        with pytest.raises(InvalidOption, match="made with a key"):
            owner.policies.add("seal card")
        assert owner.policies.list() == []
        owner.policies.add("redact card")
        (cube,) = owner.add(TOLD, user="ana")
        with pytest.raises(NotFound, match="kept nowhere"):
            owner.reveal(cube.id)


def test_no_byte_of_it_is_in_clear_anywhere_and_none_is_left_after_an_erase(tmp_path: Path) -> None:
    folder = tmp_path / "memory"
    folder.mkdir()

    def traces(*words: bytes) -> list[bytes]:
        found = b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())
        return [word for word in words if word in found]

    in_clear = [word.encode() for word in SECRETS]
    with mnemic.open(folder / "a.db", key=KEY) as owner:
        owner.policies.add(r"seal email, card")
        owner.policies.add(r"seal badge=EMP-\d{6}")
        (cube,) = owner.add(TOLD, user="ana")
        owner.add("stays", user="ana")
        with owner._vault.database.driven._readers.connection() as connection:  # type: ignore[attr-defined]
            ((sealed,),) = connection.execute("SELECT spans FROM sealed").fetchall()
        assert traces(sealed)
        assert traces(*in_clear) == []
        owner.dump(folder / "a.mnemic", user="ana")
        assert traces(*in_clear) == [], "a dump is in clear, and holds none of it"
        owner.erase(cube.id)
        assert traces(sealed, *in_clear) == []
    with mnemic.open(folder / "b.db", key=KEY) as other:
        other.load(folder / "a.mnemic")
        assert other.count(user="ana") == 2


def test_rules_and_sums() -> None:
    card, email = BUILT["card"], BUILT["email"]
    sealing = read_redaction("Seal card, email")
    assert sealing == Redaction((card, email), frozenset((card, email)))
    assert say(sealing) == "seal card, email"
    badge = read_redaction(r"seal badge=EMP-\d+")
    assert badge is not None
    assert read_redaction(say(badge)) == badge
    plain = Redaction((email,))
    for both in (sealing + plain, plain + sealing):
        assert both.sealed == {card}
        assert set(both.detectors) == {card, email}
    overlapping = Redaction((Pattern("long", "abc"), Pattern("short", "cd")))
    half = Redaction(overlapping.detectors, frozenset(overlapping.detectors[:1]))
    assert [one.sealed for one in half.finds("abcd abc")] == [False, True]
