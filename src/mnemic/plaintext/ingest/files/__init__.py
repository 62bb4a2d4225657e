"""Files of other programs in: one format a file, found or named. `read` is the one way in."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Iterator
from datetime import UTC, tzinfo
from itertools import islice
from pathlib import Path
from typing import Final

from mnemic.cube.errors import InvalidFile, InvalidOption
from mnemic.plaintext.ingest.files.source import Options, Progress, Source
from mnemic.plaintext.ingest.told import Skipped, Told

__all__ = ["FORMATS", "Progress", "Reading", "read"]

_HERE: Final = "mnemic.plaintext.ingest.files"
FORMATS: Final = {
    "chatgpt": f"{_HERE}.chatgpt:read",
    "claude": f"{_HERE}.claude:read",
    "markdown": f"{_HERE}.notes:read_markdown",
    "text": f"{_HERE}.notes:read_plain",
    "jsonl": f"{_HERE}.jsonl:read",
    "whatsapp": f"{_HERE}.whatsapp:read",
    "locomo": f"{_HERE}.locomo:read",
}
_PATIENCE: Final = 100_000  # broken records at the head of a file, before it is given up
_USES: Final = {
    "sample": ("locomo",),
    "day_first": ("whatsapp",),
    "timezone": ("whatsapp", "markdown", "text"),
}


class Reading(Iterator[Told | Skipped]):
    """The records of one file. `position` of `total` bytes are read; `notes` is complete at the end.

    `notes` holds what was left out on purpose, counted, and what had to be guessed.
    """

    def __init__(self, source: Source, format: str, records: Iterator[Told | Skipped]) -> None:
        self.format, self._source, self._records = format, source, records
        self._waiting = _first_told(source, format, records)

    def __next__(self) -> Told | Skipped:
        if self._waiting:
            return self._waiting.pop()
        try:
            return next(self._records)
        except StopIteration:
            self._source.close()
            raise

    @property
    def total(self) -> int:
        return self._source.total

    @property
    def position(self) -> int:
        return self._source.position

    @property
    def notes(self) -> list[str]:
        return self._source.notes


def read(
    path: str | os.PathLike[str],
    *,
    format: str = "auto",
    sample: str | int | None = None,
    day_first: bool | None = None,
    timezone: tzinfo | None = None,
    progress: Progress | None = None,
) -> Reading:
    """Read a file, a folder of notes or a .zip export, record by record. O(bytes), two passes at most.

    `format` is a name in `FORMATS`, or "auto". `sample` chooses a LoCoMo dialogue; `day_first` settles
    whether 3/5 is in May (WhatsApp); `timezone` is where times without a zone were written (WhatsApp, notes;
    default UTC). `progress(position, total)` is called with bytes as they are read.

    Raises InvalidFile, at once, when the file as a whole cannot be read or holds nothing that can, and
    InvalidOption for an unknown format or an option that the format has no use for. A broken record is
    yielded as `Skipped`.
    """
    if format != "auto" and format not in FORMATS:
        raise InvalidOption(f"format={format!r:.80} is unknown; use auto, {', '.join(FORMATS)}")
    place = Path(path)
    if format == "auto":
        from mnemic.plaintext.ingest.files.sniff import sniff

        format = sniff(place)
    for option, value in (("sample", sample), ("day_first", day_first), ("timezone", timezone)):
        if value is not None and format not in _USES[option]:
            raise InvalidOption(f"{option} has no meaning for {format}; it is for {', '.join(_USES[option])}")
    options = Options(sample=sample, day_first=day_first, timezone=timezone or UTC)
    source = Source(path=place, options=options, progress=progress)
    return Reading(source, format, _reader(format)(source))


def _reader(format: str) -> Callable[[Source], Iterator[Told | Skipped]]:
    module, name = FORMATS[format].split(":")
    reader: Callable[[Source], Iterator[Told | Skipped]] = getattr(importlib.import_module(module), name)
    return reader


def _first_told(source: Source, format: str, records: Iterator[Told | Skipped]) -> list[Told | Skipped]:
    """Records up to the first that can be stored, last first. Raises InvalidFile when there is none."""
    waiting: list[Told | Skipped] = []
    for record in islice(records, _PATIENCE):
        waiting.append(record)
        if isinstance(record, Told):
            return waiting[::-1]
    first = next((record for record in waiting if isinstance(record, Skipped)), None)
    why = (
        f" The first of {len(waiting):,} records, {first.where}: {first.reason}"
        if first
        else " It holds no message."
    )
    raise InvalidFile(f"nothing in {source.path} can be read as {format}.{why}")
