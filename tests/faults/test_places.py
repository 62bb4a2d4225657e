"""A disk that is full, a file or folder that may not be written: typed errors, and nothing is lost."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import mnemic
from language_models import needs_torch
from mnemic.cube.errors import VaultFull

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or os.geteuid() != 0 or shutil.which("mount") is None,
    reason="mounting a small or read-only disk needs root on Linux",
)


@contextmanager
def mounted(*options: str) -> Iterator[None]:
    done = subprocess.run(["mount", *options], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"cannot mount here: {done.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", options[-1]], check=True)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 4 MB."""
    (tmp_path / "disk").mkdir()
    with mounted("-t", "tmpfs", "-o", "size=4m", "tmpfs", str(tmp_path / "disk")):
        yield tmp_path / "disk"


def refusals(folder: Path) -> Iterator[tuple[str, Exception]]:
    """What a full and a read-only disk answer, for the table of `test_bad_input.py`."""
    with mounted("-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)):
        with mnemic.open(folder / "a.db") as memory:
            try:
                memory.add("It rained all day. " * 100_000, user="ana")
            except mnemic.MnemicError as error:
                yield "add: the disk is full", error
        subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)
        for name in ("a.db", "new.db"):
            try:
                with mnemic.open(folder / name) as memory:
                    memory.add("x", user="ana")
            except mnemic.MnemicError as error:
                yield f"add: {name} on a read-only disk", error


def texts(memory: mnemic.Memory) -> list[str]:
    return [cube.text for cube in memory.list(user="ana", limit=100_000)]


def test_a_full_disk_loses_nothing_and_the_memory_goes_on(disk: Path) -> None:
    ballast = disk / "ballast"
    ballast.write_bytes(b"x" * 1_000_000)
    told: list[str] = []
    with mnemic.open(disk / "a.db") as memory:
        with pytest.raises(VaultFull, match=r"disk is full.*acknowledged.*Free some space"):  # noqa: PT012
            for number in range(100_000):
                text = f"{number} " + "It rained all day. " * 90
                memory.add(text, user="ana")
                told.append(text)
        assert told
        assert texts(memory) == told, "it can be read while the disk is full"
        assert memory.search("rain", user="ana", k=3)
        export = disk.parent / "more.txt"
        export.write_text("Some more. " * 100_000)
        with pytest.raises(VaultFull):
            memory.load_file(export, user="bo")
        assert memory.count(user="bo") == 0
        ballast.unlink()
        memory.add("After.", user="ana")
        assert texts(memory) == [*told, "After."]
    with mnemic.open(disk / "a.db") as again:
        assert texts(again) == [*told, "After."]


def test_no_room_for_a_new_one(disk: Path) -> None:
    (disk / "ballast").write_bytes(b"x" * (4 << 20))
    with pytest.raises(VaultFull):
        mnemic.open(disk / "a.db")
    (disk / "ballast").unlink()
    with mnemic.open(disk / "a.db") as memory:
        memory.add("Now.", user="ana")


@needs_torch
def test_what_was_learned_stays_until_there_is_room_for_what_takes_its_place(disk: Path) -> None:
    from learners import STATEMENTS, learner

    from mnemic.parametric.keeping import listing
    from mnemic.parametric.nearest import Search
    from mnemic.transform.text_to_memory import Options

    options = Options(form="exact", search=Search(k=4, temperature=0.1))
    with mnemic.open(disk / "a.db") as memory:
        ids = [memory.add(text, user="ana")[0].id for text in STATEMENTS]
        old = memory.as_memory(ids, learner(), options=options)
        with (disk / "ballast").open("wb", buffering=0) as ballast:
            assert 0 < ballast.write(bytes(8 << 20)) < 4 << 20  # as much as there is room for
        with pytest.raises(VaultFull, match="free some space"):
            memory.retrain(old, learner())
        assert [one.cube.id for one in listing(memory._parts.vault)] == [old.id]
        with memory.mount(learner(), old) as mounted:
            mounted.answer("What is the code of Ida?", max_tokens=2)
        (disk / "ballast").unlink()
        made = memory.retrain(old, learner())
        assert [one.cube.id for one in listing(memory._parts.vault)] == [made.id]
        folder = memory._parts.vault.blobs.folder
        assert folder is not None
        assert len([one for one in folder.rglob("*") if one.is_file()]) == 1  # no half-written one


@pytest.mark.parametrize("name", ["a.db", "new.db"])
def test_a_disk_that_is_read_only(disk: Path, name: str) -> None:
    with mnemic.open(disk / "a.db") as memory:
        memory.add("Kept.", user="ana")
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    with pytest.raises(mnemic.MnemicError, match=r"must be writable.*Check the permissions"):
        mnemic.open(disk / name)
    subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)
    with mnemic.open(disk / "a.db") as memory:
        assert texts(memory) == ["Kept."]


TRY = """
import os, sys, tempfile
import mnemic
with tempfile.TemporaryDirectory() as warm:  # what is imported late is imported while it may be
    with mnemic.open(os.path.join(warm, "a.db")) as memory:
        memory.add("x", user="ana")
        memory.search("x", user="ana")
os.setgroups([]); os.setgid(65534); os.setuid(65534)
try:
    memory = mnemic.open(sys.argv[1])
    memory.add("More.", user="ana")
except mnemic.MnemicError as error:
    print(type(error).__name__, error)
"""


@pytest.mark.parametrize("what", ["file", "folder", "both", "new"])
def test_what_may_not_be_written(what: str) -> None:
    with tempfile.TemporaryDirectory(prefix="mnemic-shelf-") as shelf:  # open to all, unlike pytest's own
        folder, path = Path(shelf) / "folder", Path(shelf) / "folder" / "a.db"
        Path(shelf).chmod(0o755)
        folder.mkdir()
        if what != "new":
            with mnemic.open(path) as memory:
                memory.add("Kept.", user="ana")
            path.chmod(0o666 if what == "folder" else 0o444)
        folder.chmod(0o777 if what == "file" else 0o555)
        done = subprocess.run(
            [sys.executable, "-c", TRY, str(path)], capture_output=True, text=True, check=True
        )
        assert done.stdout.startswith("VaultReadOnly")
        assert f"{path}: the file and its folder must be writable" in done.stdout
        if what != "new":
            with mnemic.open(path) as memory:
                assert texts(memory) == ["Kept."]
