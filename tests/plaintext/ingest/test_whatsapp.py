"""WhatsApp's exports: both styles, both clocks, either order of day and month."""

from pathlib import Path

import pytest

from mnemic.cube.errors import InvalidFile
from mnemic.cube.times import to_micros
from mnemic.plaintext.ingest.files import Reading, read
from mnemic.plaintext.ingest.told import Skipped, Told

DATA = Path(__file__).parents[2] / "data"
LRM = "\u200e"


def chat(tmp_path: Path, *lines: str) -> Path:
    path = tmp_path / "WhatsApp Chat with Ana.txt"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def texts(reading: Reading) -> list[str]:
    return [record.text for record in reading if isinstance(record, Told)]


def test_android() -> None:
    reading = read(DATA / "whatsapp_android.txt")
    records = [record for record in reading if isinstance(record, Told)]
    assert [(record.name, record.text) for record in records] == [
        ("Ana", "Are you free on Saturday?"),
        ("Bo Silva", "Yes! Two things:\n- bring the tent\n- and the map"),
        ("Ana", "The lake was freezing: 8 °C 🥶"),
        ("Ana", "ok"),
        ("Ana", "ok"),
        ("+351 912 345 678", "[media: IMG-20240304-WA0001.jpg]\nUs at the lake"),
    ]
    assert records[0].at == to_micros("2024-02-28T09:12")
    assert len({record.id for record in records}) == 6
    assert reading.notes == [
        "left out: 2 × system lines", "left out: 1 × media without a caption",
        "left out: 1 × deleted messages",
    ]  # fmt: skip


def test_ios() -> None:
    records = [record for record in read(DATA / "whatsapp_ios.txt") if isinstance(record, Told)]
    assert [(record.name, record.text) for record in records] == [
        ("Ana", "Trail opens at 7"),
        ("Bo", "See you there [media: 00000012-PHOTO.jpg]"),
        ("Ana", "Great, bring water"),
    ]
    assert [record.at for record in records] == [
        to_micros("2024-03-14T21:05:30"), to_micros("2024-03-15T00:01"), to_micros("2024-03-15T00:02"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("stamps", "first", "noted"),
    [
        (["03/04/2024, 10:00", "25/04/2024, 10:00"], "2024-04-03T10:00", False),
        (["03/04/2024, 10:00", "04/25/2024, 10:00"], "2024-03-04T10:00", False),
        (["3/4/24, 10:00 PM", "4/2/24, 1:00 AM"], "2024-03-04T22:00", False),  # else it would run backwards
        (["03/04/2024, 10:00", "05/04/2024, 10:00"], "2024-04-03T10:00", True),
        (["3/4/24, 12:05 AM", "3/5/24, 10:00 PM"], "2024-03-04T00:05", True),
        (["04/04/2024, 10:00"], "2024-04-04T10:00", False),
        (["03.04.24, 10:00", "05.04.24, 10:00"], "2024-04-03T10:00", False),
        (["2024-04-03, 10:00"], "2024-04-03T10:00", False),
        (["3/4/24 10:00 a.\u00a0m."], "2024-04-03T10:00", True),
    ],
)
def test_the_order_of_day_and_month(stamps: list[str], first: str, noted: bool, tmp_path: Path) -> None:
    reading = read(chat(tmp_path, *(f"{stamp} - Ana: x{n}" for n, stamp in enumerate(stamps))))
    told = next(reading)
    if stamps[0].startswith("3/4/24 10"):
        first = "2024-03-04T10:00"  # 12 h and unpadded: as in the United States, and said so
    assert isinstance(told, Told)
    assert told.at == to_micros(first)
    assert any("day_first" in note for note in reading.notes) == noted


@pytest.mark.parametrize(
    "stamp",
    [
        "[2024-03-14, 9:05:00 PM]", "[14.03.24, 21:05:00]", "\u200e[14/03/2024, 21:05:00]",
        "[14/03/24 21:05:00]", "[3/14/24, 21:05:00]", "[14/3/24, 9:05:00 p.m.]", "[2024/3/14 21:05:00]",
        "14.03.24, 21:05 -",
        "3/14/24, 9:05\u202fPM -", "14/03/2024 21:05 -", "14.3.2024 klo 21.05 -", "14-03-2024 21:05 -",
        "14/03/24, 9:05 pm -", "14/03/2024 à 21:05 -", "14/3/2024, 9:05 p. m. -", "2024-03-14, 21:05 –",
    ],
)  # fmt: skip
def test_stamps_of_many_countries(stamp: str, tmp_path: Path) -> None:
    reading = read(chat(tmp_path, f"{stamp} Ana: hi", "more"))
    (told,) = reading
    assert isinstance(told, Told)
    assert (told.name, told.text, told.at) == ("Ana", "hi\nmore", to_micros("2024-03-14T21:05"))
    assert reading.format == "whatsapp"


def test_the_order_can_be_given(tmp_path: Path) -> None:
    path = chat(tmp_path, "03/04/2024, 10:00 - Ana: x")
    (told,) = read(path, day_first=False)
    assert isinstance(told, Told)
    assert told.at == to_micros("2024-03-04T10:00")


def test_a_date_that_does_not_exist_is_skipped(tmp_path: Path) -> None:
    lines = [f"{n % 28 + 1:02}/05/2024, 10:00 - Ana: note {n}" for n in range(10_000)]
    lines[7000] = "31/04/2024, 10:00 - Ana: never"
    records = list(read(chat(tmp_path, *lines)))
    assert sum(isinstance(record, Told) for record in records) == 9_999
    assert [record.where.rsplit(":", 1)[1] for record in records if isinstance(record, Skipped)] == ["7001"]


def test_what_looks_like_the_apps_marks_but_is_not(tmp_path: Path) -> None:
    path = chat(
        tmp_path,
        "13/05/2024, 10:00 - Ana: <html>",
        "13/05/2024, 10:01 - Ana: the word omitted: image omitted is odd",
        "13/05/2024, 10:02 - Ana: null",
        "13/05/2024, 10:03 - Ana:",
        "line two [13/05/2024, 10:04] Bo: quoted",
        "13/05/2024, 10:05 - Ana: This message was deleted yesterday by Bo",
    )
    assert texts(read(path)) == [
        "<html>",
        "the word omitted: image omitted is odd",
        "null",
        "line two [13/05/2024, 10:04] Bo: quoted",
        "This message was deleted yesterday by Bo",
    ]


def test_a_later_longer_export_repeats_the_ids(tmp_path: Path) -> None:
    lines = ["13/05/2024, 10:00 - Ana: one", "13/05/2024, 10:00 - Ana: one", "13/05/2024, 10:05 - Bo: two"]
    before = {r.id for r in read(chat(tmp_path, *lines)) if isinstance(r, Told)}
    later = [*lines, "14/05/2024, 10:05 - Bo: three"]
    after = {
        r.id for r in read(chat(tmp_path, "12/05/2024, 09:00 - Bo: zero", *later)) if isinstance(r, Told)
    }
    assert before < after
    assert len(after) == 5


def test_a_text_that_is_no_chat(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("Just a note.\n")
    assert read(tmp_path / "a.txt").format == "text"
    with pytest.raises(InvalidFile, match="Export chat"):
        read(tmp_path / "a.txt", format="whatsapp")
