"""Tensors as a file: safetensors with a header that says what they are. Nothing is ever unpickled.

Before a number is used, all of it is checked: the header's form and its fields, that the tensors follow one
another without a gap, the length of the whole, and a SHA-256 over header and tensors.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO, Final, NoReturn

import torch

from mnemic.cube.errors import InvalidFile

HEADER_LIMIT: Final = 16 << 20
PIECE: Final = 16 << 20
TYPES: Final = {
    torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.int64: "I64",
    torch.int32: "I32", torch.uint8: "U8",
}  # fmt: skip
DTYPES: Final = {name: dtype for dtype, name in TYPES.items()}
Table = dict[str, tuple[str, tuple[int, ...]]]  # name -> type, shape


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """A kind of file. format: its name and version; fields: what its header says besides format and sha256.

    what, advice: for people, as in "not a sound adapter: …. Train it again: …".
    """

    format: str
    fields: frozenset[str]
    what: str
    advice: str

    def refuse(self, name: str, why: str) -> NoReturn:
        raise InvalidFile(f"{name} is not a sound {self.what}: {why}. It was not used. {self.advice}")


@dataclass(frozen=True, slots=True)
class TensorFile:
    """What was read. sha256: the one in its header."""

    said: dict[str, str]
    tensors: dict[str, torch.Tensor]
    sha256: str


def encode(
    form: Form, said: Mapping[str, str], tensors: Mapping[str, torch.Tensor]
) -> tuple[str, list[memoryview]]:
    """The file's SHA-256 (that in its header) and its bytes, in pieces. O(bytes)."""
    kept = {name: one.detach().cpu().contiguous() for name, one in tensors.items()}
    table: Table = {name: (TYPES[one.dtype], tuple(one.shape)) for name, one in kept.items()}
    names = sorted(table, key=lambda name: (-DTYPES[table[name][0]].itemsize, name))  # wide before narrow
    table = {name: table[name] for name in names}
    content = [bytes_of(kept[name]) for name in names]
    told = {**said, "format": form.format}
    told["sha256"] = digest_of(told, table, content)
    return told["sha256"], [memoryview(header_of(told, table)), *content]


def decode(source: BinaryIO, form: Form, *, name: str = "this file") -> TensorFile:
    """Read and check a whole file. O(bytes). Raises InvalidFile, saying what is wrong with it."""
    head = source.read(8)
    size = int.from_bytes(head, "little")
    if len(head) < 8 or not 2 <= size <= HEADER_LIMIT:
        form.refuse(name, "it does not begin as a safetensors file does")
    raw = source.read(size)
    if len(raw) < size:
        form.refuse(name, "it ends within its header")
    said, table = _parse(raw, form, name)
    wanted = sum(size_of(*one) for one in table.values())
    content = read_at_most(source, wanted + 1)
    if len(content) != wanted:
        more = "more" if len(content) > wanted else f"{len(content):,}"
        form.refuse(name, f"its tensors take {wanted:,} bytes, and there are {more}")
    parts, start = {}, 0
    for key, one in table.items():
        parts[key] = memoryview(content)[start : start + size_of(*one)]
        start += size_of(*one)
    if digest_of(said, table, list(parts.values())) != said["sha256"]:
        form.refuse(name, "its content does not match its SHA-256: bytes were changed")
    tensors = {
        key: (
            torch.frombuffer(parts[key], dtype=DTYPES[kind]).view(shape)
            if math.prod(shape)
            else torch.empty(shape, dtype=DTYPES[kind])
        )
        for key, (kind, shape) in table.items()
    }
    return TensorFile(said, tensors, said["sha256"])


def chunks(pieces: Sequence[memoryview]) -> Iterator[bytes]:
    """The pieces of `encode` for a store that takes an iterable of bytes."""
    return (bytes(piece[start : start + PIECE]) for piece in pieces for start in range(0, len(piece), PIECE))


def to_json(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def _parse(raw: bytes, form: Form, name: str) -> tuple[dict[str, str], Table]:
    try:
        header = json.loads(raw)
        said = header.pop("__metadata__", {}) if isinstance(header, dict) else {}
        if not isinstance(said, dict) or not all(isinstance(value, str) for value in said.values()):
            raise ValueError("its metadata is not text")
    except (ValueError, RecursionError) as error:
        form.refuse(name, f"its header is not JSON ({error})")
    if said.get("format") != form.format or set(said) != form.fields | {"format", "sha256"}:
        form.refuse(
            name,
            f"format={said.get('format')!r:.40}, and this mnemic reads {form.format}. It may be another kind "
            "of safetensors file, or written by a later version",
        )
    try:
        return said, _table(header)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        form.refuse(name, f"its header does not say where tensors are: {error}")


def _table(header: Mapping[str, Any]) -> Table:
    """Tensors in the order of their bytes, which follow one another from the first to the last."""
    table: Table = {}
    at = 0
    for key, told in sorted(header.items(), key=lambda item: (item[1]["data_offsets"][0], item[0])):
        kind, shape, (start, end) = told["dtype"], told["shape"], told["data_offsets"]
        if kind not in DTYPES or not all(isinstance(n, int) and 0 <= n < 1 << 40 for n in shape):
            raise ValueError(f"{key} is of type {kind!r:.20} and shape {shape!r:.60}")
        table[key] = (kind, tuple(shape))
        if (start, end) != (at, at + size_of(*table[key])):
            raise ValueError(f"{key} stands at {start} to {end}, not at {at}")
        at = end
    return table


def read_at_most(source: BinaryIO, limit: int) -> bytearray:
    """At most `limit` bytes; what a header claims is not allocated before it is there."""
    content = bytearray()
    while len(content) < limit and (piece := source.read(min(PIECE, limit - len(content)))):
        content += piece
    return content


def header_of(said: Mapping[str, str], table: Table) -> bytes:
    header: dict[str, Any] = {"__metadata__": dict(said)}
    start = 0
    for name, (kind, shape) in table.items():
        end = start + size_of(kind, shape)
        header[name] = {"dtype": kind, "shape": list(shape), "data_offsets": [start, end]}
        start = end
    text = to_json(header).encode()
    text += b" " * (-len(text) % 8)  # tensors begin at a multiple of 8
    return len(text).to_bytes(8, "little") + text


def digest_of(said: Mapping[str, str], table: Table, content: Sequence[memoryview]) -> str:
    """Over everything but itself."""
    hashed = hashlib.sha256()
    hashed.update(to_json([{k: v for k, v in said.items() if k != "sha256"}, list(table.items())]).encode())
    for piece in content:
        hashed.update(piece)
    return hashed.hexdigest()


def bytes_of(tensor: torch.Tensor) -> memoryview:
    return tensor.reshape(-1).view(torch.uint8).numpy().data


def size_of(kind: str, shape: Sequence[int]) -> int:
    return math.prod(shape) * DTYPES[kind].itemsize
