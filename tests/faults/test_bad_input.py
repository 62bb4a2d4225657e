"""Bad input is a typed error that says what to do, and changes nothing.

`python tests/faults/test_bad_input.py` prints the table: input, error, message.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

import bad_files
import bad_input
import pytest
import test_places
from desk import TOLD, Case, Desk, desk

from mnemic.cube.errors import MnemicError

CASES = [*bad_input.CASES, *bad_files.CASES]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    """One for all: each case leaves it as it was."""
    with desk(tmp_path_factory.mktemp("desk")) as at:
        yield at


@pytest.fixture
def at(shared: Desk) -> Iterator[Desk]:
    before = shared.state()
    yield shared
    assert shared.state() == before
    assert [cube.text for cube in shared.memory.list(user="ana")] == list(TOLD)


@pytest.mark.parametrize("case", [pytest.param(case, id=f"{case.group}-{case.what}") for case in CASES])
def test_it_is_refused_and_nothing_changes(case: Case, at: Desk) -> None:
    before = at.state()
    with pytest.raises(MnemicError) as raised:
        case.attempt(at)
    assert type(raised.value) is case.error
    assert re.search(case.says, str(raised.value), re.DOTALL), str(raised.value)
    assert len(str(raised.value)) < 1000, "it can be read"
    assert at.state() == before


def refusals() -> Iterator[tuple[str, Exception | None, Path]]:
    """What each case raises, and what full and read-only disks do where they can be mounted."""
    for case in CASES:
        with tempfile.TemporaryDirectory() as folder, desk(Path(folder)) as at:
            try:
                case.attempt(at)
            except Exception as error:  # noqa: BLE001  whatever comes is shown
                yield f"{case.group}: {case.what}", error, at.folder
            else:
                yield f"{case.group}: {case.what}", None, at.folder
    if not test_places.pytestmark.args[0]:
        with tempfile.TemporaryDirectory() as folder:
            for what, error in test_places.refusals(Path(folder)):
                yield what, error, Path(folder)


def table() -> str:
    """All refusals as Markdown."""
    lines = ["| input | error | message |", "| --- | --- | --- |"]
    for what, error, folder in refusals():
        said = " ".join(str(error).split()).replace(f"{folder}/", "").replace(str(folder), "FOLDER")
        lines.append(f"| {what} | `{type(error).__name__}` | {said.replace('|', '/')} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(table())
