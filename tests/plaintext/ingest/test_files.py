"""Real exports in: what is read, from where, with which id, and the same each time."""

import json
import shutil
import zipfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from mnemic.cube.errors import InvalidFile, InvalidOption
from mnemic.cube.model import Origin
from mnemic.cube.times import to_micros
from mnemic.plaintext.ingest.files import FORMATS, read
from mnemic.plaintext.ingest.told import Skipped, Told

DATA = Path(__file__).parents[2] / "data"
FILES: list[tuple[str, str, dict[str, Any]]] = [
    ("chatgpt.json", "chatgpt", {}),
    ("claude.json", "claude", {}),
    ("messages.jsonl", "jsonl", {}),
    ("dialogues.json", "locomo", {"sample": "talk-1"}),
    ("whatsapp_android.txt", "whatsapp", {}),
    ("whatsapp_ios.txt", "whatsapp", {}),
    ("notes", "markdown", {}),
]


def told(path: Path, **options: Any) -> list[Told]:
    return [record for record in read(path, **options) if isinstance(record, Told)]


@pytest.mark.parametrize("format", FORMATS)
def test_every_format_of_the_table_exists(format: str) -> None:
    with pytest.raises(InvalidFile, match="does not exist"):
        read("no such file", format=format)


@pytest.mark.parametrize(("name", "format", "options"), FILES)
def test_the_format_is_found_and_ids_are_the_same_each_time(
    name: str, format: str, options: dict[str, Any]
) -> None:
    reading = read(DATA / name, **options)
    first = list(reading)
    assert reading.format == format
    assert reading.position == reading.total > 0
    assert first == list(read(DATA / name, format=format, **options))
    keys = [(record.session, record.id) for record in first if isinstance(record, Told)]
    assert len(set(keys)) == len(keys)
    assert all(id for _, id in keys)


@pytest.mark.parametrize(("name", "format", "options"), FILES)
def test_progress_is_told_in_bytes(name: str, format: str, options: dict[str, Any]) -> None:
    seen: list[tuple[int, int]] = []
    list(read(DATA / name, format=format, progress=lambda at, total: seen.append((at, total)), **options))
    assert [at for at, _ in seen] == sorted(at for at, _ in seen)
    assert seen[-1][0] == seen[-1][1]


def test_chatgpt_reads_the_branch_last_seen() -> None:
    reading = read(DATA / "chatgpt.json")
    records = [record for record in reading if isinstance(record, Told)]
    porto = [record for record in records if record.session == "c-porto"]
    assert [record.id for record in porto] == ["u1", "a1b", "u2", "a2"]
    assert "Start with a NIF." not in {record.text for record in records}
    assert porto[0].at == 1709900001_250_000
    assert porto[2].text == "[image]\nIs this flat too expensive at 1,100 €?"
    assert porto[0].metadata["title"] == "Moving to Porto"
    assert [r.origin for r in records if r.session == "c-rent"] == [
        Origin.user,
        Origin.model,
        Origin.imported,
        Origin.model,
    ]
    assert reading.notes == ["left out: 1 × copies of custom instructions", "left out: 1 × reasoning steps"]


def test_claude_reads_texts_and_attachments() -> None:
    records = told(DATA / "claude.json")
    assert [record.id for record in records] == ["m1", "m2", "m3", "m3:attachment:0", "m4", "m5", "m6"]
    assert (records[3].text, records[3].origin) == ("mint\nbasil\nivy", Origin.imported)
    assert records[4].text == "Basil needs sun; \nswap it for parsley."
    assert records[5].text == "[file: leaf.png]"


@pytest.mark.parametrize("name", ["chatgpt.json", "claude.json"])
def test_a_zip_a_folder_and_numbered_parts_are_read_like_the_file(name: str, tmp_path: Path) -> None:
    folder = tmp_path / "export"
    folder.mkdir()
    shutil.copy(DATA / name, folder / "conversations.json")
    with zipfile.ZipFile(tmp_path / "export.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(DATA / name, "data-2024/conversations.json")
        archive.writestr("data-2024/user.json", "{}")
    with zipfile.ZipFile(tmp_path / "parts.zip", "w") as archive:
        for number, conversation in enumerate(json.loads((DATA / name).read_text())):
            archive.writestr(f"conversations-{number:03}.json", json.dumps([conversation]))
    whole = [(record.id, record.text) for record in told(DATA / name)]
    for path in (folder, tmp_path / "export.zip", tmp_path / "parts.zip"):
        assert [(record.id, record.text) for record in told(path)] == whole


def test_jsonl_reads_messages_and_texts() -> None:
    first, second, third, fourth = told(DATA / "messages.jsonl")
    assert (first.id, first.session, first.name, first.labels, first.line) == ("1", "s1", "Ana", ("home",), 1)
    assert (second.id, second.origin, second.at) == ("2", Origin.model, 1741514500_000_000)
    assert (third.text, third.session) == ("The bakery on Rua do Almada opens at seven.", "s2")
    assert fourth.text == "My flat\n[image]"


def test_locomo_chooses_a_dialogue_and_orders_its_sessions() -> None:
    records = told(DATA / "dialogues.json", sample="talk-1")
    assert [(r.session, r.id, r.name) for r in records] == [
        ("session_1", "D1:1", "Ana"), ("session_1", "D1:2", "Bo"), ("session_2", "D2:1", "Bo"),
    ]  # fmt: skip
    assert records[0].text == "I adopted a dog! [image: a photo of a brown dog]"
    assert records[0].at == to_micros("2023-05-08T13:56Z")
    assert records[2].at == to_micros("2024-01-03T00:05Z")
    assert told(DATA / "dialogues.json", sample=1)[0].text == "Hi Di!"
    with pytest.raises(InvalidOption, match="talk-1, talk-2"):
        read(DATA / "dialogues.json")


def test_notes_have_dates_titles_and_labels(tmp_path: Path) -> None:
    shutil.copytree(DATA / "notes", tmp_path / "notes")
    (tmp_path / "notes/empty.md").write_text("\n")
    records = list(read(tmp_path / "notes"))
    (skipped,) = [record for record in records if isinstance(record, Skipped)]
    assert skipped.where == "empty.md:1"
    notes = {(r.source, r.line): r for r in records if isinstance(r, Told)}
    assert all(note.role == "user" and note.origin is Origin.imported for note in notes.values())
    assert notes["2024-05-03.md", 1].at == to_micros("2024-05-03")
    porto = notes["porto.md", 7]
    assert porto.at == to_micros("2024-06-01T09:30")
    assert porto.labels == ("travel", "home")
    assert (porto.metadata["title"], porto.metadata["rating"]) == ("Porto: plans", "5")
    assert porto.text.startswith("Look at flats")
    assert [note.at for (source, _), note in notes.items() if source == "journal.md"][1:] == [
        to_micros("2024-04-01"), to_micros("2024-04-02"),
    ]  # fmt: skip
    lisbon = tmp_path / "notes/trips/lisbon.txt"
    assert notes["trips/lisbon.txt", 1].at == pytest.approx(lisbon.stat().st_mtime * 1e6, abs=2)
    assert not any("obsidian" in str(source) for source, _ in notes)


@pytest.mark.parametrize(
    "front",
    [
        "---\ntitle: a\nnested:\n  deep: b\n---\n",
        "---\nnot a pair\n---\n",
        "---\ntitle: |\n  block\n---\n",
        "---\nno end\n",
    ],
)
def test_front_matter_that_is_not_understood_stays_in_the_text(front: str, tmp_path: Path) -> None:
    (tmp_path / "note.md").write_text(front + "Text.\n")
    assert told(tmp_path / "note.md")[0].text == front + "Text.\n"


@pytest.mark.parametrize(
    ("heading", "day"),
    [
        ("# 2024-05-03", 3), ("## Friday, 3 May 2024: rain", 3), ("# May 3rd, 2024", 3),
        ("# 2024/05/03 Porto", 3),
        ("# 2024-13-03", None), ("# 31 April 2024", None), ("# In 2024", None), ("# Maybe 3 2024", None),
    ],
)  # fmt: skip
def test_a_heading_that_is_a_date_dates_what_follows(heading: str, day: int | None, tmp_path: Path) -> None:
    (tmp_path / "note.md").write_text(f"{heading}\nText.\n")
    (note,) = told(tmp_path / "note.md")
    assert (note.at == to_micros(datetime(2024, 5, 3, tzinfo=UTC))) == (day is not None)


def test_a_section_put_into_a_journal_leaves_the_ids_of_the_others(tmp_path: Path) -> None:
    note = tmp_path / "journal.md"
    note.write_text("# 2024-01-01\nA\n# 2024-01-03\nC\n")
    before = {record.id for record in told(note)}
    note.write_text("# 2024-01-01\nA\n# 2024-01-02\nB\n# 2024-01-03\nC\n")
    assert before < {record.id for record in told(note)}


def test_times_without_a_zone_are_read_in_the_one_given() -> None:
    lisbon = told(DATA / "whatsapp_android.txt", timezone=ZoneInfo("Asia/Tokyo"))
    assert lisbon[0].at == to_micros("2024-02-28T09:12+09:00")


@pytest.mark.parametrize(
    ("options", "says"),
    [({"sample": 1}, "sample"), ({"day_first": True}, "day_first"), ({"timezone": UTC}, "timezone")],
)
def test_an_option_of_another_format_is_refused(options: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidOption, match=says):
        read(DATA / "chatgpt.json", **options)
    with pytest.raises(InvalidOption, match="chatgpt, claude"):
        read(DATA / "chatgpt.json", format="chatgtp")
