"""Writers that meet: what one of them decides by is still true when it writes."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from vaults import ANA, live, log, rows, say, tell, texts, told

from mnemic.cube.errors import NotFound
from mnemic.cube.model import Scope
from mnemic.vault.vault import open_vault


def together(count: int, act: Callable[[int], Any]) -> list[Any]:
    """What `count` threads got or raised, having begun at the same moment."""
    start = threading.Barrier(count)

    def run(number: int) -> Any:
        start.wait()
        try:
            return act(number)
        except Exception as error:  # noqa: BLE001 the test looks at it
            return error

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(run, range(count)))


def errors(results: list[Any]) -> list[Exception]:
    return [result for result in results if isinstance(result, Exception)]


def test_a_new_database_is_made_once(database: str) -> None:
    opened = together(4, lambda _: open_vault(database))
    assert not errors(opened)
    keys = {vault._key for vault in opened}
    assert len(keys) == 1
    added = together(4, lambda i: tell(opened[i], Scope("default", "new"), str(i)))
    assert not errors(added)
    assert sorted(texts(opened[0], Scope("default", "new"))) == ["0", "1", "2", "3"]
    for vault in opened:
        vault.close()


def test_new_users_tenants_scopes_and_models_are_made_once(database: str) -> None:
    open_vault(database).close()
    vaults = together(4, lambda _: open_vault(database, tenant="t"))
    assert not errors(vaults)
    for n in range(5):
        scope = Scope("t", f"user {n}", None, "s")
        assert not errors(together(4, lambda i, scope=scope: tell(vaults[i], scope, str(i))))
        models = together(4, lambda i, n=n: vaults[i].add_model(f"model {n}", 3))
        assert not errors(models)
        assert len({model.number for model in models}) == 1
    with vaults[0].snapshot() as snapshot:
        assert sorted(space.user for space in snapshot.spaces()) == [f"user {n}" for n in range(5)]
        assert [model.number for model in snapshot.models()] == [1, 2, 3, 4, 5]
        for space in snapshot.spaces():
            assert len(snapshot.scopes(space.space)) == 1
    for vault in vaults:
        vault.close()


def test_one_id_told_by_several_at_once_is_stored_once(database: str) -> None:
    vaults = [open_vault(database) for _ in range(4)]
    tell(vaults[0], ANA, "before")
    for n in range(10):
        results = together(4, lambda i, n=n: vaults[i].append(ANA, [say(f"a {n}", client_id=str(n))]))
        assert not errors(results)
        assert len({told(result)[0] for result in results}) == 1
    assert len(live(vaults[0], ANA)) == 11
    for vault in vaults:
        vault.close()


def test_one_history_told_by_several_at_once_is_stored_once(database: str) -> None:
    vaults = [open_vault(database) for _ in range(4)]
    tell(vaults[0], ANA, "before")
    for n in range(10):
        scope = ANA._replace(session=str(n))
        results = together(4, lambda i, scope=scope: vaults[i].append(scope, [say("a"), say("b")]))
        assert not errors(results)
        assert texts(vaults[0], scope) == ["a", "b"]
    for vault in vaults:
        vault.close()


def test_versions_made_at_once_follow_one_another(database: str) -> None:
    vaults = [open_vault(database) for _ in range(4)]
    cube = tell(vaults[0], ANA, "first")[0]
    results = together(4, lambda i: [vaults[i].revise(cube, {"payload": b"%d" % i}) for _ in range(5)])
    assert not errors(results)
    chain = rows(vaults[0], "SELECT version, parent FROM version ORDER BY seq")
    versions = [bytes(version) for version, _ in chain]
    assert [parent and bytes(parent) for _, parent in chain] == [None, *versions[:-1]]
    assert log(vaults[0], ANA) == list(range(1, 22))
    for vault in vaults:
        vault.close()


def test_an_update_never_brings_back_what_was_deleted_meanwhile(database: str) -> None:
    vaults = [open_vault(database) for _ in range(4)]
    for _ in range(10):
        cube = tell(vaults[0], ANA, "first")[0]

        def act(i: int, cube: str = cube) -> Any:
            return vaults[i].remove([cube]) if i < 2 else vaults[i].revise(cube, {"payload": b"x"})

        results = together(4, act)
        assert all(isinstance(error, NotFound) for error in errors(results))
        with vaults[0].snapshot() as snapshot:
            states = [version.deleted for version in snapshot.history(cube)]
        assert states.count(True) == 1
        assert states[-1], "nothing follows the tombstone"
    for vault in vaults:
        vault.close()


def test_who_has_seen_a_seq_sees_all_before_it(database: str) -> None:
    """The rule that indexes rest on, with readers that read all the time."""
    vault = open_vault(database)
    tell(vault, ANA, "0")
    stop = threading.Event()
    seen: list[list[int]] = []

    def read() -> None:
        while not stop.is_set():
            seen.append(log(vault, ANA))

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    results = together(3, lambda i: [tell(vault, ANA, f"{i}") for _ in range(30)])
    stop.set()
    for reader in readers:
        reader.join()
    assert not errors(results)
    assert all(seqs == list(range(1, len(seqs) + 1)) for seqs in seen)
    assert log(vault, ANA) == list(range(1, 92))
    vault.close()
