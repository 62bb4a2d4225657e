"""The audit log: what is on record, and that no change of the record goes unseen."""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing
from pathlib import Path

import pytest

import mnemic
from mnemic.cube.errors import AccessDenied, InvalidOption, VaultError
from mnemic.governance.ledger import Verdict
from mnemic.vault.acting import Acting


def fill(path: Path | str, rows: int = 12) -> None:
    with mnemic.open(path) as owner:
        owner.governance.add_principal("ana", owns="ana")
        ana = owner.as_principal("ana")
        for number in range(rows - 1):
            ana.add(f"text {number}", user="ana")


def tamper(path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(path)) as connection:
        for statement in statements:
            connection.execute(statement)
        connection.commit()


def verdict(path: Path | str, head: str | None = None) -> Verdict:
    with mnemic.open(path) as owner:
        return owner.audit.verify(head)


def test_every_write_and_every_refusal_is_on_record_in_order(database: str) -> None:
    with mnemic.open(database) as owner:
        owner.governance.add_principal("ana", owns="ana")
        owner.governance.add_principal("bo", owns="bo")
        ana, bo = owner.as_principal("ana"), owner.as_principal("bo")
        added = ana.add("x", user="ana")
        changed = ana.update(added[0].id, "y")
        with pytest.raises(AccessDenied):
            bo.list(user="ana")
        gone = owner.delete(added[0].id)
        policy = owner.policies.add("keep 30 days", user="ana")
        log = owner.audit.log()
        assert [(one.by, one.verb, one.allowed) for one in log] == [
            ("(owner)", "add_principal", True),
            ("(owner)", "add_principal", True),
            ("ana", "add", True),
            ("ana", "update", True),
            ("bo", "list", False),
            ("(owner)", "delete", True),
            ("(owner)", "add_policy", True),
        ]
        assert [one.ids for one in log if one.verb in ("add", "update", "delete", "add_policy")] == [
            (added.change_id,),
            (changed.id,),
            (gone.id,),
            (policy.id,),
        ]
        assert [one.n for one in log] == [1, 2, 3, 4, 5, 6, 7]
        assert [one.verb for one in owner.audit.log(by="ana")] == ["add", "update"]
        assert [one.n for one in owner.audit.log(denied=True)] == [5]
        assert [one.n for one in owner.audit.log(limit=2)] == [6, 7]
        assert owner.audit.verify(owner.audit.head()).sound


def test_there_is_no_log_until_it_is_begun(database: str) -> None:
    with mnemic.open(database) as owner:
        owner.add("x", user="ana")
        for attempt in (owner.audit.head, owner.audit.verify, owner.audit.log):
            with pytest.raises(InvalidOption, match="mnemic audit start"):
                attempt()
        with pytest.raises(InvalidOption, match="mnemic audit start"):
            mnemic.open(database, audit_reads=True)
        head = owner.audit.start()
        owner.add("y", user="ana")
        assert owner.audit.start() == owner.audit.head() != head, "begun once"
        assert [one.verb for one in owner.audit.log()] == ["start_audit", "add"]


def test_content_and_names_never_stand_in_it(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    with mnemic.open(path) as owner:
        owner.governance.add_principal("bo")
        (cube,) = owner.add("SECRETTEXT", user="SECRETUSER", session="SECRETSESSION", labels="SECRETLABEL")
        owner.update(cube.id, "SECRETOTHER", reason="SECRETREASON")
        with pytest.raises(AccessDenied):
            owner.as_principal("bo").search("SECRETQUESTION", user="SECRETUSER")
    with closing(sqlite3.connect(path)) as connection:
        rows = connection.execute("SELECT * FROM audit").fetchall()
    assert len(rows) == 4
    assert "SECRET" not in repr(rows)


DAMAGE = {
    "a row altered": ["UPDATE audit SET verb = 'read' WHERE n = 5"],
    "who did it": ["UPDATE audit SET principal = NULL WHERE n = 5"],
    "when": ["UPDATE audit SET at = at + 1 WHERE n = 5"],
    "to what": ["UPDATE audit SET target = X'00' WHERE n = 5"],
    "whether it was refused": ["UPDATE audit SET allowed = 0 WHERE n = 5"],
    "its hash": ["UPDATE audit SET hash = X'00' WHERE n = 5"],
    "a row removed": ["DELETE FROM audit WHERE n = 5"],
    "the first removed": ["DELETE FROM audit WHERE n = 1"],
    "the last removed": ["DELETE FROM audit WHERE n = 12"],
    "a row removed and the rest moved up": [
        "DELETE FROM audit WHERE n = 5",
        *(f"UPDATE audit SET n = {n - 1} WHERE n = {n}" for n in range(6, 13)),  # noqa: S608
    ],
    "two rows exchanged": [
        "UPDATE audit SET n = 105 WHERE n = 5",
        "UPDATE audit SET n = 5 WHERE n = 6",
        "UPDATE audit SET n = 6 WHERE n = 105",
    ],
    "a row put in": [
        "INSERT INTO audit SELECT tenant, 13, at, principal, verb, target, allowed, hash FROM audit "
        "WHERE n = 12"
    ],
}  # fmt: skip


@pytest.mark.parametrize("statements", DAMAGE.values(), ids=DAMAGE.keys())
def test_damage_is_found(tmp_path: Path, statements: list[str]) -> None:
    path = tmp_path / "a.db"
    fill(path)
    assert verdict(path).sound
    tamper(path, *statements)
    found = verdict(path)
    assert not found.sound
    assert found.problems


def test_a_tail_cut_with_its_record_is_found_by_an_outside_head(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    fill(path)
    with mnemic.open(path) as owner:
        kept = owner.audit.head()
    tamper(
        path,
        "DELETE FROM audit WHERE n > 8",
        "UPDATE governance SET audit_n = 8, audit_head = (SELECT hash FROM audit WHERE n = 8)",
    )
    assert verdict(path).sound, "from inside it cannot be seen"
    found = verdict(path, kept)
    assert not found.sound
    assert "the tail was cut" in found.problems[0]
    with mnemic.open(path) as owner:
        earlier = owner.audit.head()
        owner.add("more", user="ana")
        assert owner.audit.verify(earlier).sound, "an earlier head is in the chain"
        with pytest.raises(InvalidOption, match="audit head"):
            owner.audit.verify("12")


def test_a_chain_made_anew_is_found_by_an_outside_head(tmp_path: Path) -> None:
    one, other = tmp_path / "a.db", tmp_path / "b.db"
    fill(one)
    fill(other)
    with mnemic.open(one) as owner:
        kept = owner.audit.head()
    found = verdict(other, kept)
    assert not found.sound
    assert "made anew" in found.problems[0]


def test_reads_are_chained_where_that_is_asked_for(database: str) -> None:
    with mnemic.open(database) as owner:
        (cube,) = owner.add("Mochi is a cat.", user="ana")
        owner.add("Rain.", user="ana")
        owner.governance.add_principal("ana", owns="ana")
        before = owner.audit.verify().rows
        owner.search("cat", user="ana")
        assert owner.audit.verify().rows == before, "reads are not chained by default"
    with mnemic.open(database, principal="ana", audit_reads=True) as ana:
        ana.search("cat", user="ana", k=1)
        ana.get(cube.id)
        ana.count(user="ana")
    with mnemic.open(database) as owner:
        log = owner.audit.log()[before:]
        assert [(one.by, one.verb, one.ids) for one in log] == [
            ("ana", "search", (cube.id,)),
            ("ana", "get", (cube.id,)),
            ("ana", "count", ()),
        ]
        assert owner.audit.verify().sound


def test_reads_are_written_within_a_second(database: str) -> None:
    with mnemic.open(database) as owner:
        owner.add("x", user="ana")
        owner.audit.start()
        with mnemic.open(database, audit_reads=True) as reader:
            before = owner.audit.verify().rows
            for _ in range(20):
                reader.search("x", user="ana")
            done = time.monotonic()
            while owner.audit.verify().rows < before + 20:
                assert time.monotonic() - done < 5, "twenty reads were never written"
                time.sleep(0.01)


def test_a_read_that_cannot_be_chained_is_not_kept_quiet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with mnemic.open(tmp_path / "a.db") as owner:
        owner.add("x", user="ana")
        owner.audit.start()
    with mnemic.open(tmp_path / "a.db", audit_reads=True) as reader:

        def refuse(_: Acting) -> None:
            raise VaultError("the disk is full")

        reader.search("x", user="ana")
        monkeypatch.setattr(Acting, "write", refuse)
        with pytest.raises(VaultError, match="full"):
            reader.flush()
        monkeypatch.undo()
        reader.flush()
        assert reader.audit.log()[-1].verb == "search", "what could not be written is written later"


def test_tenants_have_chains_of_their_own(database: str) -> None:
    with mnemic.open(database, tenant="one") as one, mnemic.open(database, tenant="two") as two:
        one.audit.start()
        two.audit.start()
        one.add("x", user="ana")
        two.add("y", user="ana")
        two.add("z", user="ana")
        assert (one.audit.verify().rows, two.audit.verify().rows) == (2, 3)
        assert one.audit.verify().sound
        assert not one.audit.verify(two.audit.head()).sound


def test_threads_chain_one_after_the_other(database: str) -> None:
    from concurrent.futures import ThreadPoolExecutor

    with mnemic.open(database) as owner:
        owner.audit.start()

        def work(number: int) -> None:
            for turn in range(5):
                owner.add(f"{number} {turn}", user=f"user {number}")

        with ThreadPoolExecutor(6) as pool:
            list(pool.map(work, range(6)))
        found = owner.audit.verify()
        assert found.sound
        assert found.rows == 31
