"""A datastore: for every token of some texts, what the model had in mind before it (kNN-LM §2).

The activation at position t - 1 is the key, the token at t the value. One forward in blocks, no context
beyond a block.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mnemic.cube.checks import require_count
from mnemic.cube.errors import InvalidOption, ModelError
from mnemic.models.local import LocalModel
from mnemic.parametric.lora_training import Example, Progress, silent
from mnemic.parametric.tap import layers_of, tap_path, tapped, width_of

Text = str | Sequence[int] | Example  # of an example only the answer is stored, for it alone is to be said
Block = tuple[int, list[int], int]  # number of the text, ids, the first position that is stored


@dataclass(frozen=True, slots=True, kw_only=True)
class Taps:
    """Where keys are taken, and where a compiled memory listens, as layer numbers.

    Defaults: keys at the last layer (kNN-LM's convention), a compiled memory at 80 % of the depth (MLP Memory
    §5 finds 70 % best on text; there SmolLM2's states do not yet tell one invented name from another, see
    docs). block: tokens that are read at once, so the longest context a key has.
    """

    keys: int | None = None
    inputs: int | None = None
    block: int = 256

    def __post_init__(self) -> None:
        require_count(minimum=2, block=self.block)

    def layers(self, local: LocalModel) -> tuple[int, int]:
        depth = layers_of(local)
        keys = depth - 1 if self.keys is None else self.keys
        return keys, min(depth - 1, round(0.8 * depth)) if self.inputs is None else self.inputs


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Datastore:
    """n keys and their values. keys, inputs: [n, width] float32; values, blocks, texts: int32 [n].

    blocks: which block a key comes from (a query of the same block is its own context, not a neighbour);
    texts: which of the texts. `key_path` and `input_path` name the tapped modules.
    """

    keys: Tensor
    inputs: Tensor
    values: Tensor
    blocks: Tensor
    texts: Tensor
    key_path: str
    input_path: str

    def __len__(self) -> int:
        return int(self.values.shape[0])

    def first(self, count: int) -> Datastore:
        """The first `count` keys."""
        cut = {name: getattr(self, name)[:count] for name in ("keys", "inputs", "values", "blocks", "texts")}
        return Datastore(**cut, key_path=self.key_path, input_path=self.input_path)

    def context(self, place: int, tokens: int = 12) -> list[int]:
        """Values before this one in its block: the end of what the model had read."""
        start = max(0, place - tokens)
        return [int(self.values[n]) for n in range(start, place) if self.blocks[n] == self.blocks[place]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """What a datastore will cost, said before it is built. seconds: at the speed of a first block."""

    tokens: int
    seconds: float
    bytes: int


def estimate(local: LocalModel, texts: Sequence[Text], taps: Taps | None = None) -> Estimate:
    """Time one block, and multiply. bytes: keys in float32 and their values."""
    taps = taps or Taps()
    blocks = _blocks(local, texts, taps.block)
    tokens = sum(len(ids) - 1 - first for _, ids, first in blocks)
    started = time.perf_counter()
    _read(local, [blocks[0]], taps, silent)
    seconds = (time.perf_counter() - started) / len(blocks[0][1]) * sum(len(ids) for _, ids, _ in blocks)
    return Estimate(tokens=tokens, seconds=seconds, bytes=tokens * (width_of(local) * 4 + 12))


def build(
    local: LocalModel, texts: Sequence[Text], taps: Taps | None = None, *, progress: Progress = silent
) -> Datastore:
    """Read texts (or token ids) and keep what enters the feed-forward part of two layers at every position.

    O(tokens) forward, tokens · width · 8 bytes. Raises InvalidOption when no text has two tokens, ModelError
    for activations that are no numbers (half precision), UnsupportedModel.
    """
    taps = taps or Taps()
    return _read(local, _blocks(local, texts, taps.block), taps, progress)


def _blocks(local: LocalModel, texts: Sequence[Text], size: int) -> list[Block]:
    """The last token of one is the first of the next: no value is lost. An example is one block."""
    out: list[Block] = []
    for number, text in enumerate(texts):
        if isinstance(text, Example):
            out.append((number, [*text.prompt, *text.answer], len(text.prompt) - 1))
            continue
        ids = local.encode(text) if isinstance(text, str) else list(text)
        out += [(number, ids[start : start + size], 0) for start in range(0, len(ids) - 1, size - 1)]
    if not out:
        raise InvalidOption("the texts are too short: a datastore needs at least two tokens of one text")
    return out


def _read(local: LocalModel, blocks: Sequence[Block], taps: Taps, progress: Progress) -> Datastore:
    paths = [tap_path(local, layer) for layer in taps.layers(local)]
    keys, inputs, values, places, texts = [], [], [], [], []
    with torch.no_grad(), tapped(local, paths) as (key_tap, input_tap):
        for number, (text, ids, first) in enumerate(blocks):
            local.model(torch.tensor([ids]), use_cache=False, logits_to_keep=1)
            keys.append(key_tap.take()[0, first:-1].float())
            inputs.append(input_tap.take()[0, first:-1].float())
            if not bool(torch.isfinite(keys[-1]).all() and torch.isfinite(inputs[-1]).all()):
                raise ModelError(
                    f"{local.name} in {local.dtype} gives activations that are no numbers. Load it in float32"
                )
            values.append(torch.tensor(ids[first + 1 :], dtype=torch.int32))
            places.append(torch.full_like(values[-1], number))
            texts.append(torch.full_like(values[-1], text))
            progress("reading", number + 1, len(blocks))
    return Datastore(
        keys=torch.cat(keys),
        inputs=torch.cat(inputs),
        values=torch.cat(values),
        blocks=torch.cat(places),
        texts=torch.cat(texts),
        key_path=paths[0],
        input_path=paths[1],
    )
