"""SQLite on real files: what is acknowledged is on the disk, and what goes wrong has a name."""

from __future__ import annotations

import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import textwrap
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from vaults import ANA, say, tell, texts

from mnemic.cube.errors import NetworkFileSystem, NotAVault, VaultBusy, VaultError, VaultFull
from mnemic.vault import sqlite
from mnemic.vault.sqlite import SQLite, file_system
from mnemic.vault.vault import open_vault

SOURCE = Path(__file__).parents[2] / "src"
is_root = hasattr(os, "geteuid") and os.geteuid() == 0


def program(
    code: str, *arguments: object, before: tuple[str, ...] = (), **options: object
) -> subprocess.Popen[str]:
    """A process of its own that runs this code."""
    text = "import sys\nfrom mnemic.vault.vault import open_vault\nfrom mnemic.vault.codec import Draft\n"
    text += "from mnemic.cube.model import Scope\nANA = Scope('default', 'ana')\n" + textwrap.dedent(code)
    return subprocess.Popen(
        [*before, sys.executable, "-c", text, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(SOURCE)},
        **options,  # type: ignore[call-overload]
    )


def said_by(process: subprocess.Popen[str]) -> str:
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    return out


# --- durability


def test_every_connection_is_durable(tmp_path: Path) -> None:
    vault = open_vault(tmp_path / "v.db")
    tell(vault, ANA, "a")
    database = vault.database.driven
    assert isinstance(database, SQLite)
    for pool in (database._readers, database._writers):
        with pool.connection() as one, pool.connection() as two, pool.connection() as three:
            for connection in (one, two, three):
                for pragma, wanted in {
                    "synchronous": 2,
                    "journal_mode": "wal",
                    "busy_timeout": 30_000,
                    "secure_delete": 1,
                    "temp_store": 2,
                }.items():
                    assert connection.execute(f"PRAGMA {pragma}").fetchone()[0] == wanted
    assert connection.execute("PRAGMA application_id").fetchone()[0] == sqlite.APPLICATION_ID
    vault.close()


def test_each_acknowledgement_comes_after_a_sync(tmp_path: Path) -> None:
    """As the kernel sees it: what was written to the log was synced before the next acknowledgement."""
    if shutil.which("strace") is None:
        pytest.skip("strace is not here: apt-get install strace")
    trace = tmp_path / "trace"
    strace = ("strace", "-f", "-y", "-s", "40", "-o", str(trace))
    calls = ("-e", "trace=write,pwrite64,pwritev,fsync,fdatasync")
    tries = subprocess.run([*strace, "true"], capture_output=True, text=True, check=False)
    if tries.returncode:
        pytest.skip(f"processes cannot be traced here: {tries.stderr.strip()}")
    code = """
        import os
        vault = open_vault(sys.argv[1])
        for i in range(20):
            drafts = [Draft(payload=b"%d" % i * 3000)] * (1 + i % 3)
            vault.append(ANA, drafts)
            os.write(1, b"acknowledged %d\\n" % i)
        """
    out = said_by(program(code, tmp_path / "v.db", before=(*strace, *calls)))
    assert out.count("acknowledged") == 20
    waiting = written = synced = acknowledged = 0
    for line in trace.read_text().splitlines():
        if re.search(r"(pwrite64|pwritev|write)\(\d+<[^>]*v\.db-wal>", line):
            waiting, written = 1, written + 1
        elif re.search(r"(fsync|fdatasync)\(\d+<[^>]*v\.db-wal>", line):
            waiting, synced = 0, synced + 1
        elif "acknowledged" in line:
            acknowledged += 1
            assert not waiting, f"acknowledged before the log was synced: {line}"
            assert written, "each acknowledgement stands for a write of its own"
            assert synced
            written = synced = 0
    assert acknowledged == 20


def test_closing_leaves_one_file(tmp_path: Path) -> None:
    vault = open_vault(tmp_path / "v.db")
    tell(vault, ANA, "a")
    vault.close()
    assert [path.name for path in tmp_path.iterdir()] == ["v.db"]


def test_a_process_that_just_ends_loses_nothing(tmp_path: Path) -> None:
    code = "import os\nopen_vault(sys.argv[1]).append(ANA, [Draft(payload=b'a')])\nos._exit(0)"
    said_by(program(code, tmp_path / "v.db"))
    vault = open_vault(tmp_path / "v.db")
    assert texts(vault, ANA) == ["a"]
    vault.close()


# --- network file systems

HOME = "22 1 0:20 / / rw - ext4 /dev/sda1 rw"


@pytest.mark.parametrize(
    ("mounts", "kind"),
    [
        (HOME, "ext4"),
        (f"{HOME}\n30 22 0:30 / FOLDER rw - nfs4 server:/home rw", "nfs4"),
        (f"30 22 0:30 / FOLDER rw shared:1 master:2 - nfs server:/home rw\n{HOME}", "nfs"),
        (
            f"{HOME}\n30 22 0:30 / FOLDER rw - nfs4 s:/ rw\n31 30 0:31 / FOLDER/here rw - xfs /dev/sdb rw",
            "xfs",
        ),
        (
            f"{HOME}\n30 22 0:30 / FOLDER rw - xfs /dev/sdb rw\n31 30 0:31 / FOLDER/here rw - cifs //s/x rw",
            "cifs",
        ),
        (
            f"{HOME}\n30 22 0:30 / FOLDER rw - nfs4 s:/ rw\n31 30 0:31 / FOLDER/her rw - xfs /dev/sdb rw",
            "nfs4",
        ),
        (
            f"{HOME}\n30 22 0:30 / FOLDER/here rw - nfs s:/ rw\n31 30 0:31 / FOLDER/here rw - ext4 /dev/x rw",
            "ext4",
        ),
        (f"{HOME}\n30 22 0:30 / FOLDER rw - fuse.sshfs ana@host: rw", "fuse.sshfs"),
        ("", ""),
        (f"\n{HOME}\n\n", "ext4"),
    ],
)
def test_the_file_system_of_a_folder(tmp_path: Path, mounts: str, kind: str) -> None:
    folder = tmp_path / "here"
    folder.mkdir()
    assert file_system(folder, mounts.replace("FOLDER", str(tmp_path))) == kind


def test_a_folder_with_a_space_in_its_name(tmp_path: Path) -> None:
    folder = tmp_path / "my files\\and\tmore"
    folder.mkdir()
    point = str(folder).replace("\\", "\\134").replace(" ", "\\040").replace("\t", "\\011")
    assert file_system(folder, f"{HOME}\n30 22 0:30 / {point} rw - nfs s:/ rw") == "nfs"


def test_a_network_file_system_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    remote = tmp_path / "remote"
    remote.mkdir()
    (tmp_path / "link.db").symlink_to(remote / "v.db")
    mounts = f"{HOME}\n30 22 0:30 / {remote} rw - nfs4 server:/home rw"
    monkeypatch.setattr(sqlite, "file_system", lambda folder: file_system(folder, mounts))
    for path in (remote / "v.db", tmp_path / "link.db"):
        with pytest.raises(NetworkFileSystem, match="postgresql://"):
            open_vault(path)
    assert not list(remote.iterdir())
    open_vault(tmp_path / "v.db").close()


# --- what goes wrong


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(VaultError, match="does not exist"):
        open_vault(tmp_path / "none" / "v.db")
    with pytest.raises(NotAVault, match="is a folder"):
        open_vault(tmp_path)
    (tmp_path / "file").write_text("x")
    with pytest.raises(VaultError):
        open_vault(tmp_path / "file" / "v.db")


def test_a_writer_that_waits_too_long_is_told_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite, "BUSY_TIMEOUT_S", 0.2)
    monkeypatch.setattr(SQLite, "_connect", _impatient(SQLite._connect))
    vault = open_vault(tmp_path / "v.db")
    tell(vault, ANA, "a")
    stuck = sqlite3.connect(tmp_path / "v.db", isolation_level=None)
    stuck.execute("BEGIN IMMEDIATE")
    with pytest.raises(VaultBusy):
        tell(vault, ANA, "b")
    assert texts(vault, ANA) == ["a"], "readers do not wait"
    stuck.execute("ROLLBACK")
    stuck.close()
    tell(vault, ANA, "c")
    assert texts(vault, ANA) == ["a", "c"]
    vault.close()


def _impatient(connect):
    def connected(self: SQLite) -> sqlite3.Connection:
        connection = connect(self)
        connection.execute("PRAGMA busy_timeout = 200")
        return connection

    return connected


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    if not is_root or shutil.which("mount") is None:
        pytest.skip("mounting a small disk needs root")
    disk = tmp_path / "disk"
    disk.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(disk)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        pytest.skip(f"cannot mount a small disk here: {done.stderr.strip()}")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.parametrize("size", [100, 40_000])
def test_a_full_disk_loses_nothing_and_the_vault_goes_on(small_disk: Path, size: int) -> None:
    ballast = small_disk / "ballast"
    ballast.write_bytes(b"x" * 700_000)
    vault = open_vault(small_disk / "v.db")
    acknowledged: list[str] = []
    with pytest.raises(VaultFull):  # noqa: PT012 as much as fits
        for i in range(100_000):
            text = f"{i} " + "y" * size
            vault.append(ANA, [say(text)])
            acknowledged.append(text)
    with pytest.raises(VaultFull):  # noqa: PT012 and what still fits
        for _ in range(1000):
            vault.append(ANA, [say("z" * size)])
            acknowledged.append("z" * size)
    assert acknowledged
    other = open_vault(small_disk / "v.db")
    assert texts(other, ANA) == texts(vault, ANA) == acknowledged
    ballast.unlink()
    tell(vault, ANA, "after")
    tell(other, ANA, "and after")
    assert texts(vault, ANA) == [*acknowledged, "after", "and after"]
    vault.close()
    other.close()
    again = open_vault(small_disk / "v.db")
    assert texts(again, ANA) == [*acknowledged, "after", "and after"]
    again.close()


def test_a_disk_with_no_room_at_all(small_disk: Path) -> None:
    (small_disk / "ballast").write_bytes(b"x" * (2 << 20))
    with pytest.raises(VaultFull):
        open_vault(small_disk / "v.db")
    (small_disk / "ballast").unlink()
    vault = open_vault(small_disk / "v.db")
    tell(vault, ANA, "a")
    vault.close()


TRY = """
    import os, tempfile
    from mnemic.cube.errors import VaultReadOnly
    with tempfile.TemporaryDirectory() as warm:  # everything is imported while it still may be
        vault = open_vault(os.path.join(warm, "v.db"))
        vault.append(ANA, [Draft(payload=b"b")])
        vault.close()
    if os.geteuid() == 0:
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
    try:
        vault = open_vault(sys.argv[1])
        with vault.snapshot() as snapshot:
            print(len(snapshot.live_after(1, 0, 10)))
        vault.append(ANA, [Draft(payload=b"b")])
    except VaultReadOnly as error:
        print("read only:", error)
    """


@pytest.fixture
def shelf() -> Iterator[Path]:
    """A folder that any user may enter, unlike pytest's own."""
    made = Path(tempfile.mkdtemp(prefix="mnemic-shelf-"))
    made.chmod(0o755)
    yield made
    shutil.rmtree(made)


@pytest.mark.parametrize("how", ["file", "folder", "both", "new"])
def test_what_may_not_be_written_says_so(shelf: Path, how: str) -> None:
    folder = shelf / "folder"
    folder.mkdir()
    folder.chmod(0o777)
    path = folder / "v.db"
    if how != "new":
        vault = open_vault(path)
        tell(vault, ANA, "a")
        vault.close()
        path.chmod(0o666 if how == "folder" else 0o444)
    if how != "file":
        folder.chmod(0o555)
    out = said_by(program(TRY, path))
    folder.chmod(0o777)
    assert "read only:" in out
    assert str(path) in out
    if how != "new":
        path.chmod(0o666)
        vault = open_vault(path)
        assert texts(vault, ANA) == ["a"]
        vault.close()


# --- a connection that broke is not used again


def test_an_interrupted_write_leaves_no_open_transaction(tmp_path: Path) -> None:
    vault = open_vault(tmp_path / "v.db")
    tell(vault, ANA, "a")
    for error in (KeyboardInterrupt, SystemExit, ValueError):
        with pytest.raises(error), vault.database.write() as transaction:  # noqa: PT012
            transaction.script("DELETE FROM version")
            raise error
    with pytest.raises(KeyboardInterrupt), vault.snapshot():
        raise KeyboardInterrupt
    tell(vault, ANA, "b")
    assert texts(vault, ANA) == ["a", "b"]
    vault.close()


def test_interrupts_at_any_moment_leave_the_vault_whole(tmp_path: Path) -> None:
    """Ctrl-C again and again, while it writes."""
    vault = open_vault(tmp_path / "v.db")
    acknowledged: list[str] = []
    stop = threading.Event()

    def interrupt() -> None:
        while not stop.wait(0.003):
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    caught = 0
    thread.start()
    try:
        while caught < 100:
            try:
                text = str(len(acknowledged))
                vault.append(ANA, [say(text)])
                acknowledged.append(text)
            except KeyboardInterrupt:
                caught += 1
    finally:
        while True:
            try:
                stop.set()
                thread.join()
                break
            except KeyboardInterrupt:
                pass
    tell(vault, ANA, "last")
    found = texts(vault, ANA)
    assert found[-1] == "last"
    assert [text for i, text in enumerate(found[:-1]) if i == 0 or text != found[i - 1]] == sorted(
        set(found[:-1]), key=int
    )
    assert set(acknowledged) <= set(found)
    vault.close()
