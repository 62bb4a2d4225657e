"""Notes: a Markdown or text file, or a folder of them. A note is one record, a journal one a date heading.

When it was written, first found: `date` (or `created`) in the front matter, the date its name begins with,
the file's last change. Front matter becomes title, labels and metadata, and is not part of the text.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from mnemic.cube.errors import InvalidFile, InvalidTime
from mnemic.cube.model import Origin
from mnemic.cube.times import to_micros
from mnemic.plaintext.ingest.files.dates import date_in_name, leading_date
from mnemic.plaintext.ingest.files.front_matter import front_matter
from mnemic.plaintext.ingest.files.record import skip, tell_record
from mnemic.plaintext.ingest.files.source import Source, read_text
from mnemic.plaintext.ingest.told import Skipped, Told

MARKDOWN: Final = (".md", ".markdown")
SUFFIXES: Final = (*MARKDOWN, ".txt", ".text")
_HEADING_OR_FENCE = re.compile(r"^(?:#{1,6}[ \t]+(?P<heading>[^\n]+)|(?P<fence>```|~~~))", re.MULTILINE)


def read_markdown(source: Source) -> Iterator[Told | Skipped]:
    yield from _read(source, markdown=True)


def read_plain(source: Source) -> Iterator[Told | Skipped]:
    """As `read_markdown`, but no front matter and no headings: each file is one note."""
    yield from _read(source, markdown=False)


def _read(source: Source, *, markdown: bool) -> Iterator[Told | Skipped]:
    root = source.path
    if not root.exists():
        raise InvalidFile(f"{root} does not exist. Check the name; the current folder is {Path.cwd()}.")
    files = _files(root) if root.is_dir() else [root]
    if not files:
        raise InvalidFile(
            f"the folder {root} holds no notes: expected files that end in {', '.join(SUFFIXES)}."
        )
    source.total = sum(file.stat().st_size for file in files)
    for file in files:
        name = file.relative_to(root).as_posix() if root.is_dir() else file.name
        try:
            text = read_text(source, file)
        except InvalidFile as error:
            if not root.is_dir():
                raise
            yield skip(name, 1, error)
            continue
        as_markdown = markdown and (file.suffix.lower() not in SUFFIXES or file.suffix.lower() in MARKDOWN)
        yield from _note(source, name, file, text, markdown=as_markdown)


def _files(root: Path) -> list[Path]:
    """All notes below `root`, sorted; hidden folders (.git, .obsidian) and linked ones are not followed."""
    found: list[Path] = []
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        wanted = (n for n in sorted(names) if not n.startswith(".") and n.lower().endswith(SUFFIXES))
        found.extend(path for n in wanted if (path := Path(folder, n)).is_file())
    return found


def _note(source: Source, name: str, file: Path, text: str, *, markdown: bool) -> Iterator[Told | Skipped]:
    zone = source.options.timezone
    head = front_matter(text) if markdown else front_matter("")
    values = dict(head.values)
    labels = tuple(
        tag.lstrip("#") for key in ("tags", "tag", "labels") for tag in _several(values.pop(key, None))
    )
    at = (
        _time(values, zone)
        or date_in_name(file.stem, zone)
        or datetime.fromtimestamp(file.stat().st_mtime, zone)
    )
    metadata: dict[str, Any] = {"file": name, **_renamed(values)}
    sections = _sections(text, head.end, zone) if markdown else [(0, len(text), None)]
    seen: Counter[str] = Counter()
    for start, end, moment in sections:
        said = text[start:end]
        seen[said] += 1  # not its number: a section put in above would give all others new ids
        line = text.count("\n", 0, start) + 1
        yield tell_record(
            name, line, said, kind="note", position=f"{name}:{seen[said]}", at=moment or at,
            origin=Origin.imported, labels=labels, metadata=metadata,
        )  # fmt: skip


def _sections(text: str, start: int, zone: Any) -> list[tuple[int, int, datetime | None]]:
    """The whole text, or, where headings are dates, what stands under each and before the first."""
    found: list[tuple[int, datetime | None]] = [(start, None)]
    in_code = ""
    for mark in _HEADING_OR_FENCE.finditer(text, start):
        if mark["fence"]:
            in_code = "" if in_code == mark["fence"] else in_code or mark["fence"]
        elif not in_code and (moment := leading_date(mark["heading"], zone)):
            found.append((mark.start(), moment))
    ends = [*(begin for begin, _ in found[1:]), len(text)]
    spans = [(begin, end, moment) for (begin, moment), end in zip(found, ends, strict=True)]
    return [span for span in spans if text[span[0] : span[1]].strip()] or spans[:1]


def _time(values: dict[str, str | list[str]], zone: Any) -> datetime | None:
    for key in ("date", "created", "created_at"):
        written = values.get(key)
        if isinstance(written, str) and written:
            try:
                moment = datetime.fromisoformat(written)
                to_micros(moment)
            except (ValueError, InvalidTime):
                moment_or_none = leading_date(written, zone)
                if moment_or_none:
                    return moment_or_none
            else:
                return moment if moment.tzinfo else moment.replace(tzinfo=zone)
    return None


def _several(value: str | list[str] | None) -> list[str]:
    return value if isinstance(value, list) else (value or "").replace(",", " ").split()


def _renamed(values: Mapping[str, str | list[str]]) -> dict[str, Any]:
    """Keys of the front matter, except one that would hide the name of the file."""
    return {("front_matter.file" if key == "file" else key): value for key, value in values.items()}
