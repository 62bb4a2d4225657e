"""Where should a compiled memory listen? New facts by layer: told apart by distance there, and learned there.

On other facts than those that are reported: what is chosen here is tested there.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import torch
from torch import Tensor

from mnemic.bench.parametric.memories import invented
from mnemic.models.local import LocalModel
from mnemic.parametric.blend import Memory
from mnemic.parametric.datastore import Datastore
from mnemic.parametric.mlp import compile_memory, targets
from mnemic.parametric.nearest import Search, nearest
from mnemic.parametric.tap import layers_of, tap_path, tapped
from mnemic.transform.text_to_memory import Options

OTHER: Final = 100  # added to the seed
DEPTHS: Final = (0.5, 0.6, 0.7, 0.8, 0.9)  # and the last layer
LAM: Final = 0.8
Step = Callable[[str, str], None]


def run(model: LocalModel, *, count: int, seed: int, step: Step = lambda *_: None) -> list[dict[str, Any]]:
    """For each depth, how often the right name's first token comes first in unseen wordings: by search with
    its states as keys, and compiled with them as input, both speaking everywhere.
    """
    told = invented(count, seed + OTHER)
    depth = layers_of(model)
    layers = sorted({*(min(depth - 1, round(part * depth)) for part in DEPTHS), depth - 1})
    ids = [model.encode(wording + ".") for wordings, _ in told for wording in wordings[:4]]
    started = time.process_time()
    states = _read(model, ids, layers)
    asked = _ask(model, told, layers)
    step("layers", f"{count} facts read at {len(layers)} layers in {time.process_time() - started:.0f} s")
    blocks = torch.cat([torch.full((len(one) - 1,), n, dtype=torch.int32) for n, one in enumerate(ids)])
    values = torch.cat([torch.tensor(one[1:], dtype=torch.int32) for one in ids])

    def store(layer: int) -> Datastore:
        return Datastore(
            keys=states[depth - 1], inputs=states[layer], values=values, blocks=blocks, texts=blocks,
            key_path=tap_path(model, depth - 1), input_path=tap_path(model, layer),
        )  # fmt: skip

    search = Search(k=min(32, len(values) - 1), temperature=0.1)
    taught = targets(nearest(model, store(depth - 1), search))
    out = []
    for layer in layers:
        near = nearest(model, replace(store(layer), keys=states[layer]), search)
        started = time.process_time()
        options = replace(Options().compile, precision="bfloat16")
        made = compile_memory(model, store(layer), taught, options)
        row = {
            "layer": layer,
            "layers": depth,
            "kNN": asked.right(near, layer),
            "MLP": asked.right(made, layer),
            "compile_s": time.process_time() - started,
        }
        step("layers", f"layer {layer}: kNN {row['kNN']:.2f}, MLP {row['MLP']:.2f}")
        out.append(row)
    return out


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Asked:
    """What is in the model's mind before each name in wordings that no memory holds, by layer; its own
    probabilities, and the first token of the name.
    """

    states: dict[int, Tensor]
    alone: Tensor
    right_token: Tensor

    def right(self, memory: Memory, layer: int) -> float:
        """Share of the wordings after which the right token is the likeliest."""
        mixed = (1 - LAM) * self.alone + LAM * memory.log_probs(self.states[layer]).exp()
        return float((mixed.argmax(1) == self.right_token).float().mean())


def _read(model: LocalModel, blocks: Sequence[Sequence[int]], layers: Sequence[int]) -> dict[int, Tensor]:
    """What enters the feed-forward part of each of these layers, but for the last token of each block."""
    out: dict[int, list[Tensor]] = {layer: [] for layer in layers}
    with torch.no_grad(), tapped(model, [tap_path(model, layer) for layer in layers]) as taps:
        for ids in blocks:
            model.model(torch.tensor([list(ids)]), use_cache=False, logits_to_keep=1)
            for layer, tap in zip(layers, taps, strict=True):
                out[layer].append(tap.take()[0, :-1].float())
    return {layer: torch.cat(found) for layer, found in out.items()}


def _ask(model: LocalModel, told: Sequence[tuple[list[str], str]], layers: Sequence[int]) -> _Asked:
    out: dict[int, list[Tensor]] = {layer: [] for layer in layers}
    alone, right = [], []
    with torch.no_grad(), tapped(model, [tap_path(model, layer) for layer in layers]) as taps:
        for wordings, name in told:
            for wording in wordings[4:]:
                prompt = model.encode(wording.removesuffix(f" {name}"))
                right.append(model.encode(wording)[len(prompt)])
                said = model.model(torch.tensor([prompt]), use_cache=False, logits_to_keep=1).logits[0, -1]
                alone.append(said.float().softmax(-1))
                for layer, tap in zip(layers, taps, strict=True):
                    out[layer].append(tap.take()[0, -1].float())
    return _Asked(
        states={layer: torch.stack(found) for layer, found in out.items()},
        alone=torch.stack(alone),
        right_token=torch.tensor(right),
    )
