"""One `.mnemic` file: a zip of JSON lines and large payloads, written and read as streams.

    erased.jsonl   markers of erased cubes
    edges.jsonl    citations
    log.jsonl      versions, with their full history; each change follows the versions it made
    blobs/<sha256> large payloads
    manifest.json  format, embedders, counts, and a checksum of every entry

The zip's comment, the last 64 bytes of the file, is the SHA-256 of all bytes before it: whatever is cut off
or altered anywhere is found before anything is loaded. A file of this name is always whole, as it is written
under another and renamed.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any, BinaryIO, Final, Self

from mnemic.cube.errors import DumpDamaged, DumpTooNew, InvalidOption, MnemicError, NotFound
from mnemic.cube.times import now
from mnemic.vault.blobs import pieces, sync_folder
from mnemic.vault.record_lines import (
    change_json,
    change_of,
    edge_json,
    edge_of,
    version_json,
    version_of,
)
from mnemic.vault.records import Change, Edge, Group, Records, Version

FORMAT: Final = 1
DIGEST_CHARS: Final = 64
Progress = Callable[[int, int], None]
# What brings the manifest and lines of an older format to the next one, by the older one's number.
UPGRADES: Final[dict[int, Callable[[str, Any], Any]]] = {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Dumped:
    """The account of a dump: where it is, what is in it, and how many bytes it takes."""

    path: str
    cubes: int
    versions: int
    changes: int
    blobs: int
    erased: int
    bytes: int


class _Hashed(io.RawIOBase):
    """A file that only grows, and the SHA-256 of all of it but the last `DIGEST_CHARS` bytes."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._hash, self._tail, self._size = file, hashlib.sha256(), b"", 0

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        view = bytes(data)
        self._file.write(view)
        self._size += len(view)
        tail = self._tail + view
        self._hash.update(tail[:-DIGEST_CHARS])
        self._tail = tail[-DIGEST_CHARS:]
        return len(view)

    def tell(self) -> int:
        return self._size

    def digest(self) -> str:
        return self._hash.hexdigest()


class _Entry:
    """One entry being written: its checksum, size and number of records."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream, self._hash = stream, hashlib.sha256()
        self.size = self.records = 0

    def write(self, data: bytes | memoryview) -> None:
        self._stream.write(data)
        self._hash.update(data)
        self.size += len(data)

    def line(self, record: Any) -> None:
        self.write(json.dumps(record, ensure_ascii=False, separators=(",", ":")).encode() + b"\n")
        self.records += 1

    def account(self) -> dict[str, Any]:
        return {"sha256": self._hash.hexdigest(), "bytes": self.size, "records": self.records}


def check_target(path: str | os.PathLike[str], *, overwrite: bool) -> Path:
    """Where a dump may be written. Raises InvalidOption where there is a file already."""
    target = Path(path).expanduser()
    if target.exists() and not overwrite:
        raise InvalidOption(f"{target} exists; choose another name, or say overwrite=True")
    return target


def write(
    path: str | os.PathLike[str],
    records: Records,
    *,
    about: Mapping[str, Any],
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Dumped:
    """Write records to a new file. O(bytes), memory for one batch and a name a large payload.

    about: goes into the manifest. Raises InvalidOption where the file exists, and OSError.
    """
    target = check_target(path, overwrite=overwrite)
    part = target.with_name(f"{target.name}.part")
    try:
        with part.open("wb") as file:
            stream = _Hashed(file)
            counts = _write_zip(stream, records, about, progress)
            file.seek(-DIGEST_CHARS, os.SEEK_END)
            file.write(stream.digest().encode())
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, target)
        sync_folder(target.parent.absolute())
    finally:
        part.unlink(missing_ok=True)
    return Dumped(path=str(target), bytes=target.stat().st_size, **counts)


def _write_zip(
    stream: _Hashed, records: Records, about: Mapping[str, Any], progress: Progress | None
) -> dict[str, int]:
    entries: dict[str, dict[str, Any]] = {}
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED, compresslevel=3) as archive:

        def write_lines(name: str, lines: Iterable[Any]) -> None:
            with archive.open(name, "w", force_zip64=True) as out:
                entry = _Entry(out)
                for line in lines:
                    entry.line(line)
            entries[name] = entry.account()

        counted = _Counted()
        write_lines("erased.jsonl", (marker.hex() for marker in sorted(records.markers())))
        write_lines("edges.jsonl", (edge_json(edge) for edge in records.edges()))
        write_lines("log.jsonl", counted.lines(records.groups(), progress))
        for sha256 in sorted(counted.blobs):
            info = zipfile.ZipInfo(f"blobs/{sha256}")  # stored: tensors do not get smaller
            with archive.open(info, "w", force_zip64=True) as out, records.open_blob(sha256) as source:
                entry = _Entry(out)
                for piece in pieces(source):
                    entry.write(piece)
            entries[info.filename] = entry.account()
        manifest = {"format": FORMAT, **about, "at": now(), "counts": counted.counts(), "entries": entries}
        archive.writestr("manifest.json", json.dumps(manifest, ensure_ascii=False, indent=1))
        archive.comment = b"0" * DIGEST_CHARS
    return {**counted.counts(), "erased": entries["erased.jsonl"]["records"]}


class _Counted:
    """The lines of a log, counted as they are written."""

    def __init__(self) -> None:
        self.blobs: set[str] = set()
        self._cubes: set[bytes] = set()
        self._versions = self._changes = 0

    def lines(self, groups: Iterable[Group], progress: Progress | None) -> Iterator[Any]:
        for change, versions in groups:
            for version in versions:
                self._cubes.add(version.cube)
                if "blob" in version.header:
                    self.blobs.add(version.header["blob"]["sha256"])
                yield version_json(version)
            yield change_json(change)
            self._versions += len(versions)
            self._changes += 1
            if progress:
                progress(self._versions, self._versions)

    def counts(self) -> dict[str, int]:
        return {
            "cubes": len(self._cubes),
            "versions": self._versions,
            "changes": self._changes,
            "blobs": len(self.blobs),
        }


class FileSource:
    """The records of a `.mnemic` file that was verified when it was opened.

    Raises NotFound, DumpDamaged with what is wrong, DumpTooNew. Opening reads the whole file once.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path).expanduser()
        self.name = str(self.path)
        if not self.path.is_file():
            raise NotFound(f"there is no file {self.path}")
        wrong = _what_is_wrong(self.path)
        if wrong is not None:
            raise DumpDamaged(f"{self.path} is damaged: {wrong}. Nothing was loaded")
        with ExitStack() as closing:
            try:
                self._zip = closing.enter_context(zipfile.ZipFile(self.path))
                self.manifest: dict[str, Any] = json.loads(self._zip.read("manifest.json"))
                found = self.manifest["format"]
                older = isinstance(found, int) and found <= FORMAT
                self._steps = [UPGRADES[number] for number in range(found, FORMAT)] if older else []
            except (zipfile.BadZipFile, KeyError, ValueError, TypeError) as error:
                raise DumpDamaged(
                    f"{self.path} is not a dump of mnemic ({error}). Nothing was loaded"
                ) from error
            if not older:
                raise DumpTooNew(
                    f"{self.path} is of dump format {found!r:.20}; this mnemic reads up to {FORMAT}. "
                    "Upgrade: pip install -U mnemic. Nothing was loaded"
                )
            closing.pop_all()

    def markers(self) -> Iterator[bytes]:
        return self._records("erased.jsonl", bytes.fromhex)

    def edges(self) -> Iterator[Edge]:
        return self._records("edges.jsonl", edge_of)

    def groups(self) -> Iterator[Group]:
        versions: list[Version] = []
        for one in self._records(
            "log.jsonl", lambda said: change_of(said) if "change" in said else version_of(said)
        ):
            if isinstance(one, Change):
                yield Group(one, versions)
                versions = []
            else:
                versions.append(one)

    def open_blob(self, sha256: str) -> BinaryIO:
        try:
            return self._zip.open(f"blobs/{sha256}")  # type: ignore[return-value]
        except KeyError as error:
            raise DumpDamaged(f"{self.path} lacks the payload {sha256[:16]}…") from error

    def close(self) -> None:
        self._zip.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _records(self, entry: str, read: Callable[[Any], Any]) -> Iterator[Any]:
        number = 0
        try:
            with self._zip.open(entry) as lines:
                for line in lines:
                    number += 1
                    record = json.loads(line)
                    for step in self._steps:
                        record = step(entry, record)
                    yield read(record)
        except (
            KeyError,
            TypeError,
            ValueError,
            AttributeError,
            zipfile.BadZipFile,
            zlib.error,
            InvalidOption,
        ) as error:
            if isinstance(error, MnemicError) and not isinstance(error, InvalidOption):
                raise
            raise DumpDamaged(
                f"{self.path}: line {number} of {entry} cannot be read ({type(error).__name__}: {error}). "
                "Nothing was loaded"
            ) from error


def is_dump(path: Path) -> bool:
    """Whether a file begins as a dump does. Reads 4 bytes."""
    try:
        with path.open("rb") as file:
            return file.read(4) == b"PK\x03\x04"
    except OSError:
        return False


def _what_is_wrong(path: Path) -> str | None:
    """None for a file that is as it was written. O(bytes)."""
    size = path.stat().st_size
    hashed = hashlib.sha256()
    with path.open("rb") as file:
        if file.read(4) != b"PK\x03\x04":
            return "it does not begin as a dump does"
        file.seek(0)
        left = max(size - DIGEST_CHARS, 0)
        while left and (piece := file.read(min(left, 1 << 20))):
            hashed.update(piece)
            left -= len(piece)
        said = file.read()
    if said == hashed.hexdigest().encode():
        return None
    try:
        with zipfile.ZipFile(path) as archive:
            manifest = json.loads(archive.read("manifest.json"))
            for name, account in manifest["entries"].items():
                if not _is_sound(archive, name, account["sha256"]):
                    return f"its entry {name} was altered"
    except (
        zipfile.BadZipFile,
        zlib.error,
        EOFError,
        KeyError,
        ValueError,
        OSError,
        NotImplementedError,
    ) as error:
        with suppress(IndexError):
            return f"it was cut short or altered ({str(error).splitlines()[0]})"
        return "it was cut short or altered"
    return "its checksum does not fit what it holds"


def _is_sound(archive: zipfile.ZipFile, name: str, sha256: str) -> bool:
    hashed = hashlib.sha256()
    try:
        with archive.open(name) as entry:
            for piece in pieces(entry):
                hashed.update(piece)
    except (zipfile.BadZipFile, zlib.error, KeyError, EOFError):
        return False
    return hashed.hexdigest() == sha256
