"""Kill a process that writes, at random moments, and see that nothing it acknowledged is lost.

    python tests/faults/kill.py --kills 200

prints one line: kills, acknowledged, lost, torn (batches stored in part), unreadable. The child writes single
messages and batches, and prints each one's name after it was acknowledged; the parent kills it, opens what it
left behind, and compares. A file lives through ten kills, so that damage would add up.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

from mnemic.cube.model import ANY, Scope
from mnemic.vault.codec import Draft
from mnemic.vault.vault import open_vault

SCOPE = Scope("default", "ana", None, "s")
LIVES = 10  # of one file


@dataclass
class Account:
    kills: int = 0
    acknowledged: int = 0
    batches: int = 0
    lost: list[str] = field(default_factory=list)
    torn: list[str] = field(default_factory=list)
    altered: list[str] = field(default_factory=list)
    unfound: list[str] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)

    @property
    def sound(self) -> bool:
        return not (self.lost or self.torn or self.altered or self.unfound or self.unreadable)

    def __str__(self) -> str:
        return (
            f"kills {self.kills}, acknowledged {self.acknowledged} ({self.batches} batches), "
            f"lost {len(self.lost)}, torn {len(self.torn)}, altered {len(self.altered)}, "
            f"not found by search {len(self.unfound)}, unreadable {len(self.unreadable)}"
        )


class VaultSide:
    """The vault alone."""

    def __init__(self, path: str) -> None:
        self.vault = open_vault(path)
        self._read: set[str] = set()

    def write(self, texts: list[str]) -> None:
        self.vault.append(SCOPE, [Draft(payload=text.encode()) for text in texts])

    def read(self) -> list[str]:
        with self.vault.snapshot() as snapshot:
            space = snapshot.space_of(SCOPE.user)
            if space is None:
                return []
            position = snapshot.position(space)
            cubes = [cube.text for _, cube in snapshot.live_after(space, 0, 10**7)]
            log = [row.seq for row in snapshot.since(space, 0, lexical=0, dense=None)]
        assert log == list(range(1, len(log) + 1)), "the log has a gap"
        assert position is not None
        assert position.seq == len(log) == len(cubes), "position, log and cubes disagree"
        self._read = set(cubes)
        return cubes

    def finds(self, text: str) -> bool:
        return text in self._read

    def close(self) -> None:
        self.vault.close()


class MemorySide:
    """The whole memory: what was acknowledged must also be found by search."""

    def __init__(self, path: str) -> None:
        import mnemic

        self.memory = mnemic.open(path)

    def write(self, texts: list[str]) -> None:
        messages = [{"role": "user", "content": text} for text in texts]
        self.memory.add(messages if len(texts) > 1 else texts[0], user=SCOPE.user, session=SCOPE.session)

    def read(self) -> list[str]:
        found: list[str] = []
        after = None
        while True:
            page = self.memory.list(user=SCOPE.user, session=ANY, limit=1000, after=after)
            for cube in page:
                if (place := cube.header.place) and place.part:  # a long text is kept in pieces
                    found[-1] = found[-1][: place.start] + cube.text
                else:
                    found.append(cube.text)
            after = page.next
            if after is None:
                return found

    def finds(self, text: str) -> bool:
        name = text.split(" ", 1)[0]
        hits = self.memory.search(name, user=SCOPE.user, k=10)
        return any(hit.text.startswith(f"{name} ") and text.startswith(hit.text) for hit in hits)

    def close(self) -> None:
        self.memory.close()


SIDES = {"vault": VaultSide, "memory": MemorySide}


def text_of(name: str) -> str:
    """A text that can be made again from its name: its start is a rare word, its length varies widely."""
    seed = hashlib.sha256(name.encode()).hexdigest()
    return f"{name} {seed} " + seed * (int(seed[:4], 16) % (400 if seed[0] == "0" else 12))


def write_until_killed(side: str, path: str, life: int) -> None:
    """The child: `life`-`number`-`position of size`, acknowledged as `life`-`number`-`size`."""
    writer = SIDES[side](path)
    os.write(1, b"ready\n")
    rng = random.Random(life)
    number = 0
    while True:
        size = 1 if rng.random() < 0.6 else rng.randrange(2, 30)
        writer.write([text_of(f"w{life}x{number}x{i}x{size}") for i in range(size)])
        os.write(1, b"%d %d %d\n" % (life, number, size))
        number += 1


def one_life(side: str, path: str, life: int, rng: random.Random) -> list[tuple[int, int, int]]:
    """What the child acknowledged before it was killed."""
    child = subprocess.Popen(
        [sys.executable, __file__, "--side", side, "--write", path, "--life", str(life)],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert child.stdout is not None
    first = b""
    if rng.random() < 0.9:  # else it may be killed while it opens
        assert child.stdout.readline() == b"ready\n", "the child could not open the vault"
        if rng.random() < 0.7:  # else it may be killed in its first write
            first = child.stdout.readline()
        time.sleep(rng.random() ** 2 * 0.3)
    else:
        time.sleep(rng.random() * 0.6)
    child.send_signal(signal.SIGKILL)
    lines = (first + child.stdout.read()).splitlines()
    child.stdout.close()
    assert child.wait() == -signal.SIGKILL, "the child ended by itself"
    return [tuple(map(int, line.split())) for line in lines if line != b"ready"]  # type: ignore[misc]


def check(
    side: str, path: str, acknowledged: list[tuple[int, int, int]], account: Account, searches: int
) -> None:
    """Open what was left behind, and compare all of it with all that was ever acknowledged."""
    try:
        reader = SIDES[side](path)
    except Exception as error:  # noqa: BLE001 the account names it
        account.unreadable.append(repr(error))
        return
    try:
        stored = reader.read()
        by_call: dict[tuple[int, int, int], set[int]] = defaultdict(set)
        for text in stored:
            name = text.split(" ", 1)[0]
            if text != text_of(name):
                account.altered.append(name)
                continue
            life, number, position, size = map(int, name[1:].split("x"))
            by_call[life, number, size].add(position)
        for call, positions in by_call.items():
            if positions != set(range(call[2])):
                account.torn.append(str(call))
        if len(stored) != sum(len(positions) for positions in by_call.values()):
            account.altered.append("something is stored twice")
        account.lost.extend(str(call) for call in acknowledged if call not in by_call)
        for life, number, size in acknowledged[-searches:] if searches else ():
            text = text_of(f"w{life}x{number}x{size - 1}x{size}")
            if not reader.finds(text):
                account.unfound.append(text[:40])
    except Exception as error:  # noqa: BLE001 the account names it
        account.unreadable.append(repr(error))
    finally:
        reader.close()


def run(
    kills: int, *, side: str = "vault", seed: int = 0, folder: str | None = None, searches: int = 3
) -> Account:
    """Kill a writer so many times, or until something is not sound."""
    rng = random.Random(seed)
    account = Account()
    while account.kills < kills and account.sound:
        acknowledged: list[tuple[int, int, int]] = []
        with tempfile.TemporaryDirectory(dir=folder) as home:
            path = str(Path(home) / "v.db")
            for life in range(min(LIVES, kills - account.kills)):
                acknowledged += one_life(side, path, life, rng)
                account.kills += 1
                if Path(path).exists():
                    check(side, path, acknowledged, account, searches)
                if not account.sound:
                    break
        account.acknowledged += sum(size for _, _, size in acknowledged)
        account.batches += sum(1 for _, _, size in acknowledged if size > 1)
    return account


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--side", choices=sorted(SIDES), default="vault")
    parser.add_argument("--folder", help="where the file is made; default: the temporary folder")
    parser.add_argument("--write", help=argparse.SUPPRESS)
    parser.add_argument("--life", type=int, default=0, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.write:
        write_until_killed(chosen.side, chosen.write, chosen.life)
    account = run(chosen.kills, side=chosen.side, seed=chosen.seed, folder=chosen.folder)
    print(f"{chosen.side}: {account}")
    for what in ("lost", "torn", "altered", "unfound", "unreadable"):
        for one in getattr(account, what)[:5]:
            print(f"  {what}: {one}")
    return 0 if account.sound else 1


if __name__ == "__main__":
    sys.exit(main())
