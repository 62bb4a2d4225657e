"""What `transformers` calls a cache, holding the states of a stack of layers; its private names are known
here.

Written against transformers 5.23, which calls it `past_key_values`, and 5.24, which calls it `cache`.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping, Sequence
from typing import Any, Final, Self

import torch
from safetensors.torch import load as tensors_of
from safetensors.torch import save as bytes_of
from torch import Tensor
from transformers.cache_utils import Cache, CacheLayerMixin
from transformers.modeling_outputs import CausalLMOutputWithPast

from mnemic.cube.errors import IncompatibleMemory, InvalidFile, InvalidInput
from mnemic.layers.layer import MemoryLayer
from mnemic.layers.state import LayerSpec, LayerState, digest, read_file, read_header, write_whole

FORMAT: Final = "mnemic-stack-state-1"
CACHE_NAME: Final = (
    "cache" if "cache" in {f.name for f in dataclasses.fields(CausalLMOutputWithPast)} else "past_key_values"
)


class StateLayer(CacheLayerMixin):  # type: ignore[misc]
    """One layer's state; None before the first forward. `tokens` counts padding too, as masks do."""

    is_sliding = False

    def __init__(self) -> None:
        super().__init__()
        self.state: LayerState | None = None
        self.tokens = 0

    def get_seq_length(self) -> int:
        return self.tokens

    def get_max_length(self) -> int:
        return -1

    get_max_cache_shape = get_max_length

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.tokens + query_length, 0

    def lazy_initialization(self, *_: Any, **__: Any) -> None:
        """States are made by their layers."""

    def update(self, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        raise InvalidInput(
            "a StateCache holds states, not keys and values: pass it to a StackForCausalLM only"
        )

    def reset(self) -> None:
        self.state, self.tokens = None, 0

    def reorder_cache(self, beam_idx: Tensor) -> None:
        self.batch_select_indices(beam_idx)

    def batch_select_indices(self, indices: Tensor) -> None:
        if self.state is not None:
            self.state = self.state.select(indices)

    def batch_repeat_interleave(self, repeats: int) -> None:
        if self.state is not None:
            self.batch_select_indices(
                torch.arange(self.state.batch, device=self.state.seen.device).repeat_interleave(repeats)
            )


class StateCache(Cache):  # type: ignore[misc]
    """The states of a stack. Pass it on to go on; `clone()` it first to go on twice from the same point."""

    layers: list[StateLayer]

    def __init__(self, depth: int) -> None:
        super().__init__(layers=[StateLayer() for _ in range(depth)])

    @property
    def states(self) -> list[LayerState]:
        """One a layer. Raises InvalidInput before the first forward."""
        found = [layer.state for layer in self.layers if layer.state is not None]
        if len(found) != len(self.layers):
            raise InvalidInput("this cache has seen nothing yet: run the model on it first")
        return found

    def size_bytes(self) -> int:
        """Bytes of all states."""
        return sum(state.size_bytes() for state in self.states)

    def clone(self) -> StateCache:
        """A cache of its own from the same point. States are never written into, so nothing is copied."""
        other = StateCache(len(self.layers))
        for mine, theirs in zip(self.layers, other.layers, strict=True):
            theirs.state, theirs.tokens = mine.state, mine.tokens
        return other

    def detach(self) -> StateCache:
        """A clone without history: truncated back-propagation, and streams without end."""
        other = self.clone()
        for layer in other.layers:
            layer.state = None if layer.state is None else layer.state.detach()
        return other

    def to_bytes(
        self,
        model: torch.nn.Module,
        *,
        token_ids: Tensor | None = None,
        about: Mapping[str, str] | None = None,
    ) -> bytes:
        """A safetensors file: every state, its meaning, a digest of the weights that made it.

        `token_ids`: what was read, kept as a digest alone. `about` is kept in its header.
        """
        tensors = {
            f"{number}.{name}": tensor.detach().clone(memory_format=torch.contiguous_format).cpu()
            for number, state in enumerate(self.states)
            for name, tensor in state.tensors().items()
        }
        header = {
            **(about or {}),
            "format": FORMAT,
            "specs": json.dumps([state.spec.to_json() for state in self.states]),
            "tokens": str(self.layers[0].tokens),
            "weights": digest(model.state_dict()),
            "sha256": digest(tensors),
        }
        if token_ids is not None:
            header["token_ids"] = ids_digest(token_ids)
        return bytes_of(tensors, metadata=header)

    @classmethod
    def from_bytes(cls, data: bytes, model: torch.nn.Module, layers: Sequence[MemoryLayer[Any]]) -> Self:
        """The inverse, on the model's device. Raises InvalidFile, IncompatibleMemory.

        Weights are compared, and every layer's specification too: a window is in no weight.
        """
        header = read_header(data)
        if header.get("format") != FORMAT:
            raise InvalidFile(f"not the states of a stack: its format is {header.get('format')!r}")
        tensors = tensors_of(data)
        if digest(tensors) != header.get("sha256"):
            raise InvalidFile("the states of this stack are damaged: their digest does not match")
        if header["weights"] != digest(model.state_dict()):
            raise IncompatibleMemory(
                "these states were made by other weights; a state goes on only with the weights that made it",
                part="weights",
                expected=header["weights"],
                found=digest(model.state_dict()),
            )
        require_specs([LayerSpec.from_json(spec) for spec in json.loads(header["specs"])], layers)
        cache = cls(len(layers))
        for number, layer in enumerate(layers):
            start = f"{number}."
            mine = {name.removeprefix(start): t for name, t in tensors.items() if name.startswith(start)}
            cache.layers[number].state = layer.load_state(layer.State.from_tensors(mine, layer.spec))
            cache.layers[number].tokens = int(header["tokens"])
        return cache

    def save(
        self, path: str | os.PathLike[str], model: torch.nn.Module, *, token_ids: Tensor | None = None
    ) -> None:
        """Write a file, whole or not at all. Makes its folder. Raises OSError."""
        write_whole(path, self.to_bytes(model, token_ids=token_ids))


def require_specs(specs: Sequence[LayerSpec], layers: Sequence[MemoryLayer[Any]]) -> None:
    """Raise IncompatibleMemory, naming what differs, unless these are the layers' specifications."""
    if len(specs) != len(layers):
        raise IncompatibleMemory(
            f"these states are of {len(specs)} layers, this stack has {len(layers)}",
            part="layers",
            expected=str(len(specs)),
            found=str(len(layers)),
        )
    for spec, layer in zip(specs, layers, strict=True):
        layer.spec.require(spec)


def ids_digest(token_ids: Tensor) -> str:
    """SHA-256 of what was read, whatever integer type holds it."""
    return digest({"token_ids": token_ids.long()})


def load_cache(path: str | os.PathLike[str], model: Any) -> StateCache:
    """The states that `StateCache.save` wrote, for the model that made them (a StackForCausalLM)."""
    return StateCache.from_bytes(read_file(path), model, model.memory_layers())
