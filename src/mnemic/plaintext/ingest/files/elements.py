"""The elements of a large JSON array, one at a time, past broken ones and up to where a truncated file ends.

Memory is bounded by the largest element. Bytes that are not UTF-8 become lone surrogates, so that only the
message they stand in is refused later, not the file.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Callable, Iterator
from typing import Any, Final, NamedTuple

from mnemic.cube.errors import InvalidFile
from mnemic.plaintext.ingest.files.source import Stream

_BLOCK: Final = 1 << 20
_MAX_ELEMENT: Final = 1 << 30
_MAX_TRIES: Final = 1000
_SPACE = re.compile(r"[ \t\r\n]*+")
_CANDIDATE = re.compile(r"[,\[}][ \t\r\n]*+(?=\{)")
_DECODER: Final = json.JSONDecoder(strict=False)


class Element(NamedTuple):
    """One element of the array: its value, or what is wrong with it. `line` is where it begins."""

    number: int
    line: int
    value: Any
    problem: str = ""


class _Broken(Exception):
    def __init__(self, reason: str, position: int) -> None:
        super().__init__(reason)
        self.reason, self.position = reason, position


def elements(stream: Stream, accept: Callable[[Any], bool]) -> Iterator[Element]:
    """Yield each element of the array in `stream`. A file that is one object is an array of one.

    After a broken element, reading goes on at the next object that `accept` takes for an element.
    O(characters). Raises InvalidFile when the file is no JSON array or object at all.
    """
    buffer = _Buffer(stream)
    first = buffer.peek()
    if first == "{":
        yield from _single(buffer)
        return
    if first != "[":
        raise InvalidFile(
            f"{stream.name} is not JSON: it begins with {buffer.shown()}, not with '[' or '{{'."
        )
    buffer.move(buffer.pos + 1)
    number = 1
    while buffer.peek() not in ("]", ""):
        line = buffer.line
        try:
            yield Element(number, line, buffer.decode())
        except _Broken as broken:
            reason = f"{broken.reason} at character {buffer.base + broken.position:,}"
            buffer.resync(accept)
            if buffer.peek() == "":
                yield Element(number, line, None, _ending(buffer, reason))
                return
            yield Element(number, line, None, f"is not valid JSON: {reason}")
        number += 1
        if buffer.peek() == ",":
            buffer.move(buffer.pos + 1)
        buffer.drop()
    if buffer.peek() == "":
        yield Element(
            number, buffer.line, None, _ending(buffer, f"the list is not closed at character {buffer.end:,}")
        )


def _ending(buffer: _Buffer, reason: str) -> str:
    return (
        f"the file ends in the middle, after {buffer.end:,} characters ({buffer.stream.damage or reason}). "
        "What stands before it was read; export or download the file again for the rest."
    )


def _single(buffer: _Buffer) -> Iterator[Element]:
    try:
        value = buffer.decode()
    except _Broken as broken:
        raise InvalidFile(
            f"{buffer.stream.name} is not valid JSON (character {broken.position:,}: {broken.reason}). "
            "Download or export it again."
        ) from broken
    inner = value.get("conversations")
    values = inner if isinstance(inner, list) else [value]
    for number, item in enumerate(values, start=1):
        yield Element(number, 1, item)


class _Buffer:
    """The text read and not yet used. `base` characters before it are gone; `line` is the line at `pos`."""

    def __init__(self, stream: Stream) -> None:
        self.stream, self.text, self.pos, self.base, self.line = stream, "", 0, 0, 1
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")(errors="surrogateescape")
        self._ended = False

    @property
    def end(self) -> int:
        return self.base + len(self.text)

    def grow(self) -> bool:
        """Read as much again as there is, at least a block. False at the end of the file."""
        if self._ended:
            return False
        if len(self.text) > _MAX_ELEMENT:
            raise InvalidFile(f"{self.stream.name}: one record is larger than {_MAX_ELEMENT:,} characters.")
        blocks, wanted = [], max(_BLOCK, len(self.text))
        while wanted > 0 and not self._ended:
            data = self.stream.read(min(wanted, _BLOCK))
            self._ended = not data
            blocks.append(self._decoder.decode(data, final=not data))
            wanted -= len(data)
        self.text += "".join(blocks)
        return True

    def peek(self) -> str:
        """The next character that is not white space, "" at the end; `pos` moves to it."""
        while True:
            found = _SPACE.match(self.text, self.pos)
            self.move(found.end() if found else self.pos)
            if self.pos < len(self.text):
                return self.text[self.pos]
            if not self.grow():
                return ""

    def shown(self) -> str:
        return repr(self.text[self.pos : self.pos + 20])

    def move(self, to: int) -> None:
        self.line += self.text.count("\n", self.pos, to)
        self.pos = to

    def drop(self) -> None:
        """Forget what was used, now and then, so that the cost stays linear."""
        if self.pos > _BLOCK and self.pos > len(self.text) // 2:
            self.base += self.pos
            self.text, self.pos = self.text[self.pos :], 0

    def decode(self) -> Any:
        """The value at `pos`; `pos` moves behind it. Raises _Broken, and leaves `pos`."""
        value, end = self._value_at(self.pos)
        self.move(end)
        if self.peek() not in (",", "]", "{", ""):
            raise _Broken(f"Expecting ',' and not {self.shown()}", self.pos)
        return value

    def _value_at(self, position: int) -> tuple[Any, int]:
        while True:
            try:
                value, end = _DECODER.raw_decode(self.text, position)
            except json.JSONDecodeError as error:
                cut_off = error.pos >= len(self.text) - 12 or error.msg.startswith("Unterminated string")
                if cut_off and self.grow():
                    continue
                raise _Broken(error.msg.removesuffix(" at"), error.pos) from error
            except RecursionError as error:
                raise _Broken("nested too deeply", position) from error
            except ValueError as error:
                raise _Broken(str(error), position) from error
            if end < len(self.text) or not self.grow():
                return value, end

    def resync(self, accept: Callable[[Any], bool]) -> None:
        """Move to the next object that `accept` takes for an element, or to the end of the file."""
        at, tries = self.pos + (self.text[self.pos : self.pos + 1] == "{"), 0
        while tries < _MAX_TRIES:
            found = _CANDIDATE.search(self.text, at)
            if found is None:
                at = max(at, len(self.text) - 64)
                if self.grow():
                    continue
                break
            at = found.end()
            try:
                value, end = self._value_at(at)
            except _Broken:
                tries += 1
                continue
            if isinstance(value, dict) and accept(value):
                self.move(at)
                return
            at = end
        while self.grow():
            pass
        self.move(len(self.text))
