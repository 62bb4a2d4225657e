"""A KV as a file: safetensors with a header that says which model made it. Nothing is ever unpickled.

Before a number is used, all of it is checked: the header's form, the names, types and shapes of every tensor
as they follow from it, the length of the whole, and a SHA-256 over header and tensors.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, BinaryIO, Final, NoReturn

import torch

from mnemic.activation.kv import FORMS, KV, KVError
from mnemic.activation.kv_description import FORMAT
from mnemic.activation.kv_quant import (
    BITS,
    Packed,
    pack_keys,
    pack_values,
    packed_key_shapes,
    packed_value_shapes,
    unpack_keys,
    unpack_values,
)
from mnemic.cube.errors import InvalidFile, InvalidOption
from mnemic.models.fingerprint import Fingerprint
from mnemic.models.tensor_file import (
    DTYPES,
    HEADER_LIMIT,
    TYPES,
    Table,
    bytes_of,
    digest_of,
    header_of,
    read_at_most,
    size_of,
    to_json,
)

STORAGES: Final = ("exact", *BITS)
_FIELDS: Final = frozenset(
    {
        "format", "kind", "fingerprint", "stack", "sources", "sha256", "form", "label", "storage", "error",
        "made_with", "shape", "dtype",
    }
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class KVFile:
    """A KV that was read, and what its file says beside it. sources: version ids; sha256: of the content."""

    kv: KV
    storage: str
    sources: tuple[str, ...]
    sha256: str


def encode(kv: KV, *, storage: str = "exact", sources: tuple[str, ...] = ()) -> tuple[str, list[memoryview]]:
    """The file's SHA-256 (that in its header) and its bytes, in pieces. O(bytes).

    storage: "exact" keeps every bit; "int8" and "int4" round (`stored` gives what will be read back).
    Raises InvalidOption.
    """
    if storage not in STORAGES:
        raise InvalidOption(f"storage={storage!r:.80} must be one of {', '.join(STORAGES)}")
    tensors = _tensors(kv, storage)
    table = {name: (TYPES[one.dtype], tuple(one.shape)) for name, one in tensors.items()}
    content = [bytes_of(one) for one in tensors.values()]
    said = {
        "format": FORMAT,
        "kind": "activation/kv",
        "fingerprint": to_json(kv.fingerprint.as_dict()),
        "stack": kv.stack,
        "sources": to_json(list(sources)),
        "form": kv.form,
        "label": kv.label,
        "storage": storage,
        "error": to_json(None if kv.error is None else asdict(kv.error)),
        "made_with": kv.made_with,
        "shape": to_json([len(kv.keys), *kv.keys[0].shape[1:], kv.values[0].shape[3]]),
        "dtype": TYPES[kv.keys[0].dtype],
    }
    said["sha256"] = digest_of(said, table, content)
    return said["sha256"], [memoryview(header_of(said, table)), *content]


def stored(kv: KV, storage: str) -> KV:
    """The KV as it will be read back from this storage: rounded, and labelled so."""
    if storage == "exact":
        return kv
    label = storage if kv.label == "exact" else f"{kv.label}, {storage}"
    tensors = _tensors(kv, storage)
    keys, values = _unpacked(tensors, len(kv.keys), storage, kv.keys[0].dtype)
    return KV(
        ids=kv.ids, keys=keys, values=values, fingerprint=kv.fingerprint, stack=kv.stack, form=kv.form,
        label=label, error=kv.error, made_with=kv.made_with,
    )  # fmt: skip


def decode(source: BinaryIO, *, name: str = "this file") -> KVFile:
    """Read and check a whole file. O(bytes). Raises InvalidFile, saying what is wrong with it."""
    head = source.read(8)
    size = int.from_bytes(head, "little")
    if len(head) < 8 or not 2 <= size <= HEADER_LIMIT:
        _refuse(name, "it does not begin as a safetensors file does")
    raw = source.read(size)
    if len(raw) < size:
        _refuse(name, "it ends within its header")
    said, table = _parse(raw, name)
    wanted = sum(size_of(kind, shape) for kind, shape in table.values())
    content = read_at_most(source, wanted + 1)
    if len(content) != wanted:
        more = "more" if len(content) > wanted else f"{len(content):,}"
        _refuse(name, f"its tensors take {wanted:,} bytes, and there are {more}")
    pieces, start = {}, 0
    for key, (kind, shape) in table.items():
        end = start + size_of(kind, shape)
        pieces[key] = memoryview(content)[start:end]
        start = end
    if digest_of(said, table, list(pieces.values())) != said["sha256"]:
        _refuse(name, "its content does not match its SHA-256: bytes were changed")
    tensors = {
        key: torch.frombuffer(pieces[key], dtype=DTYPES[kind]).view(shape)
        for key, (kind, shape) in table.items()
    }
    return _file(said, tensors, name)


def _file(said: Mapping[str, str], tensors: dict[str, torch.Tensor], name: str) -> KVFile:
    try:
        layers = json.loads(said["shape"])[0]
        error, sources = json.loads(said["error"]), json.loads(said["sources"])
        keys, values = _unpacked(tensors, layers, said["storage"], DTYPES[said["dtype"]])
        kv = KV(
            ids=tensors["ids"],
            keys=keys,
            values=values,
            fingerprint=Fingerprint.of_dict(json.loads(said["fingerprint"])),
            stack=said["stack"],
            form=said["form"],
            label=said["label"],
            error=None if error is None else KVError(**error),
            made_with=said["made_with"],
        )
        return KVFile(kv, said["storage"], tuple(str(one) for one in sources), said["sha256"])
    except (ValueError, TypeError, KeyError) as error_:
        _refuse(name, f"its header cannot be read ({error_})")


def _parse(raw: bytes, name: str) -> tuple[dict[str, str], Table]:
    """What the header says, and the tensors that have to follow: exactly those, in this order."""
    try:
        header = json.loads(raw)
        said = header.pop("__metadata__", {}) if isinstance(header, dict) else {}
        if not isinstance(said, dict) or not all(isinstance(value, str) for value in said.values()):
            raise ValueError("its metadata is not text")
    except (ValueError, RecursionError) as error:
        _refuse(name, f"its header is not JSON ({error})")
    if said.get("format") != FORMAT or set(said) != _FIELDS:
        _refuse(
            name,
            f"it is no KV memory: format={said.get('format')!r:.40}, and this mnemic reads {FORMAT}. It may "
            "be another kind of safetensors file, or written by a later version",
        )
    if said["form"] not in FORMS or said["storage"] not in STORAGES or said["dtype"] not in DTYPES:
        _refuse(name, "its form, storage or dtype is unknown")
    try:
        table = _table(header.get("ids"), json.loads(said["shape"]), said["storage"], said["dtype"])
        start = 0
        for key, (kind, shape) in table.items():
            end = start + size_of(kind, shape)
            expected = {"dtype": kind, "shape": list(shape), "data_offsets": [start, end]}
            if header.get(key) != expected:
                raise ValueError(f"{key} is {header.get(key)!r:.120}, not {expected}")
            start = end
        if set(header) != set(table):
            raise ValueError(f"it also holds {sorted(set(header) - set(table))[:3]}")
    except (ValueError, TypeError, KeyError, IndexError) as error:
        _refuse(name, f"its tensors are not those of a KV memory: {error}")
    return said, table


def _table(ids: Any, shape: Any, storage: str, dtype: str) -> Table:
    """Names, types and shapes of all tensors, as they follow from the header."""
    layers, heads, tokens, key_dim, value_dim = shape
    numbers = (layers, heads, tokens, key_dim, value_dim)
    if any(isinstance(one, bool) or not isinstance(one, int) or not 0 < one < 1 << 31 for one in numbers):
        raise ValueError(f"shape {shape!r:.80}")
    if layers > 10_000 or not isinstance(ids, dict):
        raise ValueError(f"{layers} layers, ids {ids!r:.40}")
    table: Table = {"ids": ("I32", (tokens,))}
    for layer in range(layers):
        if storage == "exact":
            table[f"{layer:04}.keys"] = (dtype, (1, heads, tokens, key_dim))
            table[f"{layer:04}.values"] = (dtype, (1, heads, tokens, value_dim))
            continue
        keys = packed_key_shapes(heads, tokens, key_dim, BITS[storage])
        values = packed_value_shapes(heads, tokens, value_dim, BITS[storage])
        for part, wanted in {**keys, **values}.items():
            table[f"{layer:04}.{part}"] = ("U8" if part.endswith(".q") else "F16", wanted)
    return {name: table[name] for name in _order(table)}


def _tensors(kv: KV, storage: str) -> dict[str, torch.Tensor]:
    """In the order in which they stand in the file."""
    out = {"ids": kv.ids}
    for layer, (keys, values) in enumerate(zip(kv.keys, kv.values, strict=True)):
        if storage == "exact":
            out[f"{layer:04}.keys"], out[f"{layer:04}.values"] = keys, values
            continue
        for name, packed in (
            ("keys", pack_keys(keys, BITS[storage])),
            ("values", pack_values(values, BITS[storage])),
        ):
            for part, tensor in zip(Packed._fields, packed, strict=True):
                out[f"{layer:04}.{name}.{part}"] = tensor
    kinds = {name: (TYPES[one.dtype], tuple(one.shape)) for name, one in out.items()}
    return {name: out[name].detach().cpu().contiguous() for name in _order(kinds)}


def _order(table: Table) -> list[str]:
    """Wide numbers before narrow ones, so that each tensor begins at a multiple of its own width."""
    return sorted(table, key=lambda name: (-DTYPES[table[name][0]].itemsize, name != "ids", name))


def _unpacked(
    tensors: Mapping[str, torch.Tensor], layers: int, storage: str, dtype: torch.dtype
) -> tuple[tuple[torch.Tensor, ...], tuple[torch.Tensor, ...]]:
    keys, values = [], []
    for layer in range(layers):
        if storage == "exact":
            keys.append(tensors[f"{layer:04}.keys"])
            values.append(tensors[f"{layer:04}.values"])
            continue
        for name, unpack, out in (("keys", unpack_keys, keys), ("values", unpack_values, values)):
            packed = Packed(*(tensors[f"{layer:04}.{name}.{part}"] for part in Packed._fields))
            out.append(unpack(packed, BITS[storage], dtype))
    return tuple(keys), tuple(values)


def _refuse(name: str, why: str) -> NoReturn:
    raise InvalidFile(
        f"{name} is not a sound KV memory: {why}. It was not used. Build it again from its sources: "
        "mnemic kv build"
    )
