"""Files of KV: what is read back, and that nothing else is."""

from __future__ import annotations

import io
import json
import os
import pickle
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from language_models import TEXT, needs_torch, tiny_llama
from mnemic.cube.errors import InvalidFile, InvalidOption

pytestmark = needs_torch
STORAGES = ("exact", "int8", "int4")


@cache
def made(storage: str = "exact", dtype: str = "float32") -> tuple[Any, bytes]:
    from mnemic.activation.kv import prefill
    from mnemic.activation.kv_file import encode
    from mnemic.models.local import DTYPES

    local = tiny_llama()
    local.model.to(DTYPES[dtype])
    kv = prefill(local, local.encode(TEXT * 3)[:131])  # not a multiple of a group
    return kv, b"".join(encode(kv, storage=storage, sources=("a", "b"))[1])


def decode(content: bytes) -> Any:
    from mnemic.activation.kv_file import decode as read

    return read(io.BytesIO(content))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_what_was_written_is_read_to_the_last_bit(dtype: str) -> None:
    import torch

    kv, content = made("exact", dtype)
    found = decode(content)
    assert torch.equal(found.kv.ids, kv.ids)
    for one, two in zip((*kv.keys, *kv.values), (*found.kv.keys, *found.kv.values), strict=True):
        assert one.dtype == two.dtype
        assert torch.equal(one, two)
    assert (found.kv.fingerprint, found.kv.stack, found.kv.form) == (kv.fingerprint, kv.stack, kv.form)
    assert (found.sources, found.storage, found.kv.label) == (("a", "b"), "exact", "exact")


@pytest.mark.parametrize("storage", ["int8", "int4"])
def test_fewer_bits_are_smaller_and_as_far_off_as_said(storage: str) -> None:
    import torch

    from mnemic.activation.kv import compare
    from mnemic.activation.kv_file import stored

    kv, content = made(storage)
    exact_size = len(made()[1])
    assert len(content) < exact_size * {"int8": 0.45, "int4": 0.35}[storage]
    rounded, found = stored(kv, storage), decode(content).kv
    assert rounded.label == storage
    for one, two in zip((*rounded.keys, *rounded.values), (*found.keys, *found.values), strict=True):
        assert torch.equal(one, two)
    bits = {"int8": 8, "int4": 4}[storage]
    for layer, (whole, other) in enumerate(zip(kv.keys, rounded.keys, strict=True)):
        reach = whole.amax(2) - whole.amin(2)  # of each channel
        assert ((whole - other).abs().amax(2) <= reach / (2**bits - 1) + 4e-3 * whole.abs().amax()).all(), (
            layer
        )
    error = compare(tiny_llama(), kv, rounded, [5, 6, 7])
    assert 0 < error.kv < {"int8": 0.01, "int4": 0.15}[storage]


def test_any_other_reader_of_safetensors_opens_it(tmp_path: Path) -> None:
    from safetensors import safe_open

    for storage in STORAGES:
        path = tmp_path / f"{storage}.safetensors"
        path.write_bytes(made(storage)[1])
        with safe_open(path, framework="pt") as opened:
            assert opened.metadata()["format"] == "mnemic-kv-1"
            assert opened.get_tensor("ids").tolist() == made()[0].ids.tolist()
            assert len(list(opened.keys())) == {"exact": 9, "int8": 25, "int4": 25}[storage]


@settings(max_examples=150)
@given(data=st.data(), storage=st.sampled_from(STORAGES))
def test_one_bit_anywhere_is_noticed(data: st.DataObject, storage: str) -> None:
    content = bytearray(made(storage)[1])
    head = 8 + int.from_bytes(content[:8], "little")
    area = data.draw(st.sampled_from(["length", "header", "tensors"]))
    low, high = {"length": (0, 8), "header": (8, head), "tensors": (head, len(content))}[area]
    content[data.draw(st.integers(low, high - 1))] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(InvalidFile):
        decode(bytes(content))


@settings(max_examples=60)
@given(data=st.data(), storage=st.sampled_from(STORAGES))
def test_a_file_cut_short_or_with_more_behind_it_is_refused(data: st.DataObject, storage: str) -> None:
    content = made(storage)[1]
    with pytest.raises(InvalidFile):
        decode(content[: data.draw(st.integers(0, len(content) - 1))])
    with pytest.raises(InvalidFile, match="there are more"):
        decode(content + data.draw(st.binary(min_size=1, max_size=9)))


@given(content=st.binary(max_size=200))
def test_anything_else_is_refused(content: bytes) -> None:
    with pytest.raises(InvalidFile):
        decode(content)


def test_other_safetensors_files_and_pickles_are_refused_and_nothing_is_unpickled(tmp_path: Path) -> None:
    import torch
    from safetensors.torch import save

    ran = tmp_path / "ran"

    class Evil:
        def __reduce__(self) -> Any:
            return os.mkdir, (str(ran),)

    torch.save({"keys": Evil()}, tmp_path / "kv.pt")
    others = [
        save({"ids": torch.arange(3)}),
        save({"0000.keys": torch.zeros(1, 2, 3, 8)}, metadata={"format": "pt"}),
        pickle.dumps(Evil()),
        (tmp_path / "kv.pt").read_bytes(),
        len(b"[]").to_bytes(8, "little") + b"[]",
    ]
    for content in others:
        with pytest.raises(InvalidFile, match="not a sound KV memory"):
            decode(content)
    assert not ran.exists()


def test_a_header_that_claims_the_world_allocates_nothing() -> None:
    content = made()[1]
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    header["__metadata__"]["shape"] = "[9999,2000000000,2000000000,2000000000,2000000000]"
    forged = json.dumps(header).encode()
    with pytest.raises(InvalidFile):
        decode(len(forged).to_bytes(8, "little") + forged)
    with pytest.raises(InvalidFile):
        decode((1 << 62).to_bytes(8, "little"))


def test_an_unknown_storage_is_refused() -> None:
    from mnemic.activation.kv_file import encode

    with pytest.raises(InvalidOption, match="exact, int8, int4"):
        encode(made()[0], storage="int2")
