"""What README and the quickstart show is what happens."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
RUNS = [
    (page, number, code)
    for page in (
        "README.md",
        "docs/quickstart.md",
        "docs/history.md",
        "docs/facts.md",
        "docs/security.md",
        "docs/portable.md",
        "docs/governance.md",
    )
    for number, code in enumerate(re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), re.DOTALL))
]


def run(command: list[str], folder: Path) -> str:
    env = {**os.environ, "HOME": str(folder), "XDG_DATA_HOME": str(folder / "data"), "COLUMNS": "100"}
    env.pop("MNEMIC_VAULT", None)
    done = subprocess.run(
        command, cwd=folder, env=env, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(("page", "number", "code"), RUNS, ids=[f"{page}-{n}" for page, n, _ in RUNS])
def test_python(page: str, number: int, code: str, tmp_path: Path) -> None:
    out = run([sys.executable, "-W", "error", "-c", code], tmp_path)
    if (page, number) == ("README.md", 0):
        assert out.startswith("I moved to Porto in March. {'")
        assert "Mochi" in out.split("<mnemic-memory")[1]
    if (page, number) == ("docs/quickstart.md", 0):
        assert "Yes, to Porto, in April." in out
    if (page, number) == ("docs/governance.md", 0):
        assert "['Ran 10 km today.']\ncoach has no grant to write in user ana" in out
    if (page, number) == ("docs/governance.md", 1):
        rule = "keep 2 days then erase after 3 days"
        assert out == f"{[('expire', rule), ('erase', rule)]}\n1\n1\n"
    if (page, number) == ("docs/governance.md", 2):
        assert out == "I am [email], card [card].\n{'email': 1, 'card': 1}\n"
    if (page, number) == ("docs/governance.md", 3):
        assert out == "Refund to [card], please.\nRefund to 4111 1111 1111 1111, please.\n"
    if (page, number) == ("docs/quickstart.md", 2):
        assert "['The meeting is on Monday.', 'The meeting is on Tuesday.']\n0\n" in out
    if (page, number) == ("docs/history.md", 1):
        assert out == "['Ana is allergic to nuts and penicillin.']\nTrue\n"
    if (page, number) == ("docs/history.md", 0):
        assert "2 My flight is on 4 May. update rebooked" in out
    if page == "docs/facts.md":
        assert out.splitlines() == [
            "[('home', 'Porto')]",
            "I moved to Porto.",
            "I live in Lisbon. Porto",
            "I live in Lisbon.",
        ]


def test_first_commands(tmp_path: Path) -> None:
    text = (ROOT / "docs/quickstart.md").read_text()
    lines = [line for line in text.splitlines() if line.startswith(("mnemic add", "mnemic search"))]
    assert len(lines) == 2
    for line in lines:
        out = run([sys.executable, "-m", *shlex.split(line)], tmp_path)
    assert "I moved to Porto in March." in out


def test_the_sample_is_asked(tmp_path: Path) -> None:
    """What `make run` does without a terminal."""
    program = str(ROOT / "examples" / "ask_the_sample.py")
    out = run([sys.executable, program, "sample.db"], tmp_path)
    assert "62 messages stored" in out
    first = {block.split("\n")[0]: block.split("\n")[1] for block in out.split("\n? ")[1:]}
    assert "I live in Porto now" in first["Where does Ana live now?"]
    assert "The fourth of October now" in first["When is Marta's wedding?"]
    assert "0 messages stored, 62 were there already" in run([sys.executable, program, "sample.db"], tmp_path)
