"""Files into a memory: what goes in, what is reported, and what a second run does."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import mnemic
from mnemic.cube.errors import InvalidFile, InvalidOption
from mnemic.plaintext.ingest import store
from mnemic.plaintext.ingest.store import Imported

DATA = Path(__file__).parents[2] / "data"
EXPORTS: list[tuple[str, dict[str, Any], int, int]] = [  # file, options, cubes, sessions
    ("chatgpt.json", {}, 10, 3),
    ("claude.json", {}, 7, 2),
    ("messages.jsonl", {}, 4, 3),
    ("dialogues.json", {"sample": "talk-1"}, 3, 2),
    ("whatsapp_android.txt", {}, 6, 1),
    ("whatsapp_ios.txt", {}, 3, 1),
    ("notes", {}, 6, 1),
]


@pytest.fixture
def memory(database: str) -> Iterator[mnemic.Memory]:
    with mnemic.open(database) as opened:
        yield opened


def lines(path: Path, count: int, **broken: str) -> Path:
    """A JSONL file of so many notes; `broken` lines, by "line_<number>", are as given."""
    written = [json.dumps({"text": f"note {number}", "id": str(number)}) for number in range(1, count + 1)]
    for key, text in broken.items():
        written[int(key.removeprefix("line_")) - 1] = text
    path.write_text("\n".join(written))
    return path


def counts(account: Imported) -> tuple[int, int, int, int]:
    return account.read, account.stored, account.existing, len(account.skipped)


@pytest.mark.parametrize(("name", "options", "cubes", "sessions"), EXPORTS)
def test_each_export_goes_in_and_stays_in_once(
    memory: mnemic.Memory, name: str, options: dict[str, Any], cubes: int, sessions: int
) -> None:
    first = memory.load_file(DATA / name, user="ana", **options)
    assert counts(first) == (cubes, cubes, 0, 0)
    assert len(first.sessions) == sessions
    assert memory.count(user="ana") == cubes
    told = memory.list(user="ana")
    assert all(cube.client_id and cube.header.place and cube.header.place.source for cube in told)
    assert memory.search(told[0].text[:200], user="ana", k=1)
    again = memory.load_file(DATA / name, user="ana", **options)
    assert counts(again) == (cubes, 0, cubes, 0)
    assert again.notes == first.notes
    assert memory.list(user="ana") == told
    assert memory.load_file(DATA / name, user="bo", **options).stored == cubes


def test_one_broken_record_of_ten_thousand_is_reported_and_the_rest_goes_in(tmp_path: Path) -> None:
    memory = mnemic.open(tmp_path / "a.db")
    path = lines(tmp_path / "m.jsonl", 10_000, line_7000='{"text": "cut of', line_9000='{"text": " "}')
    seen: list[tuple[int, int]] = []
    account = memory.load_file(path, user="ana", progress=lambda *at: seen.append(at))
    assert counts(account) == (10_000, 9_998, 0, 2)
    assert [one.where for one in account.skipped] == ["m.jsonl:7000", "m.jsonl:9000"]
    assert "not valid JSON" in account.skipped[0].reason
    assert "empty" in account.skipped[1].reason
    assert memory.count(user="ana") == 9_998
    assert seen[-1][0] == 10_000
    path = lines(path, 10_000, line_9000='{"text": "mended", "id": "9000"}')
    assert counts(memory.load_file(path, user="ana")) == (10_000, 2, 9_998, 0)


def test_a_deleted_record_stays_deleted_and_is_reported(memory: mnemic.Memory, tmp_path: Path) -> None:
    path = lines(tmp_path / "m.jsonl", 3)
    memory.load_file(path, user="ana")
    memory.delete(memory.list(user="ana")[1].id)
    account = memory.load_file(path, user="ana")
    assert counts(account) == (3, 0, 2, 1)
    (reported,) = account.skipped
    assert (reported.where, reported.id) == ("m.jsonl:2", "2")
    assert "deleted" in reported.reason
    assert memory.count(user="ana") == 2


def test_a_record_that_says_something_else_now_is_reported_and_the_rest_goes_in(
    memory: mnemic.Memory, tmp_path: Path
) -> None:
    memory.load_file(lines(tmp_path / "m.jsonl", 3), user="ana")
    changed = lines(tmp_path / "m.jsonl", 5, line_2='{"text": "another", "id": "2"}')
    account = memory.load_file(changed, user="ana")
    assert counts(account) == (5, 2, 2, 1)
    assert (account.skipped[0].where, account.skipped[0].id) == ("m.jsonl:2", "2")
    assert memory.count(user="ana") == 5


def test_an_import_that_was_stopped_is_repeated(
    memory: mnemic.Memory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "IMPORT_BATCH", 10)
    path = lines(tmp_path / "m.jsonl", 100)

    def stop(done: int, _: int) -> None:
        if done == 40:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        memory.load_file(path, user="ana", progress=stop)
    assert memory.count(user="ana") == 40
    assert counts(memory.load_file(path, user="ana")) == (100, 60, 40, 0)
    assert [cube.text for cube in memory.list(user="ana")] == [f"note {n}" for n in range(1, 101)]


def test_what_was_left_out_on_purpose_is_counted(memory: mnemic.Memory) -> None:
    account = memory.load_file(DATA / "whatsapp_android.txt", user="ana")
    assert "left out: 2 × system lines" in account.notes


def test_the_records_session_wins_over_the_imports(memory: mnemic.Memory) -> None:
    account = memory.load_file(DATA / "messages.jsonl", user="ana", agent="coach", session="default")
    assert account.sessions == {"s1", "s2", "default"}
    assert memory.count(agent="coach", session="default") == 1


def test_a_long_note_is_cut_and_every_piece_knows_its_place(memory: mnemic.Memory, tmp_path: Path) -> None:
    text = "\n\n".join(f"## Day {day}\n\n{'It rained, and we stayed in. ' * 40}" for day in range(20))
    (tmp_path / "log.md").write_text(text)
    memory.load_file(tmp_path / "log.md", user="ana")
    pieces = memory.list(user="ana", limit=1000)
    assert len(pieces) > 10
    assert "".join(piece.text for piece in pieces) == text
    for piece in pieces:
        place = piece.header.place
        assert place is not None
        assert text[place.start : place.end] == piece.text
        assert (place.source, place.total) == ("log.md", len(text))


def test_a_file_that_is_no_export_stores_nothing(memory: mnemic.Memory, tmp_path: Path) -> None:
    (tmp_path / "bad.jsonl").write_text("\n".join(["not json"] * 1000))
    with pytest.raises(InvalidFile, match=r"first of 1,000 records, bad.jsonl:1"):
        memory.load_file(tmp_path / "bad.jsonl", user="ana")
    with pytest.raises(InvalidOption, match="sample"):
        memory.load_file(DATA / "claude.json", user="ana", sample=1)
    assert memory.count(everyone=True) == 0


HUNGRY = """
import resource, sys
from mnemic.plaintext.ingest.files import read
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
count = sum(1 for _ in read(sys.argv[1], format=sys.argv[2]))
print(count, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in kilobytes on Linux")
@pytest.mark.parametrize(("format", "start", "end"), [("jsonl", "", ""), ("chatgpt", "[", "]")])
def test_memory_does_not_grow_with_the_file(tmp_path: Path, format: str, start: str, end: str) -> None:
    words = "a long message of some hundred words " * 50
    message = {"id": "m", "author": {"role": "user"}, "content": {"content_type": "text", "parts": [words]}}
    mapping = {"n": {"id": "n", "message": message, "parent": None}}
    record = json.dumps({"text": words} if format == "jsonl" else {"mapping": mapping, "id": "c"})
    count = 60_000_000 // len(record)
    with (tmp_path / "big.json").open("w") as file:
        file.write(start + (",\n" if start else "\n").join([record] * count) + end)
    done = subprocess.run(
        [sys.executable, "-c", HUNGRY, str(tmp_path / "big.json"), format],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    read, kilobytes = map(int, done.stdout.split())
    assert read == count
    assert kilobytes < 25_000, f"60 MB took {kilobytes:,} KB"
