"""A process that may take no more memory than a budget and says what a model on disk did in it.

python -m mnemic.bench.flash.bounded FOLDER BUDGET NEURONS TOKENS: NEURONS is "recorded", "learned", "all" or
"dense". Reads prompt and record from FOLDER/record.safetensors; prints one line of JSON.
"""

from __future__ import annotations

import json
import resource
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

from mnemic.models.local import LocalModel
from mnemic.parametric.flash_mlp import Predictor, Recorded
from mnemic.parametric.flash_model import FlashModel

RECORD: Final = "record.safetensors"
DENSE: Final = "dense"
SPARE: Final = 16 << 20  # what Python and PyTorch take on the way: activations, caches of kernels, stacks


def main(folder: str, budget: int, neurons: str, tokens: int) -> dict[str, Any]:
    """Generate within the budget. Linux only: the limit is on all that the process maps."""
    from safetensors import safe_open

    threading.stack_size(512 << 10)
    path = Path(folder)
    _warm_up()
    with safe_open(str(path / RECORD), framework="pt") as file:
        prompt = file.get_tensor("prompt").tolist()
    before = _kilobytes("VmRSS")
    mapped = _kilobytes("VmSize") * 1024
    resource.setrlimit(resource.RLIMIT_AS, (mapped + budget + SPARE,) * 2)
    if neurons == DENSE:
        return {"refused": _dense(path / DENSE)}
    started = time.perf_counter()
    with FlashModel.open(
        path, budget=budget, tokens=len(prompt) + tokens, predictor=_chosen(path, neurons), uncached=True
    ) as flash:
        opened = time.perf_counter() - started
        started = time.perf_counter()
        said: list[int] = []
        for token in answer(flash.local, prompt, tokens):
            if not said:  # the prompt was read; from here on it is one token at a time
                prefill, prefill_s = flash.traffic, time.perf_counter() - started
                started = time.perf_counter()
            said.append(token)
        steps = max(1, len(said) - 1)
        spent = time.perf_counter() - started
        traffic = flash.traffic
        asked = traffic.asked - prefill.asked
        return {
            "said": said,
            "prefill_bytes": prefill.bytes_read,
            "prefill_s": prefill_s,
            "bytes_per_token": (traffic.bytes_read - prefill.bytes_read) / steps,
            "reads_per_token": (traffic.reads - prefill.reads) / steps,
            "hit_rate": (traffic.hits - prefill.hits) / max(1, asked),
            "ms_per_token": 1000 * spent / steps,
            "cold_by": flash.cold_by,
            "held": flash.held.total,
            "peak_growth": (_kilobytes("VmHWM") - before) * 1024,
            "open_s": opened,
        }


def answer(local: LocalModel, prompt: list[int], tokens: int) -> Iterator[int]:
    """Drawn, since what is likeliest repeats itself soon, and a window would gain by that; the same draws
    each time.
    """
    torch.manual_seed(0)
    return local.answer_tokens(prompt, max_tokens=tokens, temperature=0.8)


def _chosen(path: Path, neurons: str) -> Callable[[int], Predictor] | None:
    if neurons == "learned":
        return None
    if neurons == "all":
        count = json.loads((path / "config.json").read_text())["intermediate_size"]
        return lambda _: lambda x: torch.ones(len(x), count, dtype=torch.bool)
    from safetensors import safe_open

    count = json.loads((path / "config.json").read_text())["intermediate_size"]

    def recorded(layer: int) -> Predictor:
        with safe_open(str(path / RECORD), framework="pt") as file:
            return Recorded(file.get_tensor(f"layer-{layer}"), count)

    return recorded


def _dense(path: Path) -> bool:
    """Whether the whole model's weights are too much for the same process: the limit is one."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        held = [one.clone() for one in load_file(path / "model.safetensors").values()]
    except (MemoryError, RuntimeError, OSError, SafetensorError) as error:
        return isinstance(error, MemoryError) or "memory" in str(error)
    return not held


def _warm_up() -> None:
    """What a first forward loads is no part of a model."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=1, hidden_act="relu",
    )  # fmt: skip
    model = LocalModel(LlamaForCausalLM(config), None, name="warm-up")
    with torch.inference_mode():
        model.model(torch.tensor([[1, 2, 3]]))
        _: Tensor = torch.randn(300, 300) @ torch.randn(300, 300)


def _kilobytes(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1])
    return 0


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1], int(sys.argv[2]), sys.argv[3], int(sys.argv[4]))))
