"""AsyncMemory: the same verbs with the same signatures, awaited, side by side."""

from __future__ import annotations

import asyncio
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import mnemic
from mnemic.asynchronous import AsyncScopedMemory
from mnemic.cube.errors import InvalidText, VaultClosed
from mnemic.memory import ScopedMemory

PAIRS = [(mnemic.Memory, mnemic.AsyncMemory), (ScopedMemory, AsyncScopedMemory)]


@pytest.mark.parametrize(("sync", "awaited"), PAIRS)
def test_every_verb_is_there_with_the_same_signature(sync: type, awaited: type) -> None:
    verbs = {name for name, value in vars(sync).items() if inspect.isfunction(value) and name[0] != "_"}
    assert verbs - vars(awaited).keys() == set()
    for name in verbs - {"scope"}:
        ours, theirs = inspect.signature(getattr(sync, name)), inspect.signature(getattr(awaited, name))
        assert [*theirs.parameters.values()][1:] == [*ours.parameters.values()][1:], name
        assert getattr(awaited, name).__doc__ == getattr(sync, name).__doc__
        assert inspect.iscoroutinefunction(getattr(awaited, name)) == (name != "where")
    scope = (inspect.signature(getattr(one, "scope", sync.__init__)) for one in (sync, awaited))
    assert len({str([*one.parameters]) for one in scope}) == 1


def test_open_takes_what_mnemic_open_takes() -> None:
    assert inspect.signature(mnemic.AsyncMemory.open).parameters == inspect.signature(mnemic.open).parameters


def test_adds_and_searches_side_by_side(database: str) -> None:
    async def talk(memory: mnemic.AsyncMemory, number: int) -> None:
        for turn in range(5):
            await memory.add(
                f"Note {turn} of writer {number}.", user=f"user {number % 3}", session=str(number)
            )
            hits = await memory.search(f"note {turn} writer {number}", user=f"user {number % 3}", k=50)
            assert f"Note {turn} of writer {number}." in {hit.text for hit in hits}, "it reads its own writes"

    async def run() -> None:
        async with await mnemic.AsyncMemory.open(database) as memory:
            await asyncio.gather(*(talk(memory, number) for number in range(12)))
            assert await memory.count(everyone=True) == 60
            assert await memory.users() == ["user 0", "user 1", "user 2"]
            context = await memory.context("What did writer 4 note?", user="user 1")
            assert "writer 4" in context.text
        with pytest.raises(VaultClosed):
            await memory.add("x", user="ana")

    asyncio.run(run())


def test_the_loop_goes_on_while_a_verb_works(tmp_path: Path) -> None:
    async def run() -> int:
        async with await mnemic.AsyncMemory.open(tmp_path / "a.db") as memory:
            adding = asyncio.create_task(memory.add(["A sentence to be kept."] * 5000, user="ana"))
            turns = 0
            while not adding.done():
                await asyncio.sleep(0)
                turns += 1
            await adding
            return turns

    assert asyncio.run(run()) > 10


def test_errors_and_handles(tmp_path: Path) -> None:
    async def run() -> None:
        async with await mnemic.AsyncMemory.open(tmp_path / "a.db") as memory:
            with pytest.raises(InvalidText):
                await memory.add("", user="ana")
            ana = memory.scope(user="ana", session="s")
            (cube,) = await ana.add("Kept.")
            assert (await ana.list())[0] == cube == await memory.get(cube.id)
            assert (await ana.delete(where={"role": "user"}, dry_run=True)).count == 1
            assert await ana.count() == 1
            assert memory.where() == str(tmp_path / "a.db")
            assert repr(memory) == f"<async <mnemic.Memory {tmp_path / 'a.db'}>>"

    asyncio.run(run())


def test_what_was_cancelled_is_stored_whole_or_not_at_all(tmp_path: Path) -> None:
    async def run() -> None:
        async with await mnemic.AsyncMemory.open(tmp_path / "a.db") as memory:
            for number in range(20):
                adding = asyncio.create_task(memory.add(["one", "two"], user="ana", session=str(number)))
                await asyncio.sleep(0.0005 * number)
                adding.cancel()
            assert {session.count for session in await memory.sessions(user="ana")} <= {2}

    asyncio.run(run())
    with mnemic.open(tmp_path / "a.db") as memory:
        assert {session.count for session in memory.sessions(user="ana")} <= {2}


def test_a_type_checker_sees_the_arguments(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        "import mnemic\n"
        "async def main() -> None:\n"
        "    memory = await mnemic.AsyncMemory.open('a.db')\n"
        "    reveal_type(await memory.search('x', user='ana', k=3))\n"
        "    reveal_type(await memory.scope(user='ana').count())\n"
        "    await memory.add('x', usr='ana')\n"
        "    memory.search(3, user='ana')\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(tmp_path / "cache"), str(program)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert 'Revealed type is "mnemic.plaintext.recall.search.Hits"' in done.stdout
    assert 'Revealed type is "int"' in done.stdout or "builtins.int" in done.stdout
    assert 'Unexpected keyword argument "usr"' in done.stdout
    assert 'incompatible type "int"; expected "str"' in done.stdout
