"""Erase, dump, load and keys through the public API: what a user does, with real texts and files."""

from __future__ import annotations

import random
import zipfile
from pathlib import Path

import pytest

import mnemic
from mnemic.cube.errors import (
    DumpDamaged,
    InvalidOption,
    KeyRequired,
    NotFound,
    ScopeRequired,
    WrongKey,
)
from mnemic.cube.model import Kind, Origin, Scope
from mnemic.governance.redaction import Pattern
from mnemic.upkeep import erasures
from mnemic.vault.codec import Draft
from mnemic.vault.keys import write_key_file

MARKERS = [f"zq{random.Random(i).getrandbits(60):015x}" for i in range(1000)]


def traces(folder: Path, words: list[str]) -> set[str]:
    data = b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file()).lower()
    return {word for word in words if word.encode() in data}


@pytest.fixture
def key(tmp_path: Path) -> Path:
    write_key_file(tmp_path / "k.key")
    return tmp_path / "k.key"


@pytest.mark.parametrize("encrypted", [False, True])
def test_a_thousand_markers_are_told_found_erased_and_gone(
    tmp_path: Path, key: Path, encrypted: bool
) -> None:
    """In texts, speakers, sessions, ids, labels, metadata, reasons and edits."""
    folder = tmp_path / "memory"
    folder.mkdir()
    mem = mnemic.open(folder / "m.db", key=key if encrypted else None)
    for start in range(0, 1000, 40):
        m = MARKERS[start : start + 40]
        added = mem.add(
            f"The ticket {m[0]} is for Porto.", user="ana", session=m[1], name=m[2], id=m[3],
            labels=m[4:14], metadata={key: f"{key} note" for key in m[14:24]} | {"notes": m[24:37]},
        )  # fmt: skip
        mem.update(added[0].id, f"The ticket {m[37]} is for Faro {m[38]}.", reason=m[39])
        mem.add(f"Bo has ticket {start}.", user="bo")
    assert mem.search(f"ticket {MARKERS[37]}", user="ana", k=1)[0].text.startswith(
        f"The ticket {MARKERS[37]}"
    )
    before = traces(folder, MARKERS)
    assert (before == set()) if encrypted else (len(before) == 1000)
    done = mem.erase(user="ana", reason="she asked for it")
    assert (done.status, done.cubes, done.versions, done.spaces) == ("done", 25, 50, 1)
    assert traces(folder, [*MARKERS, "she asked"]) == set()
    assert mem.search("ticket", user="ana") == []
    assert mem.users() == ["bo"]
    assert mem.search("who has ticket 40?", user="bo", k=1)[0].text == "Bo has ticket 40."
    mem.close()
    assert traces(folder, MARKERS) == set()


def test_erase_by_condition_takes_old_deleted_and_expired_states(database: str) -> None:
    with mnemic.open(database) as mem:
        (a,) = mem.add("secret plan", user="ana", labels="work", session="s1")
        (b,) = mem.add("lunch", user="ana", labels="food", session="s1")
        (c,) = mem.add("secret too", user="ana", labels="work", session="s2")
        (d,) = mem.add("of bo", user="bo", labels="work")
        mem.delete(c.id)
        planned = mem.erase(where={"labels": "work"}, user="ana", dry_run=True)
        assert (planned.cubes, planned.status) == (2, "dry run")
        done = mem.erase(where={"labels": "work"}, user="ana")
        assert done.cubes == 2
        assert [cube.id for cube in mem.list(everyone=True)] == [b.id, d.id]
        for gone in (a.id, c.id):
            with pytest.raises(NotFound):
                mem.history(gone)
        assert mem.erase(session="s1", user="ana").cubes == 1
        assert mem.erase(user="nobody").cubes == 0
        assert [one.finished_at is None for one in erasures(mem)] == [False, False]


def test_erase_has_to_be_told_what(tmp_path: Path) -> None:
    with mnemic.open(tmp_path / "m.db") as mem:
        (cube,) = mem.add("a", user="ana")
        for arguments in ({}, {"session": "s"}, {"where": {"labels": "x"}}):
            with pytest.raises(ScopeRequired):
                mem.erase(**arguments)
        for arguments in ({"ids": cube.id, "user": "ana"}, {"ids": 5}, {"ids": [cube.id], "everyone": True}):
            with pytest.raises(InvalidOption):
                mem.erase(**arguments)
        with pytest.raises(NotFound):
            mem.erase(["0" * 32, cube.id])
        assert mem.count(user="ana") == 1
        assert mem.erase(everyone=True).spaces == 1


def test_another_open_memory_stops_serving_at_once(database: str) -> None:
    with mnemic.open(database) as mem, mnemic.open(database) as other:
        mem.add(["the red boat", "the green boat"], user="ana")
        assert len(other.search("boat", user="ana")) == 2
        mem.erase(mem.search("red boat", user="ana", k=1)[0].cube.id)
        assert [hit.text for hit in other.search("boat", user="ana")] == ["the green boat"]
        mem.erase(user="ana")
        assert other.search("boat", user="ana") == []
        other.add("a new boat", user="ana")
        assert [hit.text for hit in mem.search("boat", user="ana")] == ["a new boat"]


def test_a_pending_erase_goes_on_at_flush_and_at_the_next_open(tmp_path: Path) -> None:
    folder = tmp_path / "memory"
    folder.mkdir()
    mem, other = mnemic.open(folder / "m.db"), mnemic.open(folder / "m.db")
    mem.add(MARKERS[:100], user="ana")
    with other._vault.snapshot() as snapshot:
        snapshot.spaces()
        assert mem.erase(user="ana").status == "pending"
        mem.flush()
        assert traces(folder, MARKERS[:100])
    mem.flush()
    assert traces(folder, MARKERS[:100]) == set()
    mem.add(MARKERS[:100], user="ana")
    with other._vault.snapshot() as snapshot:
        snapshot.spaces()
        assert mem.erase(user="ana").status == "pending"
    mem.close()
    other.close()
    mnemic.open(folder / "m.db").close()
    assert traces(folder, MARKERS[:100]) == set()


def test_a_memory_moves_in_one_file_and_is_searched_as_before(database: str, tmp_path: Path) -> None:
    with mnemic.open(database) as mem:
        mem.add("I moved to Porto in March.", user="ana", name="Ana", at="2025-03-29T10:00Z", id="1")
        (pet,) = mem.add("My dog is called Pixel.", user="ana", name="Ana")
        mem.update(pet.id, "My cat is called Mochi.", reason="the dog died")
        mem.add("Bo likes tea.", user="bo")
        done = mem.dump(tmp_path / "ana.mnemic", user="ana")
        assert (done.cubes, done.versions) == (2, 3)
        hits = [(hit.cube.id, hit.text, hit.score, hit.signals) for hit in mem.search("cat", user="ana")]
    with mnemic.open(tmp_path / "new.db") as new:
        account = new.load(tmp_path / "ana.mnemic")
        assert (account.stored, account.cubes) == (3, 2)
        assert [
            (hit.cube.id, hit.text, hit.score, hit.signals) for hit in new.search("cat", user="ana")
        ] == hits
        assert [one.text for one in new.history(pet.id)] == [
            "My dog is called Pixel.",
            "My cat is called Mochi.",
        ]
        assert new.users() == ["ana"]
        assert new.add("I moved to Porto in March.", user="ana", id="1", name="Ana").existing
        assert new.merge(tmp_path / "ana.mnemic").stored == 0
        before = new.count(user="ana")
        new.load(database)  # a vault is a source too
        assert (new.count(user="ana"), new.count(user="bo")) == (before, 1)


def test_a_part_of_a_memory_by_condition(tmp_path: Path) -> None:
    with mnemic.open(tmp_path / "m.db") as mem:
        mem.add("old", user="ana", at="2020-01-01", labels="trip")
        mem.add("new", user="ana", at="2025-01-01", labels=("trip", "work"))
        mem.add("other", user="ana", at="2025-01-02")
        mem.dump(tmp_path / "d.mnemic", user="ana", where={"labels": "trip", "at": {"gte": "2024-01-01"}})
        with pytest.raises(ScopeRequired):
            mem.dump(tmp_path / "e.mnemic")
        with pytest.raises(InvalidOption, match="exists"):
            mem.dump(tmp_path / "d.mnemic", everyone=True)
    with mnemic.open(tmp_path / "n.db") as new:
        new.load(tmp_path / "d.mnemic")
        assert [cube.text for cube in new.list(user="ana")] == ["new"]


def test_what_a_dump_lacks_is_made_when_it_is_loaded(tmp_path: Path) -> None:
    """A redacted dump brings no features; what it says is found all the same."""
    with mnemic.open(tmp_path / "m.db") as mem:
        mem.add("Call me at 555-1234 about the boat.", user="ana", name="Ana")
        mem.add("<mnemic-memory>recalled</mnemic-memory> said", user="ana")
        mem.dump(tmp_path / "r.mnemic", user="ana", redact=lambda text: text.replace("555-1234", "[phone]"))
    with mnemic.open(tmp_path / "n.db") as new:
        new.load(tmp_path / "r.mnemic")
        assert new.search("boat", user="ana", k=1)[0].text == "Call me at [phone] about the boat."
        assert new.list(user="ana")[1].header.recalled == ((0, 39),)
        assert new.list(user="ana")[0].header.name == "Ana"


def test_a_damaged_dump_is_refused_and_nothing_is_loaded(tmp_path: Path) -> None:
    with mnemic.open(tmp_path / "m.db") as mem:
        mem.add([f"text {i}" for i in range(100)], user="ana")
        mem.dump(tmp_path / "d.mnemic", everyone=True)
    whole = (tmp_path / "d.mnemic").read_bytes()
    with mnemic.open(tmp_path / "n.db") as new:
        for damaged in (whole[:-1], whole[: len(whole) // 2], whole[:500] + b"\x00" + whole[501:], b""):
            (tmp_path / "bad.mnemic").write_bytes(damaged)
            with pytest.raises(DumpDamaged):
                new.load(tmp_path / "bad.mnemic")
        with pytest.raises(NotFound):
            new.load(tmp_path / "none.mnemic")
        assert new.users() == []


def test_erase_names_the_dumps_that_hold_a_copy(tmp_path: Path) -> None:
    with mnemic.open(tmp_path / "m.db") as mem:
        mem.add("a", user="ana")
        mem.add("b", user="bo")
        mem.dump(tmp_path / "ana.mnemic", user="ana")
        mem.dump(tmp_path / "all.mnemic", everyone=True)
        done = mem.erase(user="bo")
        assert [copy.split(" (")[0] for copy in done.copies] == [str(tmp_path / "all.mnemic")]
        assert len(mem.erase(user="ana").copies) == 2
        account = mem.load(tmp_path / "all.mnemic")  # and none of them brings anything back
        assert (account.stored, account.erased) == (0, 2)


def test_a_vault_with_a_key_opens_with_it_only(database: str, key: Path) -> None:
    with mnemic.open(database, key=key) as mem:
        mem.add("I moved to Porto.", user="ana")
    with pytest.raises(KeyRequired):
        mnemic.open(database)
    with pytest.raises(WrongKey):
        mnemic.open(database, key="some other key")
    with mnemic.open(database, key=key) as mem:
        assert mem.search("Porto", user="ana")[0].text == "I moved to Porto."
        assert mem.context("where does Ana live?", user="ana").text.count("Porto") == 1


def test_a_vault_in_clear_becomes_an_encrypted_copy_and_back(tmp_path: Path, key: Path) -> None:
    with mnemic.open(tmp_path / "clear.db") as clear:
        clear.add("I moved to Porto.", user="ana")
    folder = tmp_path / "sealed"
    folder.mkdir()
    with mnemic.open(folder / "m.db", key=key) as sealed:
        sealed.load(tmp_path / "clear.db")
        assert sealed.search("Porto", user="ana")
    assert traces(folder, ["porto", "ana"]) == set()
    with mnemic.open(tmp_path / "again.db") as again:
        again.load(folder / "m.db", key=key)
        assert [cube.text for cube in again.list(user="ana")] == ["I moved to Porto."]


def test_a_scope_erases_and_dumps_its_own(tmp_path: Path) -> None:
    with mnemic.open(tmp_path / "m.db") as mem:
        ana = mem.scope(user="ana", session="s")
        ana.add("mine")
        mem.add("elsewhere", user="ana", session="t")
        assert ana.dump(tmp_path / "d.mnemic").cubes == 1
        assert ana.erase().cubes == 1
        assert [cube.text for cube in mem.list(user="ana")] == ["elsewhere"]
        with pytest.raises(InvalidOption):
            ana.erase(user="bo")


def test_conflicts_are_seen_and_settled(tmp_path: Path) -> None:
    one, other = mnemic.open(tmp_path / "a.db"), mnemic.open(tmp_path / "b.db")
    (cube,) = one.add("I live in Lisbon.", user="ana")
    other.load(tmp_path / "a.db")
    one.update(cube.id, "I live in Porto.")
    other.update(cube.id, "I live in Faro.")
    assert one.load(tmp_path / "b.db").conflicts == [cube.id]
    assert one.get(cube.id).conflict
    assert one.search("where does Ana live", user="ana")[0].text == "I live in Faro."
    one.update(cube.id, "I live in Porto, and in Faro in summer.")
    assert not one.get(cube.id).conflict
    assert other.load(tmp_path / "a.db").conflicts == []
    assert (
        other.search("where does Ana live", user="ana")[0].text == "I live in Porto, and in Faro in summer."
    )
    one.close()
    other.close()


# --- with what is derived in the background


def told_facts(mem: mnemic.Memory) -> list[str]:
    mem.flush()
    return [fact.cube.text for fact in mem.facts(user="ana")]


def versions(mem: mnemic.Memory) -> int:
    return sum(len(mem.history(cube.id)) for cube in mem.list(user="ana"))


def test_facts_made_on_both_sides_meet_and_a_merge_repeated_changes_nothing(tmp_path: Path) -> None:
    one, other = mnemic.open(tmp_path / "a.db"), mnemic.open(tmp_path / "b.db")
    for mem in (one, other):
        mem.add("I live in Lisbon.", user="ana", name="Ana", id="1", at="2025-01-01")
    assert told_facts(one) == told_facts(other) == ["Ana lives in Lisbon."]
    other.add("I moved to Porto.", user="ana", name="Ana", id="2", at="2025-03-01")
    assert told_facts(other) == ["Ana lives in Porto."]
    for _ in range(2):
        one.load(tmp_path / "b.db")
        other.load(tmp_path / "a.db")
        assert told_facts(one) == told_facts(other) == ["Ana lives in Porto."]
    assert len(one.facts(user="ana", past=True)) == 2, "none is there twice"
    before = versions(one)
    assert one.load(tmp_path / "b.db").stored == 0
    told_facts(one)
    assert versions(one) == before
    assert one.jobs() == []
    one.close()
    other.close()


def test_a_fact_goes_with_its_turn_and_comes_back_with_another(tmp_path: Path) -> None:
    with mnemic.open(tmp_path / "m.db") as mem:
        (first,) = mem.add("I live in Lisbon.", user="ana", name="Ana", at="2025-01-01")
        (again,) = mem.add("I live in Lisbon.", user="ana", name="Ana", at="2025-02-01")
        (moved,) = mem.add("I moved to Porto.", user="ana", name="Ana", at="2025-03-01")
        assert told_facts(mem) == ["Ana lives in Porto."]
        mem.erase(moved.id)
        assert told_facts(mem) == ["Ana lives in Lisbon."]
        done = mem.erase(again.id)
        assert done.derived == 1
        assert told_facts(mem) == ["Ana lives in Lisbon."], "the first turn says it still"
        mem.erase(first.id)
        assert told_facts(mem) == []
        assert mem.count(user="ana") == 0
        assert traces(tmp_path, ["lisbon", "porto"]) == set()
        assert mem.jobs() == []
        assert mem.health().ok


def test_a_dump_to_share_is_redacted_by_words_or_by_a_function(tmp_path: Path) -> None:
    with mnemic.open(tmp_path / "a.db") as memory:
        memory.add(
            "Ask eve@example.org, badge EMP-77.", user="ana", name="eve@example.org", labels="eve@example.org"
        )
        memory.update(memory.list(user="ana")[0].id, "Ask eve@example.org or 555-123-4567, badge EMP-77.")
        for number, (wanted, text) in enumerate(
            [
                ("email, phone", "Ask [email] or [phone], badge EMP-77."),
                (["email", Pattern("badge", r"EMP-\d+")], "Ask [email] or 555-123-4567, badge [badge]."),
                (r"badge=EMP-\d+", "Ask eve@example.org or 555-123-4567, badge [badge]."),
                (str.upper, "ASK EVE@EXAMPLE.ORG OR 555-123-4567, BADGE EMP-77."),
            ]
        ):
            memory.dump(tmp_path / f"{number}.mnemic", user="ana", redact=wanted)  # type: ignore[arg-type]
            with mnemic.open(tmp_path / f"{number}.db") as theirs:
                theirs.load(tmp_path / f"{number}.mnemic")
                (cube,) = theirs.list(user="ana")
                assert cube.text == text
                assert len(theirs.history(cube.id)) == 1
                if number == 0:
                    assert (cube.header.name, cube.header.labels) == ("[email]", ("[email]",))
        for wrong in ("", "nothing-known", 7, []):
            with pytest.raises(InvalidOption):
                memory.dump(tmp_path / "x.mnemic", user="ana", redact=wrong)  # type: ignore[arg-type]
        assert not (tmp_path / "x.mnemic").exists()


def test_what_is_over_stays_behind_with_what_was_made_from_it(tmp_path: Path) -> None:
    """A dump serves nothing that no other way serves; what was deleted by hand is history, and goes along."""
    now, day = [1_750_000_000_000_000], 86_400_000_000
    with mnemic.open(tmp_path / "a.db", clock=lambda: now[0]) as memory:
        memory.add("I live in Lisbon.", user="ana", labels="chat")
        (gone,) = memory.add("swept away", user="ana", labels="chat")
        (deleted,) = memory.add("deleted by hand", user="ana")
        memory.add("stays", user="ana")
        memory.delete(deleted.id)
        memory.flush()
        assert memory.facts(user="ana")
        memory.policies.add("keep 1 day", label="chat")
        now[0] += day + 1000
        memory.retention.sweep()
        memory.restore(gone.id, 1)
        now[0] += day + 1000
        memory.dump(tmp_path / "a.mnemic", user="ana")
        memory.dump(tmp_path / "b.mnemic", user="ana", redact=lambda text: text)
    with mnemic.open(tmp_path / "b.db") as other:
        other.load(tmp_path / "a.mnemic")
        assert [cube.text for cube in other.list(user="ana")] == ["stays"]
        assert other.history(deleted.id)[0].text == "deleted by hand"
        assert other.count(user="ana", where={"origin": "derived"}) == 0
        with pytest.raises(NotFound):
            other.history(gone.id)
    with mnemic.open(tmp_path / "c.db") as other:
        other.load(tmp_path / "b.mnemic")
        assert [cube.text for cube in other.list(user="ana")] == ["stays"]


def test_what_a_model_made_of_texts_stays_behind_where_texts_are_redacted(
    database: str, tmp_path: Path
) -> None:
    """The tensors of a KV memory, a datastore or an adapter hold the words they were made from."""
    ana = Scope("default", "ana")
    with mnemic.open(database, blobs=tmp_path / "blobs", derive=()) as memory:
        (cube,) = memory.add("Write to ana@example.org.", user="ana")
        vault = memory._parts.vault
        for kind in (Kind.activation, Kind.parametric):
            blob = vault.put_blob(ana, f"{kind.name}: ana@example.org".encode())
            about = b'{"title": "ana@example.org"}'
            vault.append(ana, [Draft(payload=about, kind=kind, origin=Origin.trained, blob=blob)])
        done = memory.dump(tmp_path / "shared.mnemic", user="ana", redact="email")
        assert (done.cubes, done.blobs) == (1, 0)
        assert memory.dump(tmp_path / "own.mnemic", user="ana").blobs == 2
    with zipfile.ZipFile(tmp_path / "shared.mnemic") as archive:
        said = b"".join(archive.read(name) for name in archive.namelist())
    assert b"Write to [email]." in said
    assert b"ana@example.org" not in said
    assert cube.id.encode() not in said


def test_what_rests_on_a_state_that_did_not_come_along_is_stale_until_that_comes(
    database: str, tmp_path: Path
) -> None:
    """A part of a dump may cite a version of a cube that is here in other versions only."""
    with mnemic.open(database) as here, mnemic.open(tmp_path / "there.db") as there:
        (cube,) = here.add("I live in Lisbon.", user="ana")
        here.flush()
        here.dump(tmp_path / "first.mnemic", everyone=True)
        there.load(tmp_path / "first.mnemic")
        there.update(cube.id, "I live in Porto.")
        there.flush()
        (porto,) = there.facts(user="ana")
        there.dump(tmp_path / "facts.mnemic", user="ana", where={"origin": "derived"})
        here.load(tmp_path / "facts.mnemic")
        assert porto.cube.id not in {one.cube.id for one in here.facts(user="ana")}
        found = here.search("Where does Ana live?", user="ana", as_of="2999-01-01")
        assert [hit.text for hit in found] == ["I live in Lisbon."]
        with here._parts.vault.snapshot() as snapshot:
            why = snapshot.why_not_current(porto.cube.id) or ""
        assert f"its source {cube.id} is not here as it was when this was made" in why
        there.dump(tmp_path / "last.mnemic", everyone=True)
        here.load(tmp_path / "last.mnemic")
        assert [one.value for one in here.facts(user="ana")] == ["Porto"]
