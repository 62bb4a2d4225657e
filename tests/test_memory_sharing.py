"""One vault, several threads and processes: each sees what the others told, and nothing is told twice."""

from __future__ import annotations

import multiprocessing
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import mnemic

SPAWN = multiprocessing.get_context("spawn")


def tell(place: str, worker: int, ready: Any, go: Any, told: Any) -> None:
    """In another process: the same hundred messages with ids as everybody, and ten of its own."""
    with mnemic.open(place) as memory:
        ready.put(worker)
        go.wait()
        stored = 0
        for start in range(0, 100, 10):
            messages = [{"content": f"message {n}", "id": str(n)} for n in range(start, start + 10)]
            added = memory.add(messages, user="ana", session="shared")
            stored += len(added) - len(added.existing)
            memory.add(f"note {start} of {worker}", user="ana", session=f"own {worker}")
        told.put((worker, stored, memory.count(user="ana", session=f"own {worker}")))


def test_processes_that_tell_the_same_ids_at_once_store_each_once(database: str) -> None:
    with mnemic.open(database) as memory:
        ready, told, go = SPAWN.Queue(), SPAWN.Queue(), SPAWN.Event()
        workers = [SPAWN.Process(target=tell, args=(database, n, ready, go, told)) for n in range(3)]
        for worker in workers:
            worker.start()
        for _ in workers:
            ready.get(timeout=60)
        go.set()
        results = [told.get(timeout=60) for _ in workers]
        for worker in workers:
            worker.join(timeout=60)
            assert worker.exitcode == 0
        assert sum(stored for _, stored, _ in results) == 100
        assert [own for _, _, own in results] == [10] * 3
        shared = memory.list(user="ana", session="shared", limit=1000)
        assert Counter(cube.text for cube in shared) == Counter(f"message {n}" for n in range(100))
        assert memory.count(user="ana") == 130
        assert len({cube.header.recorded_at for cube in memory.list(user="ana", limit=1000)}) == 130


def test_another_open_memory_sees_each_add_and_each_change_at_once(database: str) -> None:
    with mnemic.open(database) as one, mnemic.open(database) as other:
        (cube,) = one.add("Rosa plays the cello.", user="ana")
        assert other.search("cello", user="ana")[0].cube == cube
        other.update(cube.id, "Rosa plays the oboe.")
        assert one.search("oboe", user="ana")[0].text == "Rosa plays the oboe."
        one.delete(cube.id)
        assert other.search("oboe", user="ana") == []
        assert other.count(user="ana") == 0


def test_threads_of_one_memory_read_their_own_writes(database: str) -> None:
    with mnemic.open(database) as memory:

        def work(number: int) -> None:
            for turn in range(10):
                text = f"turn {turn} of thread {number}"
                (cube,) = memory.add(text, user=f"user {number % 2}", session=str(number))
                mine = memory.list(user=f"user {number % 2}", session=str(number))
                assert [one.text for one in mine] == [f"turn {n} of thread {number}" for n in range(turn + 1)]
                assert memory.search(text, user=f"user {number % 2}", session=str(number), k=1)
                if turn % 3 == 0:
                    memory.update(cube.id, text)
                    memory.delete(where={"role": "user"}, user="nobody")

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(work, range(8)))
        assert memory.count(everyone=True) == 80


def test_a_memory_that_is_closed_under_a_reader_gives_the_typed_error(database: str) -> None:
    memory = mnemic.open(database)
    memory.add(["a", "b"], user="ana")
    seen: list[BaseException] = []

    def read() -> None:
        try:
            while True:
                memory.search("a", user="ana")
                memory.add("c", user="ana")
        except BaseException as error:  # noqa: BLE001  looked at below
            seen.append(error)

    threads = [threading.Thread(target=read) for _ in range(3)]
    for thread in threads:
        thread.start()
    memory.close()
    for thread in threads:
        thread.join(timeout=30)
    assert [type(error).__name__ for error in seen] == ["VaultClosed"] * 3
    with mnemic.open(database) as again:
        assert again.count(user="ana") >= 2


def test_ten_thousand_messages_in_one_add(tmp_path: Path) -> None:
    messages = [{"content": f"message {n}", "id": str(n)} for n in range(10_000)]
    with mnemic.open(tmp_path / "a.db") as memory:
        added = memory.add(messages, user="ana")
        assert [cube.text for cube in added] == [message["content"] for message in messages]
        assert memory.count(user="ana") == 10_000
        assert memory.add(messages, user="ana").change_id is None
        assert len(memory.search("message 7777", user="ana", k=10)) == 10


def test_open_memories_share_one_embedder(tmp_path: Path) -> None:
    memories = [mnemic.open(tmp_path / f"{number}.db") for number in range(3)]
    assert len({id(memory._parts.maker.embedder) for memory in memories}) == 1
    for memory in memories:
        memory.close()
