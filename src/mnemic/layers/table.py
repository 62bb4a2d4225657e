"""The one table that names layers. The test matrix, the docs index and the causal LM are made from it."""

from __future__ import annotations

import importlib
import os
from typing import Any, Final

from mnemic.cube.errors import InvalidOption
from mnemic.layers.layer import MemoryLayer
from mnemic.layers.state import LayerState, read_file, spec_of

LAYERS: Final = {
    "attention": "mnemic.layers.attention:CausalAttention",
    "window": "mnemic.layers.window:SlidingWindow",
    "linear": "mnemic.layers.linear_attention:LinearAttention",
    "hebbian": "mnemic.layers.hebbian:Hebbian",
    "retention": "mnemic.layers.retention:Retention",
    "gated-linear": "mnemic.layers.gated_linear:GatedLinearAttention",
    "delta": "mnemic.layers.delta:DeltaRule",
    "gated-delta": "mnemic.layers.gated_delta:GatedDeltaRule",
    "base-conv": "mnemic.layers.base_conv:BaseConv",
    "taylor": "mnemic.layers.taylor:TaylorLinearAttention",
    "based": "mnemic.layers.based:Based",
    "mom": "mnemic.layers.mom:MixtureOfMemories",
    "lstm": "mnemic.layers.lstm:LSTM",
    "hcam": "mnemic.layers.hcam:HCAM",
    "titans-lmm": "mnemic.layers.titans_memory:NeuralMemory",
    "titans-mag": "mnemic.layers.titans_mag:MemoryAsGate",
    "titans-mal": "mnemic.layers.titans_mal:MemoryAsLayer",
    "titans-mac": "mnemic.layers.titans_mac:MemoryAsContext",
    "product-keys": "mnemic.layers.product_keys:ProductKeys",
    "peer": "mnemic.layers.product_keys:Peer",
    "ultramem": "mnemic.layers.ultramem:UltraMem",
}


def layer_class(name: str) -> type[MemoryLayer[Any]]:
    """The class of that name. Raises InvalidOption."""
    if name not in LAYERS:
        raise InvalidOption(f"there is no layer {name!r:.80}. Known: {', '.join(LAYERS)}")
    module, _, attribute = LAYERS[name].partition(":")
    found: type[MemoryLayer[Any]] = getattr(importlib.import_module(module), attribute)
    return found


def make(name: str, **options: Any) -> MemoryLayer[Any]:
    """A layer by its name: `make("taylor", dim=64, heads=2)`. Raises InvalidOption."""
    found = layer_class(name)
    return found(found.Options.read(options))


def load_state(path: str | os.PathLike[str]) -> LayerState:
    """Any saved state, as the class of the layer that made it. Raises NotFound, InvalidFile."""
    data = read_file(path)
    state: LayerState = layer_class(spec_of(data).layer).State.from_bytes(data)
    return state
