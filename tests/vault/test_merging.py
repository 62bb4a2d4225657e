"""Load and merge are a union: whatever is merged into whatever, in any order, all know the same after it."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from vaults import ANA, cite, derive, live, raw, rows, say, stale, tell, texts, told

from mnemic.cube.errors import InvalidOption, NotFound
from mnemic.cube.ids import id_text
from mnemic.cube.model import Kind, Origin, Scope
from mnemic.vault import check
from mnemic.vault.codec import Draft, erased_marker
from mnemic.vault.erasing import erase
from mnemic.vault.fusing import fuse
from mnemic.vault.merging import Merged, merge
from mnemic.vault.records import VaultSource
from mnemic.vault.vault import Vault, open_vault

BO = Scope("default", "bo", "coach", "s")
SCOPES = [ANA, Scope("default", "ana", None, "s1"), BO]


def take(into: Vault, other: Vault) -> Merged:
    with other.database.read() as transaction:
        return merge(into, VaultSource(other, transaction))


def state(vault: Vault) -> dict[str, Any]:
    """All that a vault knows and serves, without seqs; and it is sound."""
    versions, changes = {}, {}
    with vault.database.read() as transaction:
        source = VaultSource(vault, transaction)
        for change, made in source.groups():
            said = (change.op, change.reason, change.undoes)
            known = changes.setdefault(change.change, (said, set()))
            assert known[0] == said
            known[1].update((version.version, change.at, change.user) for version in made)
            for version in made:
                assert version.version not in versions
                versions[version.version] = dataclasses.asdict(version)
        edges, markers = sorted(source.edges()), sorted(source.markers())
        assert headers_agree_with_citations(vault)
        assert check.problems(transaction, vault.tenant) == []
        assert [bad for _, bad in check.altered(transaction, vault.tenant, vault._key) if bad] == []
    served = rows(vault, "SELECT cube, head, deleted, conflict, stale_since FROM cube")
    heads = {
        bytes(cube): (bytes(head), deleted, conflict, since is not None)
        for cube, head, deleted, conflict, since in served
    }
    return {"versions": versions, "changes": changes, "edges": edges, "markers": markers, "heads": heads}


def headers_agree_with_citations(vault: Vault) -> bool:
    """A header holds this vault's digests of what it cites; "" for what is not here."""
    said = {
        (bytes(version), bytes(target)): None if digest is None else bytes(digest).hex()
        for version, target, digest in rows(
            vault, "SELECT version, target, target_digest FROM edge WHERE role = 0"
        )
    }
    with vault.snapshot() as snapshot:
        for row in snapshot.spaces():
            for _, cube in snapshot.live_after(row.space, 0, 10**6):
                for one in cube.header.sources:
                    if (said[raw(cube.version_id), raw(one.version_id)] or "") != one.digest:
                        return False
    return True


def fused_into_erased(version: dict[str, Any], markers: list[bytes]) -> bool:
    """A version that says nothing but that: it goes with the fusion, and its cube is there again."""
    into = version["header"].get("merged_into")
    return into is not None and erased_marker(raw(into)) in markers


def is_merged(vault: Vault, cube: str) -> bool:
    with vault.snapshot() as snapshot:
        return snapshot.head(cube).header.merged_into is not None


class Lives:
    """Vaults that begin with the same memory and then go on by themselves."""

    def __init__(self, fresh: Callable[[], str]) -> None:
        self._fresh, self._open = fresh, []
        self.base = self.new()
        self.known = [tell(self.base, scope, f"base {i}")[0] for i, scope in enumerate(SCOPES)]
        self.known += told(self.base.append(ANA, [say("of a record", client_id="r1")]))
        self.known.append(derive(self.base, ANA, "derived", self.known[:2]))

    def new(self) -> Vault:
        self._open.append(open_vault(self._fresh()))
        return self._open[-1]

    def union(self, *vaults: Vault) -> Vault:
        out = self.new()
        for vault in vaults:
            take(out, vault)
        return out

    def live(self, steps: list[tuple[str, int, int]]) -> Vault:
        vault = self.union(self.base)
        cubes = list(self.known)
        for number, (what, i, j) in enumerate(steps):
            cube, scope = cubes[i % len(cubes)], SCOPES[j % len(SCOPES)]
            try:
                if what == "tell":
                    cubes += tell(vault, scope, f"{number} {j}")
                elif what == "record":
                    cubes += told(vault.append(scope, [say(f"record {j}", client_id=f"r{j}")], reason="r"))
                elif what == "both":
                    drafts = [say(f"{number} a"), say(f"{number} b")]
                    cubes += told(vault.append(scope, drafts, reason=f"both {number}"))
                elif what == "update":
                    vault.revise(cube, {"payload": f"now {j}".encode()}, reason=f"why {number}")
                elif what == "delete":
                    vault.remove([cube, cubes[j % len(cubes)]], reason=f"gone {number}")
                elif what == "derive" and not is_merged(vault, cube):  # nothing is made from a tombstone
                    cubes.append(derive(vault, scope, f"from {i}", [cube]))
                elif what == "erase":
                    erase(vault, [cube])
                elif what == "fuse":
                    done = fuse(vault, [cube, cubes[j % len(cubes)]], lambda _, n=number: say(f"one {n}"))
                    cubes.append(id_text(done[0][0].stored[0].cube))
                elif what == "restore":
                    vault.restore(cube, 1)
            except (NotFound, InvalidOption):  # deleted or erased before, or the same, or of two users
                pass
        return vault

    def close(self) -> None:
        for vault in self._open:
            vault.close()


PHASES = [
    Phase.explicit,
    Phase.reuse,
    Phase.generate,
]  # a case is a few lines: no hour goes into shorter ones
FUSING = ["fuse", "fuse", "restore"]
steps = st.lists(
    st.tuples(
        st.sampled_from(["tell", "record", "both", "update", "update", "delete", "derive", "erase", *FUSING]),
        st.integers(0, 9),
        st.integers(0, 3),
    ),
    min_size=2,
    max_size=7,
)


@pytest.mark.parametrize(("kind", "examples"), [("sqlite", 14), ("postgresql", 3)])
def test_merge_is_commutative_associative_idempotent_and_keeps_history(
    fresh_database, kind: str, examples: int
) -> None:
    @settings(max_examples=examples, deadline=None, phases=PHASES)
    @given(steps, steps, steps)
    def laws(one: list[Any], two: list[Any], three: list[Any]) -> None:
        lives = Lives(lambda: fresh_database(kind))
        try:
            a, b, c = (lives.live(each) for each in (one, two, three))
            before = {name: state(vault) for name, vault in (("a", a), ("b", b))}
            assert state(lives.union(a)) == before["a"], "nothing is lost or added on the way"
            ab, ba = lives.union(a, b), lives.union(b, a)
            assert state(ab) == state(ba)
            bc = lives.union(b, c)
            left, right = lives.union(ab, c), lives.union(a, bc)
            whole = state(left)
            assert whole == state(right)
            for again in (a, b, c, left, right):
                take(left, again)
            assert state(left) == whole
            for known in before.values():  # history: but for what was erased, all of it is there
                gone = {cube for cube, *_ in [(v["cube"],) for v in known["versions"].values()]} - {
                    v["cube"] for v in whole["versions"].values()
                }
                kept = {
                    key: version
                    for key, version in known["versions"].items()
                    if version["cube"] not in gone and not fused_into_erased(version, whole["markers"])
                }
                assert kept.items() <= whole["versions"].items()
                assert len(gone) <= len(whole["markers"])
            assert set(before["a"]["markers"]) | set(before["b"]["markers"]) <= set(whole["markers"])
            take(a, b)  # in place, onto what has a past of its own
            take(b, a)
            assert state(a) == state(b) == state(ab)
        finally:
            lives.close()

    laws()


@contextmanager
def pair(fresh_database: Any, kind: str) -> Iterator[tuple[Vault, Vault]]:
    a, b = open_vault(fresh_database(kind)), open_vault(fresh_database(kind))
    yield a, b
    a.close()
    b.close()


KINDS = pytest.mark.parametrize("kind", ["sqlite", "postgresql"])


@KINDS
def test_times_ids_names_and_texts_come_as_they_were(fresh_database, kind: str) -> None:
    with pair(fresh_database, kind) as (a, b):
        tell(b, ANA, "here before", client_id="x")
        (cube,) = tell(a, BO, "one", client_id="1", labels=("l",), metadata={"k": [1, "é"]}, role="user")
        a.revise(cube, {"payload": b"two", "valid_to": 5}, reason="because")
        a.remove([cube])
        (raw,) = tell(a, ANA, "x", kind=Kind.parametric)
        a.revise(raw, {"payload": bytes(range(256))})
        account = take(b, a)
        assert (account.stored, account.cubes, account.users) == (5, 2, {"ana", "bo"})
        with a.snapshot() as ours, b.snapshot() as theirs:
            for id_ in (cube, raw):
                assert theirs.history(id_) == ours.history(id_)
        assert [cube.payload[:11] for cube in live(b, ANA)] == [b"here before", bytes(range(11))]
        again = b.append(BO, [say("one", client_id="1", role="user")])
        assert again.outcomes[0].reason == "was deleted; a deleted id stays deleted"


@KINDS
def test_two_last_states_are_kept_flagged_and_settled_by_the_next_change(fresh_database, kind: str) -> None:
    with pair(fresh_database, kind) as (a, b):
        (cube,) = tell(a, ANA, "first")
        take(b, a)
        a.revise(cube, {"payload": b"from a"})
        b.revise(cube, {"payload": b"from b"})
        assert take(a, b).conflicts == [cube]
        assert take(b, a).conflicts == [cube]
        for vault in (a, b):
            with vault.snapshot() as snapshot:
                assert [one.text for one in snapshot.history(cube)] == ["first", "from a", "from b"]
                assert (snapshot.head(cube).text, snapshot.head(cube).conflict) == ("from b", True)
        a.revise(cube, {"payload": b"agreed"})
        take(b, a)
        for vault in (a, b):
            with vault.snapshot() as snapshot:
                assert (snapshot.head(cube).text, snapshot.head(cube).conflict) == ("agreed", False)
        assert state(a) == state(b)


@KINDS
def test_the_same_said_in_two_places_is_no_conflict(fresh_database, kind: str) -> None:
    with pair(fresh_database, kind) as (a, b):
        for vault in (a, b):
            vault.append(ANA, [say("the record", client_id="7")])
        assert take(a, b).conflicts == []
        take(b, a)
        assert texts(a, ANA) == texts(b, ANA) == ["the record"]
        b.revise(live(b, ANA)[0].id, {"payload": b"corrected"})
        take(a, b)
        assert texts(a, ANA) == ["corrected"]


@KINDS
def test_what_one_erased_is_on_neither_with_all_that_was_made_from_it(fresh_database, kind: str) -> None:
    with pair(fresh_database, kind) as (a, b):
        secret, other = tell(a, ANA, "secret", "other")
        take(b, a)
        fact = derive(b, ANA, "a fact of the secret", [secret])
        summary = derive(b, BO, "a summary", [fact, other])
        erase(a, [secret])
        account = take(a, b)
        assert (account.erased, account.gone) == (3, 0)
        assert take(b, a).gone == 3
        for vault in (a, b):
            assert texts(vault, ANA) == ["other"]
            for cube in (secret, fact, summary):
                with vault.snapshot() as snapshot, pytest.raises(NotFound):
                    snapshot.head(cube)
        assert state(a) == state(b)
        c = open_vault(fresh_database(kind))
        derive_of_it = Draft(payload=b"again", origin=Origin.derived, sources=(cite_gone(secret),))
        c.append(ANA, [derive_of_it])
        take(c, a)
        assert live(c, BO) == []
        assert texts(c, ANA) == ["other"]
        c.close()


def cite_gone(cube: str) -> Any:
    from mnemic.cube.model import Source

    return Source(cube_id=cube, version_id=cube)


@KINDS
def test_what_came_without_its_source_is_stale_until_the_source_comes(fresh_database, kind: str) -> None:
    with pair(fresh_database, kind) as (a, b):
        (raw,) = tell(a, ANA, "raw")
        fact = derive(a, BO, "fact", [raw])
        with a.database.read() as transaction, a.snapshot() as snapshot:
            merge(b, VaultSource(a, transaction, spaces=[snapshot.space_of("bo") or 0]))
        assert stale(b, fact) == [True]
        take(b, a)
        assert stale(b, fact) == stale(a, fact) == [False]
        b.revise(raw, {"payload": b"changed"})
        assert stale(b, fact) == [True]
        assert cite(b, raw).digest
        assert state(b)["edges"] == state(a)["edges"]


@KINDS
def test_payloads_come_along_once(fresh_database, tmp_path: Path, kind: str) -> None:
    a = open_vault(fresh_database(kind), blobs=tmp_path / "a")
    b = open_vault(fresh_database(kind), blobs=tmp_path / "b")
    blob = a.put_blob(ANA, b"tensor" * 1000)
    for scope in (ANA, ANA, BO):
        tell(a, scope, "{}", kind=Kind.activation, blob=blob)
    take(b, a)
    (cube, *_) = live(b, BO)
    assert b.open_blob(cube).read() == b"tensor" * 1000
    assert dict(b.blobs.damaged()) == {blob.id: None}
    a.close()
    b.close()


def test_other_processes_see_what_came(tmp_path: Path) -> None:
    """An index that was built before must be built anew: what comes may be older than what is there."""
    a, b = open_vault(tmp_path / "a.db"), open_vault(tmp_path / "b.db")
    (cube,) = tell(a, ANA, "first")
    take(b, a)
    b.revise(cube, {"payload": b"older"})
    a.revise(cube, {"payload": b"newer"})
    other = open_vault(tmp_path / "a.db")
    with other.snapshot() as snapshot:
        space = snapshot.space_of("ana") or 0
        before = snapshot.position(space)
    take(a, b)
    with other.snapshot() as snapshot:
        after = snapshot.position(space)
        assert [cube.text for _, cube in snapshot.live_after(space, 0, 10)] == ["newer"]
    assert before
    assert after
    assert after.epoch > before.epoch
    tell(other, ANA, "and on")
    assert texts(a, ANA) == ["newer", "and on"]
    for vault in (a, b, other):
        vault.close()


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL on Windows")
def test_a_process_killed_while_it_loads_has_loaded_all_or_nothing(tmp_path: Path) -> None:
    source = open_vault(tmp_path / "a.db")
    for start in range(0, 3000, 500):
        source.append(ANA, [say(f"{start + i} {'z' * 200}", client_id=str(start + i)) for i in range(500)])
    tell(source, ANA, "{}", kind=Kind.activation, blob=source.put_blob(ANA, os.urandom(300_000)))
    source.close()
    code = (
        "import sys\n"
        "from mnemic.vault.merging import merge\n"
        "from mnemic.vault.records import VaultSource\n"
        "from mnemic.vault.vault import open_vault\n"
        "source, into = open_vault(sys.argv[1]), open_vault(sys.argv[2])\n"
        "print('ready', flush=True)\n"
        "with source.database.read() as transaction:\n"
        "    merge(into, VaultSource(source, transaction))\n"
    )
    found = set()
    for life in range(6):
        path = tmp_path / f"b{life}.db"
        into = open_vault(path)
        tell(into, ANA, "mine")
        child = subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path / "a.db"), str(path)], stdout=subprocess.PIPE
        )
        assert child.stdout
        assert child.stdout.readline() == b"ready\n"
        time.sleep(0.1 * life)
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
        child.stdout.close()
        found.add(len(live(into, ANA)))
        assert found <= {1, 3002}
        into.blobs.sweep(grace=0)
        assert {wrong for _, wrong in into.blobs.damaged()} <= {None}
        state(into)
        into.close()
    assert 1 in found
