"""Opening what is to be imported: a file, folder or zip archive, with limits, progress. Knows no format."""

from __future__ import annotations

import re
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, tzinfo
from pathlib import Path
from typing import IO, Final

from mnemic.cube.errors import InvalidFile

MAX_UNPACKED: Final = 8 * 2**30
_MAX_RATIO: Final = 200  # JSON and chats pack 5 to 30 times; a zip bomb a thousand times and more
_ALWAYS_FINE: Final = 50 * 2**20
_HEAD: Final = 65_536

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What a format may be told. A format that has no use for an option refuses it (`files.read`)."""

    sample: str | int | None = None
    day_first: bool | None = None
    timezone: tzinfo = UTC


@dataclass(slots=True, kw_only=True)
class Source:
    """One import under way: bytes read of how many, and what to know beside the skipped records."""

    path: Path
    options: Options = field(default_factory=Options)
    progress: Progress | None = None
    total: int = 0
    position: int = 0
    notes: list[str] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)

    def advance(self, count: int) -> None:
        self.position += count
        if self.progress is not None:
            self.progress(self.position, self.total)

    def count(self, what: str, number: int = 1) -> None:
        """Count what is left out on purpose; `close` tells it once, with its number."""
        self.counts[what] = self.counts.get(what, 0) + number

    def close(self) -> None:
        self.notes.extend(f"left out: {number:,} × {what}" for what, number in self.counts.items())
        self.counts.clear()


class Stream:
    """A binary file whose reads are counted. A damaged archive ends early and says why in `damage`."""

    def __init__(self, source: Source, name: str, raw: IO[bytes]) -> None:
        self.source, self.name, self.damage = source, name, ""
        self._raw = raw
        self._head = self._guard(lambda: raw.read(_HEAD))
        check_head(name, self._head)

    def read(self, count: int) -> bytes:
        """Up to `count` bytes; in small blocks: the one where an archive's checksum fails is lost."""
        if self._head:
            out, self._head = self._head[:count], self._head[count:]
        else:
            out = self._guard(lambda: self._raw.read(min(count, _HEAD)))
        self.source.advance(len(out))
        return out

    def lines(self) -> Iterator[bytes]:
        """Lines without their end. Only `\\n` and `\\r\\n` end a line."""
        begun: list[bytes] = []  # the parts so far of a line that no block has ended yet
        while block := self.read(1 << 18):
            first, *others = block.split(b"\n")
            begun.append(first)
            if others:
                yield b"".join(begun).removesuffix(b"\r")
                *whole, last = others
                for line in whole:
                    yield line.removesuffix(b"\r")
                begun = [last]
        if rest := b"".join(begun):
            yield rest.removesuffix(b"\r")

    def _guard(self, read: Callable[[], bytes]) -> bytes:
        try:
            return read()
        except (zipfile.BadZipFile, zlib.error, EOFError, OSError) as error:
            self.damage = f"{self.name} is damaged and cannot be read further ({error})"
            return b""


def open_streams(source: Source, member: re.Pattern[str] | None, expected: str) -> Iterator[Stream]:
    """Open the path itself, or what matches `member` in a folder or zip archive, one after the other.

    Raises InvalidFile when there is none, or when it is empty, binary, encrypted or far too large unpacked.
    """
    path = source.path
    if not path.exists():
        raise InvalidFile(f"{path} does not exist. Check the name; the current folder is {Path.cwd()}.")
    if path.is_dir():
        yield from _from_folder(source, member, expected)
    elif is_zip(path):
        yield from _from_zip(source, member, expected)
    else:
        source.total = path.stat().st_size
        with _opened(path) as raw:
            yield Stream(source, path.name, raw)


def is_zip(path: Path) -> bool:
    return path.is_file() and path.stat().st_size > 3 and _first_bytes(path) in (b"PK\x03\x04", b"PK\x05\x06")


def member_names(path: Path) -> list[str]:
    """Names in a zip archive or folder (not deeper). Raises InvalidFile for a damaged archive."""
    if path.is_dir():
        return sorted(entry.name for entry in path.iterdir() if entry.is_file())
    with _archive(path) as archive:
        return sorted(info.filename for info in archive.infolist() if not info.is_dir())


def matching(names: list[str], member: re.Pattern[str]) -> list[str]:
    return [name for name in names if not name.startswith("__MACOSX/") and member.search(name)]


def check_head(name: str, head: bytes) -> None:
    """Raise InvalidFile when a file that begins like this is empty, binary, or not in UTF-8."""
    if not head.strip(b"\xef\xbb\xbf \t\r\n"):
        raise InvalidFile(f"{name} is empty. Export or save it again.")
    if head[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise InvalidFile(f"{name} is UTF-16. Save it as UTF-8 and import that.")
    if b"\x00" in head:
        raise InvalidFile(
            f"{name} is a binary file, not text. Export it as text, Markdown or JSON and import that."
        )
    text = head.decode(errors="surrogateescape")
    wrong = sum("\udc80" <= char <= "\udcff" for char in text)
    right = sum(char > "\x7f" for char in text) - wrong
    if wrong >= 3 and wrong > right:
        raise InvalidFile(
            f"{name} is not UTF-8 (Latin-1 or Windows-1252?). Save it as UTF-8 and import that."
        )


def read_text(source: Source, path: Path) -> str:
    """A whole small file as text. Raises InvalidFile unless it is valid UTF-8 throughout."""
    with _opened(path) as raw:
        data = raw.read()
    source.advance(len(data))
    check_head(path.name, data[:_HEAD])
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InvalidFile(
            f"{path.name} is not UTF-8 (byte {error.start}). Save it as UTF-8 and import that."
        ) from error


def _from_folder(source: Source, member: re.Pattern[str] | None, expected: str) -> Iterator[Stream]:
    names = matching(member_names(source.path), member) if member else []
    if not names:
        raise InvalidFile(f"the folder {source.path} holds no {expected}. Give the file itself.")
    source.total = sum((source.path / name).stat().st_size for name in names)
    for name in names:
        with _opened(source.path / name) as raw:
            yield Stream(source, name, raw)


def _from_zip(source: Source, member: re.Pattern[str] | None, expected: str) -> Iterator[Stream]:
    with _archive(source.path) as archive:
        names = matching(archive.namelist(), member) if member else []
        if not names:
            raise InvalidFile(
                f"{source.path.name} is a zip archive without {expected}. Unpack it and give the file itself."
            )
        infos = [archive.getinfo(name) for name in sorted(names)]
        for info in infos:
            _check_member(source.path.name, info)
        source.total = sum(info.file_size for info in infos)
        for info in infos:
            with archive.open(info) as raw:
                yield Stream(source, Path(info.filename).name, raw)


def _check_member(archive: str, info: zipfile.ZipInfo) -> None:
    if info.flag_bits & 1:
        raise InvalidFile(f"{archive} is encrypted. Unpack it with its password and give the file itself.")
    too_dense = info.file_size > _ALWAYS_FINE and info.file_size > _MAX_RATIO * max(info.compress_size, 1)
    if too_dense or info.file_size > MAX_UNPACKED:
        raise InvalidFile(
            f"{archive}: {info.filename} would unpack from {info.compress_size:,} to {info.file_size:,} "
            "bytes, like a zip bomb. If you trust it, unpack it and give the file itself."
        )


def _archive(path: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except (zipfile.BadZipFile, OSError, NotImplementedError) as error:
        raise InvalidFile(f"{path.name} is a damaged zip archive ({error}). Download it again.") from error


def _opened(path: Path) -> IO[bytes]:
    try:
        return path.open("rb")
    except OSError as error:
        raise InvalidFile(f"{path} cannot be read: {error.strerror}") from error


def _first_bytes(path: Path) -> bytes:
    with _opened(path) as raw:
        return raw.read(4)
