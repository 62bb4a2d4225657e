"""Commands as real processes: pipes that close, Ctrl-C, a kill half-way, terminals, strange bytes."""

from __future__ import annotations

import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path

import pytest
from terminal import lines, own_environment

import mnemic
from language_models import needs_torch, tiny_llama

Start = Callable[..., "subprocess.Popen[bytes]"]
POSIX = pytest.mark.skipif(os.name != "posix", reason="signals and pseudo-terminals are POSIX")
MANY = 6_000


@pytest.fixture
def long_file(tmp_path: Path) -> Path:
    """Messages enough for an import that takes a while."""
    said = [
        {"content": f"On day {day} I walked {day % 37} kilometres to the lake.", "session": f"s{day // 50}"}
        for day in range(MANY)
    ]
    return lines(tmp_path / "long.jsonl", *said)


def stored(path: Path) -> int:
    """How many cubes are committed, as another process sees it."""
    try:
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
            return int(connection.execute("SELECT count(*) FROM cube").fetchone()[0])
    except sqlite3.Error:
        return 0


def wait_for_some(path: Path, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 30
    while not stored(path):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.005)


@POSIX
def test_killed_half_way_an_import_goes_on_where_it_was(
    start: Start, long_file: Path, tmp_path: Path
) -> None:
    path = tmp_path / "killed.db"
    process = start("import", long_file, "--user", "ana", "--vault", path)
    wait_for_some(path, process)
    process.kill()
    process.communicate()
    there = stored(path)
    assert 0 < there < MANY
    again = start("import", long_file, "--user", "ana", "--vault", path, "--json")
    (report,) = json.loads(again.communicate()[0])
    assert (report["existing"], report["stored"]) == (there, MANY - there)
    with mnemic.open(path) as memory:
        assert memory.count(user="ana") == MANY


@POSIX
def test_ctrl_c_ends_an_import_in_one_line(start: Start, long_file: Path, tmp_path: Path) -> None:
    path = tmp_path / "stopped.db"
    process = start("import", long_file, "--user", "ana", "--vault", path)
    wait_for_some(path, process)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert err.decode().splitlines() == [
        "stopped. What was acknowledged is stored; run the same command again to go on."
    ]
    assert out == b""
    assert 0 < stored(path) < MANY


@POSIX
@pytest.mark.parametrize(
    "words", [["list", "-n", "5000"], ["list", "-n", "5000", "--json"], ["export-jsonl"]]
)
def test_a_reader_that_leaves_early_is_no_error(start: Start, tmp_path: Path, words: list[str]) -> None:
    path = tmp_path / "ana.db"
    with mnemic.open(path) as memory:
        memory.add([f"number {number}: {'x' * 200}" for number in range(2_000)], user="ana")
    process = start(*words, "--user", "ana", "--vault", path)
    assert process.stdout is not None
    assert process.stderr is not None
    assert process.stdout.read(10)
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait(timeout=30) in (0, 1, 141)


def test_bytes_that_are_not_utf8_are_refused_in_words(start: Start, tmp_path: Path) -> None:
    process = start("add", "-", "--user", "ana", "--vault", tmp_path / "a.db", stdin=subprocess.PIPE)
    out, err = process.communicate(b"caf\xe9\n")
    assert (process.returncode, out) == (2, b"")
    assert "UTF-8" in err.decode()
    assert "Traceback" not in err.decode()


def test_output_is_utf8_whatever_the_locale(start: Start, tmp_path: Path) -> None:
    poor = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": "ascii"}
    where = ("--user", "ana", "--vault", tmp_path / "a.db")
    first = start("add", "-", *where, env=poor, stdin=subprocess.PIPE)
    first.communicate("Olá, é o João 🎈\n".encode())
    assert first.returncode == 0
    process = start("export-jsonl", *where, env=poor)
    out, err = process.communicate()
    assert (process.returncode, err) == (0, b"")
    assert json.loads(out.decode("utf-8"))["content"] == "Olá, é o João 🎈"


def test_help_loads_nothing_heavy(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom mnemic.cli import main\nsys.argv = ['mnemic', '--help']\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "heavy = {'numpy', 'sqlalchemy', 'torch', 'tokenizers'} & set(sys.modules)\n"
        "print('loaded:', sorted(heavy))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=own_environment(tmp_path),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.endswith("loaded: []\n")


def _read(terminal: int) -> bytes:
    """What is shown next; nothing when the other side is closed."""
    try:
        return os.read(terminal, 65536)
    except OSError:
        return b""


def on_a_terminal(
    folder: Path, typed: Sequence[bytes], *words: object, prompted: str = "» "
) -> tuple[int, str]:
    """Run a command on a pseudo-terminal, typing at each prompt; its exit code and all that was shown."""
    import pty

    mine, its = pty.openpty()
    settings = {**own_environment(folder), "TERM": "xterm"}
    command = [sys.executable, "-m", "mnemic", *(str(word) for word in words)]
    process = subprocess.Popen(command, env=settings, stdin=its, stdout=its, stderr=its, close_fds=True)
    os.close(its)
    shown, rest, seen = b"", list(typed), 0
    while part := _read(mine):
        shown += part
        prompt = shown.find(
            prompted.encode(), seen
        )  # a prompt may arrive in two parts, or with more behind it
        if rest and prompt >= 0:
            seen = prompt + 1
            os.write(mine, rest.pop(0))
    os.close(mine)
    return process.wait(timeout=30), shown.decode("utf-8", "replace")


@POSIX
def test_a_stored_escape_sequence_does_not_reach_the_terminal(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    with mnemic.open(path) as memory:
        (cube,) = memory.add("nasty \x1b]0;owned\x07 text \u202e backwards", user="ana")
    for words in (["list"], ["show", cube.id], ["search", "nasty text"], ["context", "nasty text"]):
        own = [] if words[0] == "show" else ["--user", "ana"]
        code, shown = on_a_terminal(tmp_path, [], *words, *own, "--vault", path)
        assert code == 0
        assert "\x1b]0;owned" not in shown
        assert "\u202e" not in shown
        assert "␛]0;owned␇" in re.sub(r"\x1b\[[0-9;]*m", "", shown)


@POSIX
@pytest.mark.parametrize("last", [b"/quit\n", b"\x04"], ids=["quit", "ctrl-d"])
def test_a_question_loop_on_a_terminal(tmp_path: Path, vault: Path, last: bytes) -> None:
    typed = [b"What is Tom allergic to?\n", last]
    code, shown = on_a_terminal(tmp_path, typed, "chat", "--user", "ana", "--vault", vault)
    assert code == 0
    assert "Ask something." in shown
    assert "I am allergic to walnuts." in shown
    assert "a model would see" in shown


@POSIX
@needs_torch
@pytest.mark.slow
def test_another_model_takes_a_learned_memory_over_only_when_the_answer_is_yes(tmp_path: Path) -> None:
    from learners import STATEMENTS, learner

    from mnemic.models.registry import load_model
    from mnemic.transform.text_to_memory import Options

    path = tmp_path / "a.db"
    for name, model in (("one", learner()), ("two", tiny_llama(seed=1))):
        model.model.save_pretrained(tmp_path / name)
        model.tokenizer.save_pretrained(tmp_path / name)
    with mnemic.open(path) as memory:
        ids = [memory.add(text, user="ana")[0].id for text in STATEMENTS]
        one = load_model(str(tmp_path / "one"))
        old = memory.as_memory(ids, one, options=Options(form="exact"))
    words = ("memory", "tune", old.id, "--model", tmp_path / "two", "--vault", path)
    for answer, left in ((b"n\n", "one"), (b"y\n", "two")):
        code, shown = on_a_terminal(tmp_path, [answer], *words, prompted="[y/N]: ")
        assert "would lose it" in shown
        assert (code == 0) is (left == "two")
        with mnemic.open(path) as memory:
            (kept,) = memory.list(user="ana", where={"kind": "parametric"})
            assert json.loads(kept.payload)["model"].endswith(left)


@POSIX
def test_what_takes_longer_shows_a_rate() -> None:
    code = (
        "import time\nfrom mnemic.cli.progress import Bar\n"
        "with Bar('importing', 'records') as bar:\n"
        "    for done in range(1, 16):\n        time.sleep(0.1); bar(done * 100, 1500)\n"
    )
    import pty

    mine, its = pty.openpty()
    process = subprocess.Popen([sys.executable, "-c", code], stderr=its, stdout=its, close_fds=True)
    os.close(its)
    shown = b""
    while part := _read(mine):
        shown += part
    assert process.wait() == 0
    assert b"importing" in shown
    assert re.search(rb"[1-9]\d\d records/s", shown)
    quiet = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert (quiet.stdout, quiet.stderr) == (b"", b"")
