"""Broken files: one broken record costs that record, a broken whole says what was expected."""

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mnemic.cube.errors import InvalidFile, MnemicError
from mnemic.plaintext.ingest.files import FORMATS, Reading, read
from mnemic.plaintext.ingest.told import Skipped, Told

DATA = Path(__file__).parents[2] / "data"
MANY = 10_000


def split(reading: Reading) -> tuple[list[Told], list[Skipped]]:
    records = list(reading)
    return [r for r in records if isinstance(r, Told)], [r for r in records if isinstance(r, Skipped)]


def chatgpt(number: int) -> dict[str, Any]:
    message = {"id": f"m{number}", "author": {"role": "user"}, "create_time": 1.7e9 + number,
               "content": {"content_type": "text", "parts": [f'Note {number}, "quoted" {{x}}']}}  # fmt: skip
    nodes = {
        "r": {"id": "r", "message": None, "parent": None},
        "n": {"id": "n", "message": message, "parent": "r"},
    }
    return {"title": f"T{number}", "mapping": nodes, "current_node": "n", "id": f"c{number}"}


def claude(number: int) -> dict[str, Any]:
    messages = [{"uuid": f"m{number}{x}", "sender": "human", "text": f"Note {number} {x}"} for x in "ab"]
    return {"uuid": f"c{number}", "name": "", "created_at": "2025-01-01T00:00:00Z", "chat_messages": messages}


CONVERSATIONS: list[tuple[Callable[[int], dict[str, Any]], int]] = [(chatgpt, 1), (claude, 2)]
BREAKS: list[Callable[[str], str]] = [
    lambda _: "null",
    lambda _: "17",
    lambda _: '{"other": [{"a": 1}, {"b": 2}]}',
    lambda text: text[:-1],  # the last bracket is missing
    lambda text: text.replace('"id"', '"id', 1).replace('"uuid"', '"uuid', 1),
    lambda text: text.replace(":", " ", 1),
    lambda text: text[: len(text) // 2],
    lambda text: text + "}",
    lambda _: "[" * 100_000 + "]" * 100_000,
    lambda _: "",
]


@pytest.mark.parametrize(("make", "each"), CONVERSATIONS)
@pytest.mark.parametrize("broken", BREAKS)
def test_one_broken_conversation_of_ten_thousand_loses_no_other(
    make: Callable[[int], dict[str, Any]], each: int, broken: Callable[[str], str], tmp_path: Path
) -> None:
    parts = [json.dumps(make(number)) for number in range(MANY)]
    parts[5000] = broken(parts[5000])
    (tmp_path / "conversations.json").write_text("[\n" + ",\n".join(parts) + "\n]")
    told, skipped = split(read(tmp_path / "conversations.json"))
    assert len({record.id for record in told}) == (MANY - 1) * each
    assert [record.where for record in skipped] == ["conversations.json:5002"]
    assert "conversation 5001" in skipped[0].reason


@pytest.mark.parametrize(("make", "each"), CONVERSATIONS)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(data=st.data())
def test_a_file_cut_anywhere_yields_every_complete_conversation(
    make: Callable[[int], dict[str, Any]], each: int, data: st.DataObject, tmp_path: Path
) -> None:
    parts = [json.dumps(make(number)) for number in range(5)]
    text = "[" + ", ".join(parts) + "]"
    end = data.draw(st.integers(len(parts[0]) + 1, len(text) - 1))
    (tmp_path / "conversations.json").write_text(text[:end])
    complete = sum(len("[" + ", ".join(parts[: n + 1])) <= end for n in range(5))
    told, skipped = split(read(tmp_path / "conversations.json"))
    assert len(told) == complete * each
    (cut_off,) = skipped
    assert f"after {end:,} characters" in cut_off.reason


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    data=st.data(),
    name=st.sampled_from(
        ["chatgpt.json", "claude.json", "dialogues.json", "messages.jsonl", "whatsapp_ios.txt"]
    ),
)
def test_whatever_is_damaged_only_typed_errors_are_raised(
    data: st.DataObject, name: str, tmp_path: Path
) -> None:
    content = bytearray((DATA / name).read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(content) - 1))
        content[at : at + data.draw(st.integers(0, 20))] = data.draw(
            st.binary(max_size=6) | st.sampled_from([b"{", b'"', b"null", b"[]"])
        )
    path = tmp_path / name
    path.write_bytes(bytes(content))
    for format in ("auto", *FORMATS):
        try:
            records = list(read(path, format=format))
        except MnemicError:
            continue
        for record in records:
            assert isinstance(record, Skipped) or record.text.encode().strip()


@pytest.mark.parametrize(
    "line",
    ['{"role": "user"', "[1]", '"x"', '{"role": "user", "content": ""}', '{"text": "x", "user": "ana"}',
     '{"text": "x", "content": "y"}', '{"role": "robot", "content": "x"}', '{"text": "\\ud800"}',
     "[" * 100_000, '{"text": 1' + "0" * 5000 + "}"],
)  # fmt: skip
def test_one_broken_line_of_ten_thousand_loses_no_other(line: str, tmp_path: Path) -> None:
    lines = [json.dumps({"role": "user", "content": f"note {number}"}) for number in range(MANY)]
    lines[6000] = line
    (tmp_path / "m.jsonl").write_text("\n".join(lines))
    told, skipped = split(read(tmp_path / "m.jsonl"))
    assert len(told) == MANY - 1
    assert [record.where for record in skipped] == ["m.jsonl:6001"]


def test_a_line_that_is_not_utf8_is_skipped(tmp_path: Path) -> None:
    (tmp_path / "m.jsonl").write_bytes(b'{"text": "a"}\r\n{"text": "\xe1"}\r\n\r\n{"text": "b"}')
    told, skipped = split(read(tmp_path / "m.jsonl"))
    assert [record.text for record in told] == ["a", "b"]
    assert "UTF-8" in skipped[0].reason


def test_bytes_that_are_not_utf8_cost_only_their_message(tmp_path: Path) -> None:
    text = json.dumps([claude(1), claude(2)]).encode().replace(b"Note 1 a", b"Note \xe1 a")
    (tmp_path / "conversations.json").write_bytes(text)
    told, skipped = split(read(tmp_path / "conversations.json"))
    assert [record.id for record in told] == ["m1b", "m2a", "m2b"]
    assert [record.id for record in skipped] == ["m1a"]


def test_a_tree_without_a_way_to_its_root_is_read_as_far_as_it_goes(tmp_path: Path) -> None:
    lost, circle, aimless = chatgpt(1), chatgpt(2), chatgpt(3)
    lost["mapping"].pop("r")
    circle["mapping"]["r"]["parent"] = "n"
    aimless["current_node"] = "gone"
    (tmp_path / "c.json").write_text(json.dumps([lost, circle, aimless]))
    told, skipped = split(read(tmp_path / "c.json"))
    assert [record.id for record in told] == ["m1", "m2", "m3"]
    assert ["missing" in skipped[0].reason, "circle" in skipped[1].reason] == [True, True]


WHOLE: list[tuple[str, bytes, str]] = [
    ("conversations.json", b"", "empty"),
    ("conversations.json", b" \n", "empty"),
    ("conversations.json", b"<html>no</html>", "known format"),
    ("conversations.json", b"[]", "no ChatGPT or Claude"),
    ("conversations.json", b'{"a": ', "not valid JSON"),
    ("conversations.json", b"[1, 2, 3]", "no ChatGPT or Claude"),
    ("notes.md", b"", "empty"),
    ("notes.md", "Olá, João, açaí".encode("latin-1"), "UTF-8"),
    ("notes.txt", "Olá".encode("latin-1"), "UTF-8"),
    ("notes.txt", "Olá".encode("utf-16"), "UTF-16"),
    ("notes.md", b"\x89PNG\r\n\x1a\n\x00\x00", "binary"),
    ("m.jsonl", b"not json\n", "not valid JSON"),
    ("m.jsonl", b"\x00\x01", "binary"),
    ("scan.pdf", b"%PDF-1.7\n", "known format"),
    ("chat.zip", b"PK\x03\x04broken", "damaged"),
]


@pytest.mark.parametrize(("name", "content", "says"), WHOLE)
def test_a_file_that_is_broken_as_a_whole_says_so(
    name: str, content: bytes, says: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InvalidFile, match=says):
        read(tmp_path / name)


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize(
    "content", [b"", b"\x00\x01\x02", b"[]", b"{}", b"[{}]", b'[{"conversation": {}}]', b"\xff\xfeO\x00"]
)
def test_a_format_that_does_not_fit_raises_or_reads(format: str, content: bytes, tmp_path: Path) -> None:
    (tmp_path / "file.json").write_bytes(content)
    if format in ("text", "markdown") and content[:1] in (b"[", b"{"):
        assert len(list(read(tmp_path / "file.json", format=format))) == 1
    else:
        with pytest.raises(InvalidFile):
            read(tmp_path / "file.json", format=format)


def test_missing_folders_and_archives_without_notes(tmp_path: Path) -> None:
    for path, says in ((tmp_path / "none.md", "does not exist"), (tmp_path, "no notes")):
        with pytest.raises(InvalidFile, match=says):
            read(path)
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as archive:
        archive.writestr("readme.txt", "x")
    with pytest.raises(InvalidFile, match="without"):
        read(tmp_path / "other.zip")
    with pytest.raises(InvalidFile, match="without"):
        read(tmp_path / "other.zip", format="chatgpt")


def test_a_zip_bomb_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        archive.writestr("conversations.json", b" " * (60 << 20))
    with pytest.raises(InvalidFile, match="zip bomb"):
        read(tmp_path / "bomb.zip")


def test_a_damaged_archive_yields_what_comes_before_the_damage(tmp_path: Path) -> None:
    path = tmp_path / "export.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("conversations.json", json.dumps([claude(number) for number in range(3000)]))
    content = bytearray(path.read_bytes())
    content[400_000:400_010] = b"\x00" * 10
    path.write_bytes(bytes(content))
    told, skipped = split(read(path))
    assert len(told) > 4000
    assert skipped
