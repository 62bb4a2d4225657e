"""A saved state goes on in another process, with the same outputs, or says why it cannot."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from layer_matrix import CASES, Case, assert_identical, stream
from safetensors.torch import load_file, save_file

from mnemic.cube.errors import IncompatibleMemory, InvalidFile, NotFound
from mnemic.layers.state import LayerState
from mnemic.layers.table import load_state

CHILD = """
import sys
from pathlib import Path
from safetensors.torch import load_file, save_file
from mnemic.layers.table import load_state, make
torch_threads = __import__("torch").set_num_threads(1)
for folder in sorted(Path(sys.argv[1]).iterdir()):
    state = load_state(folder / "state.safetensors")
    layer = make(state.spec.layer, **state.spec.options).double()
    layer.load_state_dict(load_file(folder / "weights.safetensors"))
    y, after = layer(load_file(folder / "rest.safetensors")["x"], state)
    save_file({"y": y.detach().contiguous()}, folder / "y.safetensors")
    after.save(folder / "after.safetensors")
"""


def test_a_stream_goes_on_in_another_process(tmp_path: Path) -> None:
    expected = {}
    for number, case in enumerate(CASES):
        folder = tmp_path / f"{number:03}"
        folder.mkdir()
        layer, x = case.layer(), stream()
        y, after = layer(x)
        _, state = layer(x[:, :10])
        state.save(folder / "state.safetensors")
        save_file({k: v.contiguous() for k, v in layer.state_dict().items()}, folder / "weights.safetensors")
        save_file({"x": x[:, 10:].contiguous()}, folder / "rest.safetensors")
        expected[folder] = str(case), y.detach()[:, 10:], after.detach()
    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    for folder, (name, y, after) in expected.items():
        torch.testing.assert_close(
            load_file(folder / "y.safetensors")["y"], y, atol=1e-10, rtol=1e-10, msg=name
        )
        for key, tensor in load_state(folder / "after.safetensors").tensors().items():
            torch.testing.assert_close(
                tensor, after.tensors()[key], atol=1e-10, rtol=1e-10, msg=f"{name} {key}"
            )


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
def test_what_is_loaded_is_what_was_saved(case: Case, dtype: torch.dtype, tmp_path: Path) -> None:
    layer = case.layer(dtype)
    state = layer(stream(dtype=dtype))[1]
    path = tmp_path / "a new folder" / "state"
    state.save(path, about={"weights": "abc"})
    for loaded in (load_state(path), layer.State.load(path)):
        assert type(loaded) is type(state)
        assert_identical(loaded, state)
        layer.spec.require(loaded.spec)
        layer(stream(3, dtype=dtype), loaded)
    layer.State.load(path, about={"weights": "abc"})
    with pytest.raises(IncompatibleMemory, match="weights"):
        layer.State.load(path, about={"weights": "other"})
    assert_identical(type(state).from_tensors(state.tensors(), state.spec), state)


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    layer = CASES[0].layer(torch.float32)
    state: LayerState = layer(stream(dtype=torch.float32))[1]
    data = state.to_bytes()
    flipped = bytearray(data)
    flipped[-3] ^= 1
    for number, broken in enumerate((b"", b"not a file", data[:-5], bytes(flipped))):
        path = tmp_path / str(number)
        path.write_bytes(broken)
        with pytest.raises(InvalidFile):
            load_state(path)
    with pytest.raises(NotFound):
        load_state(tmp_path / "nowhere")
    save_file({"x": torch.zeros(1)}, tmp_path / "other")
    with pytest.raises(InvalidFile, match="format"):
        load_state(tmp_path / "other")
    with pytest.raises(InvalidFile, match="has no more"):
        type(state).from_tensors({**state.tensors(), "more": torch.zeros(1)}, state.spec)
    with pytest.raises(InvalidFile, match="seen"):
        type(state).from_tensors({k: v for k, v in state.tensors().items() if k != "seen"}, state.spec)


def test_the_bytes_do_not_hold_what_a_slice_kept_alive(tmp_path: Path) -> None:
    state = CASES[0].layer(torch.float32)(stream(dtype=torch.float32))[1]
    large = torch.zeros(1000, state.seen.shape[0], dtype=torch.int32)
    large[3] = state.seen
    sliced = replace(state, seen=large[3])
    assert sliced.size_bytes() > state.size_bytes()
    assert sliced.owned().size_bytes() == state.size_bytes()
    sliced.save(tmp_path / "state")
    assert_identical(load_state(tmp_path / "state"), state)
