"""What is derived is current exactly as long as what it rests on is, on both databases."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from mnemic.cube.errors import NotFound, StaleMemory
from mnemic.cube.model import Kind, Origin, Scope
from mnemic.cube.times import now
from mnemic.vault.codec import Draft
from mnemic.vault.vault import Vault, open_vault

ANA = Scope("default", "ana")


@pytest.fixture
def vault(database: str) -> Iterator[Vault]:
    opened = open_vault(database)
    yield opened
    opened.close()


def tell(vault: Vault, text: str, **more: object) -> str:
    (outcome,) = vault.append(ANA, [Draft(payload=text.encode(), **more)]).outcomes  # type: ignore[arg-type]
    assert outcome.row is not None
    return outcome.row.cube_in(ANA).id


def derive(vault: Vault, *sources: str, **more: object) -> str:
    with vault.snapshot() as snapshot:
        cited = tuple(snapshot.citations(sources))
    return tell(vault, "made", kind=Kind.activation, origin=Origin.derived, sources=cited, **more)


def why(vault: Vault, cube: str) -> str | None:
    with vault.snapshot() as snapshot:
        return snapshot.why_not_current(cube)


def test_it_is_current_until_a_source_says_something_else_and_again_when_it_says_so_again(
    vault: Vault,
) -> None:
    one, two = tell(vault, "one"), tell(vault, "two")
    made = derive(vault, one, two)
    assert why(vault, made) is None
    vault.revise(two, {"payload": b"three"})
    assert f"its source {two} was updated (stale since" in (why(vault, made) or "")
    with vault.snapshot() as snapshot, pytest.raises(StaleMemory, match="was updated"):
        snapshot.require_current(made)
    vault.revise(two, {"payload": b"two"})
    assert why(vault, made) is None
    vault.remove([one])
    assert f"its source {one} was deleted" in (why(vault, made) or "")


def test_it_follows_what_its_sources_rest_on(vault: Vault) -> None:
    raw = tell(vault, "raw")
    fact = derive(vault, raw)
    cache = derive(vault, fact)
    vault.revise(raw, {"payload": b"another"})
    assert f"its source {raw} was updated" in (why(vault, cache) or "")
    assert why(vault, fact) is not None


def test_what_expires_is_not_served_from_that_moment_without_a_transaction(
    database: str,
) -> None:
    late = 0
    vault = open_vault(database, clock=lambda: now() + late)
    end = now() + 60_000_000
    lasting, passing = tell(vault, "lasting"), tell(vault, "passing", expires_at=end)
    made, ending = derive(vault, lasting, passing), derive(vault, lasting, expires_at=end)
    assert why(vault, made) is None
    late = 120_000_000
    assert f"its source {passing} expired at" in (why(vault, made) or "")
    assert "it expired at" in (why(vault, ending) or "")
    with vault.snapshot() as snapshot, pytest.raises(NotFound, match="has expired"):
        snapshot.citations([passing])
    vault.close()


def test_what_was_dropped_or_never_was_is_not_current(vault: Vault) -> None:
    made = derive(vault, tell(vault, "one"))
    vault.remove([made])
    assert why(vault, made) == "it was dropped"
    assert why(vault, "6f0d5f0e-58a5-5c39-9d3e-0f2a7c1b6d11") == "it was erased, or never was in this vault"
    with vault.snapshot() as snapshot:
        with pytest.raises(NotFound, match="was deleted"):
            snapshot.citations([made])
        with pytest.raises(NotFound, match="is not in this vault"):
            snapshot.citations(["6f0d5f0e-58a5-5c39-9d3e-0f2a7c1b6d11"])


def test_cubes_of_one_kind(vault: Vault) -> None:
    source = tell(vault, "text")
    kept, gone = derive(vault, source), derive(vault, source)
    vault.remove([gone])
    with vault.snapshot() as snapshot:
        space = snapshot.space_of("ana")
        assert space is not None
        assert [cube.id for cube in snapshot.live_of_kind(space, Kind.activation)] == [kept]
        assert [cube.id for cube in snapshot.live_of_kind(space, Kind.plaintext)] == [source]
