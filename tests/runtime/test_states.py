"""A stream that stops in one process and goes on in another: the same outputs, or a refusal that says why."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import mnemic
from language_models import needs_torch
from mnemic.cube.errors import (
    IncompatibleMemory,
    InvalidFile,
    InvalidInput,
    InvalidOption,
    NotFound,
    ScopeRequired,
    StaleMemory,
)

pytestmark = needs_torch
CHILD = """
import sys
import torch
from safetensors.torch import load_file, save_file
import mnemic
from mnemic.layers.table import make

torch.set_num_threads(1)
vault, cube, folder = sys.argv[1:]
layer = make("titans-mag", dim=16, heads=2, window=5, chunk=4)
layer.load_state_dict(load_file(f"{folder}/weights"))
with mnemic.open(vault) as memory, torch.no_grad():
    y, _ = layer(load_file(f"{folder}/rest")["x"], memory.load_state(cube, layer))
save_file({"y": y.contiguous()}, f"{folder}/y")
"""


def layer_of(name: str = "gated-delta", seed: int = 0, **options: Any) -> Any:
    import torch

    from mnemic.layers.table import make

    torch.manual_seed(seed)
    return make(name, dim=16, heads=2, **options)


def stream(time: int = 23, seed: int = 1) -> Any:
    import torch

    return torch.randn(2, time, 16, generator=torch.Generator().manual_seed(seed))


def read(layer: Any, time: int = 11) -> Any:
    import torch

    with torch.no_grad():
        return layer(stream()[:, :time])[1]


def stack(**window: int) -> Any:
    import torch

    from mnemic.layers.stack import StackConfig, StackForCausalLM

    torch.manual_seed(0)
    layers = ["base-conv", {"layer": "taylor", "key_dim": 3}, {"layer": "window", **window}]
    return StackForCausalLM(StackConfig(layers=layers, dim=16, vocab_size=40)).eval()


def test_a_stream_goes_on_in_another_process(told: Any, tmp_path: Path) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    layer, x = layer_of("titans-mag", window=5, chunk=4), stream()
    with torch.no_grad():
        wanted = layer(x)[0][:, 11:]
    cube = told.memory.keep_state(read(layer), layer, user="ana", sources=told.ids, title="a walk")
    told.memory.close()
    save_file({k: v.contiguous() for k, v in layer.state_dict().items()}, tmp_path / "weights")
    save_file({"x": x[:, 11:].contiguous()}, tmp_path / "rest")
    command = [sys.executable, "-c", CHILD, str(told.path), cube.id, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (load_file(tmp_path / "y")["y"] - wanted).abs().max() < 1e-5


def test_a_stack_goes_on_from_its_cube_also_after_a_dump(told: Any, tmp_path: Path) -> None:
    import torch

    from mnemic.layers.stack_cache import CACHE_NAME

    model, ids = stack(window=4), torch.randint(0, 40, (2, 20), generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        wanted = model(ids).logits[:, 12:]
        cache = model(ids[:, :12])[CACHE_NAME]
        cube = told.memory.keep_state(cache, model, user="ana", token_ids=ids[:, :12])
        told.memory.dump(tmp_path / "ana.mnemic", user="ana")
        with mnemic.open(tmp_path / "other.db") as other:
            other.load(tmp_path / "ana.mnemic")
            for _ in range(2):  # what is loaded is a copy: going on leaves the cube as it was
                again = other.load_state(cube.id, model, token_ids=ids[:, :12])
                found = model(ids[:, 12:], **{CACHE_NAME: again}).logits
                assert (found - wanted).abs().max() < 1e-5
    with pytest.raises(IncompatibleMemory, match="other token_ids") as refused:
        told.memory.load_state(cube, model, token_ids=ids[:, :11])
    assert refused.value.part == "token_ids"


def test_the_cube_says_what_it_is_without_its_tensors(told: Any) -> None:
    from mnemic.activation.kv_description import Description
    from mnemic.activation.state_description import StateDescription

    layer = layer_of()
    state = read(layer)
    cube = told.memory.keep_state(state, layer, user="ana", session="s1", sources=told.ids, title="a walk")
    described = StateDescription.of(told.memory.get(cube.id))
    assert (described.seen, described.tokens, described.title) == ([11, 11], 11, "a walk")
    assert (described.specs[0]["layer"], described.token_ids) == ("gated-delta", None)
    assert state.size_bytes() < described.size < state.size_bytes() + 2_000
    assert [one.cube_id for one in cube.header.sources] == told.ids
    assert cube.header.scope.session == "s1"
    with pytest.raises(InvalidOption, match="not a KV memory"):
        Description.of(cube)
    with pytest.raises(InvalidOption, match="not a KV memory"), told.memory.mount(told.model, cube):
        pass
    with pytest.raises(InvalidOption, match="not a state of layers"):
        told.memory.load_state(told.memory.as_kv(told.ids, told.model), layer)


@pytest.mark.parametrize(
    ("other", "part"),
    [
        ({"seed": 1}, "weights"),
        ({"key_dim": 4}, "key_dim"),
        ({"name": "delta"}, "layer"),
    ],
    ids=lambda value: str(value),
)
def test_another_layer_is_refused_by_the_part_that_differs(
    told: Any, other: dict[str, Any], part: str
) -> None:
    layer = layer_of()
    cube = told.memory.keep_state(read(layer), layer, user="ana")
    told.memory._parts.vault.blobs.path(cube.blob).write_bytes(b"not read")
    with pytest.raises(IncompatibleMemory) as refused:
        told.memory.load_state(cube, layer_of(**other))
    assert refused.value.part == part
    assert refused.value.expected != refused.value.found


def test_weights_that_were_trained_on_are_other_weights(told: Any) -> None:
    import torch

    layer = layer_of()
    cube = told.memory.keep_state(read(layer), layer, user="ana")
    told.memory.load_state(cube, layer)
    with torch.no_grad():
        layer.qkv.weight[0, 0] += 1e-3
    with pytest.raises(IncompatibleMemory, match="other weights"):
        told.memory.load_state(cube, layer)
    model = stack(window=4)
    with pytest.raises(IncompatibleMemory, match="the state of a layer"):
        told.memory.load_state(cube, model)


def test_a_window_is_in_no_weight_and_is_compared_too(told: Any) -> None:
    import torch

    from mnemic.layers.stack_cache import CACHE_NAME, StateCache

    model, other = stack(window=4), stack(window=5)
    with torch.no_grad():
        cache = model(torch.zeros(1, 9, dtype=torch.long))[CACHE_NAME]
    cube = told.memory.keep_state(cache, model, user="ana")
    with pytest.raises(IncompatibleMemory) as refused:
        told.memory.load_state(cube, other)
    assert (refused.value.part, refused.value.expected, refused.value.found) == ("window", "4", "5")
    with pytest.raises(IncompatibleMemory, match="window is 5, the state's is 4"):
        StateCache.from_bytes(cache.to_bytes(model), other, other.memory_layers())


def test_a_state_ends_with_what_it_was_read_from(told: Any) -> None:
    layer = layer_of()
    cubes = [told.memory.keep_state(read(layer), layer, user="ana", sources=told.ids[:1]) for _ in range(3)]
    free = told.memory.keep_state(read(layer, 7), layer, user="ana")
    change = told.memory.update(told.ids[0], "Ana moved to Braga.")
    with pytest.raises(StaleMemory, match="was updated"):
        told.memory.load_state(cubes[0], layer)
    told.memory.undo(change.id)
    assert told.memory.load_state(cubes[0], layer).seen.tolist() == [11, 11]
    file = told.memory._parts.vault.blobs.path(cubes[0].blob)
    told.memory.erase(told.ids[0], reason="asked to")
    assert not file.exists()
    for cube in cubes:
        with pytest.raises((StaleMemory, NotFound)):
            told.memory.load_state(cube, layer)
    assert told.memory.load_state(free, layer).seen.tolist() == [7, 7]


def test_a_file_that_is_damaged_or_anothers_is_refused(told: Any) -> None:
    layer = layer_of()
    one, two = (told.memory.keep_state(read(layer, time), layer, user="ana") for time in (5, 9))
    files = [told.memory._parts.vault.blobs.path(cube.blob) for cube in (one, two)]
    sound = files[0].read_bytes()
    files[1].write_bytes(sound)
    with pytest.raises(InvalidFile, match="not the one that the cube describes"):
        told.memory.load_state(two, layer)
    flipped = bytearray(sound)
    flipped[-3] ^= 1
    for broken in (bytes(flipped), sound[:-4], b""):
        files[0].write_bytes(broken)
        with pytest.raises(InvalidFile):
            told.memory.load_state(one, layer)


def test_what_cannot_be_kept_is_refused_before_anything_is_written(told: Any) -> None:
    layer = layer_of()
    before = told.memory.count(user="ana")
    with pytest.raises(ScopeRequired):
        told.memory.keep_state(read(layer), layer)
    with pytest.raises(IncompatibleMemory, match="key_dim"):
        told.memory.keep_state(read(layer), layer_of(key_dim=4), user="ana")
    with pytest.raises(InvalidInput, match="StateCache with its StackForCausalLM"):
        told.memory.keep_state(read(layer), stack(window=4), user="ana")
    other = told.memory.add("Bo swims.", user="bo")[0]
    with pytest.raises(InvalidInput, match="cannot be made from cubes of bo"):
        told.memory.keep_state(read(layer), layer, user="ana", sources=[other])
    with pytest.raises(NotFound):
        told.memory.keep_state(read(layer), layer, user="ana", sources=["0" * 32])
    assert told.memory.count(user="ana") == before
