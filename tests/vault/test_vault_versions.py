"""Nothing is overwritten: versions, tombstones, what was made from what, features, snapshots."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from vaults import ANA, cite, derive, live, log, rows, say, someone, stale, tell, texts, told

from mnemic.cube.errors import InvalidOption, NotFound, VaultClosed
from mnemic.cube.ids import id_bytes, id_text, new_ids
from mnemic.cube.model import Kind, Origin, Scope
from mnemic.vault.codec import Draft
from mnemic.vault.vault import Vault, open_vault

# --- versions


def test_an_update_is_a_new_version(vault: Vault) -> None:
    cube = told(vault.append(ANA, [say("Lisbon", role="user", labels=("home",), at=5, client_id="x")]))[0]
    done, scope = vault.revise(cube, {"payload": b"Porto"}, reason="moved")
    with vault.snapshot() as snapshot:
        head, history = snapshot.head(cube), snapshot.history(cube)
    assert [version.text for version in history] == ["Lisbon", "Porto"]
    assert head == history[-1]
    assert id_text(done.stored[0].version) == head.version_id != history[0].version_id
    assert {version.id for version in history} == {cube}
    assert scope == head.header.scope == ANA
    assert (head.header.role, head.header.labels, head.client_id) == ("user", ("home",), "x")
    assert head.header.at == history[0].header.at
    assert head.header.recorded_at > history[0].header.recorded_at
    assert texts(vault, ANA) == ["Porto"]


def test_versions_name_their_parents(vault: Vault) -> None:
    cube = tell(vault, ANA, "1")[0]
    for text in (b"2", b"3"):
        vault.revise(cube, {"payload": text})
    chain = rows(vault, "SELECT version, parent FROM version ORDER BY seq")
    versions = [bytes(version) for version, _ in chain]
    assert [parent and bytes(parent) for _, parent in chain] == [None, *versions[:-1]]


def test_a_tombstone_says_whose_it_is(vault: Vault) -> None:
    draft = Draft(payload=b"a", kind=Kind.activation, client_id="mine", name="Ana")
    (outcome,) = vault.append(ANA, [draft]).outcomes
    assert outcome.row
    cube = id_text(outcome.row.cube)
    vault.remove([cube])
    with vault.snapshot() as snapshot:
        last = snapshot.head(cube)
    assert (last.kind, last.client_id, last.payload, last.header.name) == (Kind.activation, "mine", b"", None)


def test_a_deletion_is_a_tombstone(vault: Vault) -> None:
    cube, other = tell(vault, ANA, "a", "b")
    done = vault.remove([cube, cube], reason="asked to")
    assert len(done) == 1
    assert len(done[0][0].stored) == 1
    with vault.snapshot() as snapshot:
        assert snapshot.head(cube).deleted
        assert [(version.text, version.deleted) for version in snapshot.history(cube)] == [
            ("a", False),
            ("", True),
        ]
    assert [one.id for one in live(vault, ANA)] == [other]
    assert vault.remove([cube]) == [], "a tombstone needs no tombstone"
    with pytest.raises(NotFound, match="deleted"):
        vault.revise(cube, {"payload": b"x"})
    assert log(vault, ANA) == [1, 2, 3]


def test_a_removal_over_several_scopes_is_all_or_nothing(vault: Vault) -> None:
    scopes = [ANA, ANA._replace(session="s"), Scope("default", "bo"), Scope("default", None, "coach")]
    cubes = [tell(vault, scope, str(scope))[0] for scope in scopes]
    with pytest.raises(NotFound):
        vault.remove([*cubes, id_text(new_ids(1)[0])])
    assert sum(len(live(vault, scope)) for scope in {scope.user: scope for scope in scopes}.values()) == 4
    done = vault.remove(cubes)
    assert {scope for _, scope in done} == set(scopes)
    assert len({written.change_id for written, _ in done}) == 1, "one call, one change"
    assert not any(live(vault, scope) for scope in scopes)


@pytest.mark.parametrize("unknown", ["", "x", None, 5, b"x"])
def test_what_is_not_an_id_is_refused(vault: Vault, unknown: str) -> None:
    with pytest.raises(InvalidOption):
        vault.revise(unknown, {"payload": b"x"})
    with pytest.raises(InvalidOption):
        vault.remove([unknown])
    with vault.snapshot() as snapshot, pytest.raises(InvalidOption):
        snapshot.head(unknown)


def test_an_unknown_cube_is_not_found(vault: Vault) -> None:
    nobody = id_text(new_ids(1)[0])
    with pytest.raises(NotFound):
        vault.revise(nobody, {"payload": b"x"})
    with pytest.raises(NotFound):
        vault.remove([nobody])
    with vault.snapshot() as snapshot:
        for read in (snapshot.head, snapshot.history):
            with pytest.raises(NotFound):
                read(nobody)


def test_cubes_are_read_in_the_order_asked(vault: Vault) -> None:
    tell(vault, ANA, *"abcd")
    with vault.snapshot() as snapshot:
        space = snapshot.space_of("ana")
        assert space is not None
        assert [cube.text for cube in snapshot.cubes(space, [3, 1, 3])] == ["c", "a", "c"]
        assert snapshot.cubes(space, []) == []
        many = snapshot.cubes(space, [1, 2, 3, 4] * 200)
        assert "".join(cube.text for cube in many) == "abcd" * 200
        assert [cube.text for _, cube in snapshot.live_after(space, 1, 2)] == ["b", "c"]


# --- snapshots


def test_a_snapshot_does_not_see_what_others_write(database: str) -> None:
    vault, other = open_vault(database), open_vault(database)
    cube = tell(vault, ANA, "a")[0]
    with vault.snapshot() as snapshot:
        space = snapshot.space_of("ana")
        assert space is not None
        before = snapshot.position(space)
        for writer in (other, vault):
            tell(writer, ANA, "b")
            writer.revise(cube, {"payload": b"changed"})
            tell(writer, Scope("default", f"new {id(writer)}"), "c")
        assert snapshot.position(space) == before
        assert snapshot.head(cube).text == "a"
        assert [one.text for _, one in snapshot.live_after(space, 0, 10)] == ["a"]
        assert len(snapshot.since(space, 0, lexical=0, dense=None)) == 1
        assert len(snapshot.spaces()) == 1
    with vault.snapshot() as snapshot:
        assert snapshot.position(space) != before
        assert snapshot.head(cube).text == "changed"
    vault.close()
    other.close()


def test_what_was_written_is_seen_at_once_by_others(database: str) -> None:
    vaults = [open_vault(database) for _ in range(2)]
    for n, (writer, reader) in enumerate(itertools.islice(itertools.permutations(vaults, 2), 2)):
        tell(writer, ANA, str(n))
        assert texts(reader, ANA)[-1] == str(n)
    for vault in vaults:
        vault.close()


def test_a_closed_vault_says_so(vault: Vault) -> None:
    tell(vault, ANA, "a")
    vault.close()
    with pytest.raises(VaultClosed):
        tell(vault, ANA, "b")
    with pytest.raises(VaultClosed), vault.snapshot():
        pass
    vault.close()


# --- what was made from what


def test_what_was_made_from_a_changed_cube_is_stale_and_so_on(vault: Vault) -> None:
    told_, other = tell(vault, ANA, "I live in Lisbon", "I like tea")
    fact = derive(vault, ANA, "lives in Lisbon", [told_])
    tea = derive(vault, ANA, "likes tea", [other])
    summary = derive(vault, ANA, "Ana, Lisbon, tea", [fact, tea])
    profile = derive(vault, ANA, "Ana", [summary])
    made = (fact, summary, profile)
    assert stale(vault, *made, tea) == [False, False, False, False]
    vault.revise(told_, {"payload": b"I live in Porto"})
    assert stale(vault, *made, tea, told_) == [True, True, True, False, False]
    vault.revise(told_, {"payload": b"I live in Lisbon"})
    assert stale(vault, *made, tea) == [False, False, False, False], "it says again what they rest on"
    vault.remove([told_])
    assert stale(vault, *made, tea) == [True, True, True, False]


def test_a_change_of_a_label_makes_nothing_stale(vault: Vault) -> None:
    cube = tell(vault, ANA, "a")[0]
    fact = derive(vault, ANA, "fact", [cube])
    vault.revise(cube, {"labels": ("new",)})
    assert stale(vault, fact) == [False]


def test_what_is_made_from_the_past_is_stale_from_the_start(vault: Vault) -> None:
    """A model took its time, and meanwhile the source was changed."""
    cube = tell(vault, ANA, "I live in Lisbon")[0]
    source = cite(vault, cube)
    vault.revise(cube, {"payload": b"I live in Porto"})
    draft = say("lives in Lisbon", origin=Origin.derived, sources=(source,))
    fact = told(vault.append(ANA, [draft], op="derive"))[0]
    assert stale(vault, fact) == [True]
    vault.revise(cube, {"payload": b"I live in Lisbon"})
    assert stale(vault, fact) == [False]


def test_what_is_made_from_a_deleted_or_unknown_cube_is_stale(vault: Vault) -> None:
    cube = tell(vault, ANA, "a")[0]
    source = cite(vault, cube)
    vault.remove([cube])
    nobody = id_text(new_ids(1)[0])
    unknown = source.model_copy(update={"version_id": nobody, "cube_id": nobody})
    for cited in (source, unknown):
        fact = told(vault.append(ANA, [say("fact", origin=Origin.derived, sources=(cited,))]))[0]
        assert stale(vault, fact) == [True]


def test_deriving_again_makes_it_current(vault: Vault) -> None:
    cube = tell(vault, ANA, "I live in Lisbon")[0]
    fact = derive(vault, ANA, "lives in Lisbon", [cube])
    summary = derive(vault, ANA, "Ana lives in Lisbon", [fact])
    vault.revise(cube, {"payload": b"I live in Porto"})
    vault.revise(fact, {"payload": b"lives in Porto", "sources": (cite(vault, cube),)})
    assert stale(vault, fact, summary) == [False, True]
    vault.revise(summary, {"payload": b"Ana lives in Porto", "sources": (cite(vault, fact),)})
    assert stale(vault, fact, summary) == [False, False]


def test_sources_of_other_users_count_too(vault: Vault) -> None:
    theirs = tell(vault, Scope("default", "bo"), "a")[0]
    shared = derive(vault, Scope("default", None, "coach"), "fact", [theirs])
    vault.remove([theirs])
    assert stale(vault, shared) == [True]


def test_several_spans_of_one_source(vault: Vault) -> None:
    cube = tell(vault, ANA, "a long text")[0]
    sources = (cite(vault, cube, start=0, end=1), cite(vault, cube, start=2, end=6))
    fact = told(vault.append(ANA, [say("fact", origin=Origin.derived, sources=sources)]))[0]
    with vault.snapshot() as snapshot:
        assert snapshot.head(fact).header.sources == sources
    vault.remove([cube])
    assert stale(vault, fact) == [True]


@settings(max_examples=40)
@given(data=st.data())
def test_staleness_is_what_the_definition_says(vault: Vault, data: st.DataObject) -> None:
    """A derived cube is current iff each source is live and current, and says what it said."""
    scope = someone()
    cubes = tell(vault, scope, *"abc")
    says: dict[str, str | None] = dict(zip(cubes, "abc", strict=True))
    rests_on: dict[str, dict[str, str | None]] = {cube: {} for cube in cubes}
    for number in range(data.draw(st.integers(2, 5))):
        sources = data.draw(st.lists(st.sampled_from(cubes), min_size=1, max_size=3, unique=True))
        made = derive(vault, scope, f"made {number}", sources)
        says[made], rests_on[made] = f"made {number}", {source: says[source] for source in sources}
        cubes.append(made)
    for _ in range(data.draw(st.integers(1, 6))):
        cube = data.draw(st.sampled_from([cube for cube in cubes if says[cube] is not None]))
        act = data.draw(st.sampled_from(["say", "say", "say", "rederive", "remove"]))
        if act == "remove":
            vault.remove([cube])
            says[cube], rests_on[cube] = None, {}
        elif act == "say":
            text = data.draw(st.sampled_from(["x", "a", "b", "made 0"]))
            vault.revise(cube, {"payload": text.encode()})
            says[cube] = text
        elif rests_on[cube]:
            alive = [source for source in rests_on[cube] if says[source] is not None]
            vault.revise(cube, {"sources": tuple(cite(vault, source) for source in alive)})
            rests_on[cube] = {source: says[source] for source in alive}

        def current(cube: str) -> bool:
            return all(says[source] == said and current(source) for source, said in rests_on[cube].items())

        alive = [cube for cube in cubes if says[cube] is not None]
        assert stale(vault, *alive) == [not current(cube) for cube in alive]


# --- models and features


def test_the_first_model_of_a_kind_is_active(vault: Vault) -> None:
    words, vectors, newer = (
        vault.add_model("bm25", 0),
        vault.add_model("static", 256),
        vault.add_model("big", 1024),
    )
    assert [model.active for model in (words, vectors, newer)] == [True, True, False]
    assert vault.add_model("static", 256) == vectors
    tell(vault, ANA, "a")
    with vault.snapshot() as snapshot:
        space = snapshot.space_of("ana")
        assert space is not None
        epoch = snapshot.position(space).epoch  # type: ignore[union-attr]
        assert snapshot.models() == [words, vectors, newer]
    vault.activate_model(newer)
    with vault.snapshot() as snapshot:
        assert [model.active for model in snapshot.models()] == [True, False, True]
        assert snapshot.position(space).epoch == epoch + 1  # type: ignore[union-attr]


def test_features_come_with_the_log(vault: Vault) -> None:
    words, vectors = vault.add_model("bm25", 0).number, vault.add_model("static", 2).number
    vault.append(
        ANA, [say("a", features={words: b"w1"}), say("b", features={words: b"w2", vectors: b"v2"}), say("c")]
    )
    with vault.snapshot() as snapshot:
        space = snapshot.space_of("ana")
        assert space is not None
        got = [
            (row.seq, row.lexical, row.dense)
            for row in snapshot.since(space, 0, lexical=words, dense=vectors)
        ]
        assert got == [(1, b"w1", None), (2, b"w2", b"v2"), (3, b"", None)]
        assert [row.seq for row in snapshot.since(space, 2, lexical=words, dense=None)] == [3]
        assert [(seq, cube.text) for seq, cube in snapshot.pending(space, vectors)] == [(1, "a"), (3, "c")]
        assert [seq for seq, _ in snapshot.pending(space, vectors, after=1, limit=1)] == [3]
    vault.put_features(space, vectors, {1: b"v1", 2: b"other"})
    with vault.snapshot() as snapshot:
        assert snapshot.features_after(space, 0, vectors) == {1: b"v1", 2: b"other"}
        assert snapshot.features_after(space, 1, vectors) == {2: b"other"}
        assert [seq for seq, _ in snapshot.pending(space, vectors)] == [3]
    cube = live(vault, ANA)[2].id
    vault.remove([cube])
    with vault.snapshot() as snapshot:
        assert snapshot.pending(space, vectors) == [], "what was deleted needs no vector"


def test_a_change_beside_the_text_keeps_its_features(vault: Vault) -> None:
    words = vault.add_model("bm25", 0).number
    cube = told(vault.append(ANA, [say("a", features={words: b"w"})]))[0]
    vault.revise(cube, {"labels": ("new",)})
    with vault.snapshot() as snapshot:
        assert snapshot.features_after(snapshot.space_of("ana") or 0, 1, words) == {2: b"w"}
    vault.revise(cube, {"payload": b"b", "features": {words: b"x"}})
    vault.revise(cube, {"payload": b"c"})
    with vault.snapshot() as snapshot:
        assert snapshot.features_after(snapshot.space_of("ana") or 0, 2, words) == {3: b"x"}


def test_headers_are_read_without_payloads(vault: Vault) -> None:
    tell(vault, ANA, "a", "b", role="user")
    with vault.snapshot() as snapshot:
        headers = snapshot.headers(snapshot.space_of("ana") or 0, 1)
    assert headers == {2: b'{"role":"user"}'}


def test_ids_are_16_bytes_and_tell_when(vault: Vault) -> None:
    cube = tell(vault, ANA, "a")[0]
    assert len(id_bytes(cube)) == 16
    assert cube[14] == "7"
