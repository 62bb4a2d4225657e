"""A causal language model from layer names: `StackConfig(layers=["base-conv", "taylor", "window"])`.

Blocks of a memory layer and, if wanted, a SwiGLU MLP, each behind an RMS norm and on a residual. It is a
`transformers` model: `generate` (greedy, sampling, beams, left-padded batches), `save_pretrained`,
`AutoModelForCausalLM`. Its cache is a `StateCache`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

from torch import Tensor, nn, no_grad
from torch.nn.functional import cross_entropy, silu
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    GenerationMixin,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.modeling_outputs import CausalLMOutputWithPast

from mnemic.cube.errors import InvalidInput, InvalidOption
from mnemic.layers.layer import MemoryLayer
from mnemic.layers.options import LayerOptions
from mnemic.layers.slots import SlotMemory
from mnemic.layers.stack_cache import CACHE_NAME, StateCache, StateLayer
from mnemic.layers.state import LayerState
from mnemic.layers.table import layer_class
from mnemic.layers.ultramem import UltraMemOptions

LayerEntry = str | Mapping[str, Any]


class StackConfig(PreTrainedConfig):  # type: ignore[misc]
    """What a stack is made of; every layer's options are checked here (InvalidOption).

    `layers`: names of the table, or mappings with `layer` and its options beside `dim`. `mlp_ratio`: inner
    width of the MLPs over `dim`; 0 leaves them out. `memory`: a memory of slots beside every MLP, reading
    what it reads, named as in `layers`.
    """

    model_type = "mnemic_stack"
    attribute_map: ClassVar[dict[str, str]] = {"hidden_size": "dim"}

    def __init__(
        self,
        *,
        layers: Sequence[LayerEntry] = ("base-conv", "taylor"),
        dim: int = 64,
        vocab_size: int = 256,
        mlp_ratio: float = 2.0,
        memory: LayerEntry | None = None,
        norm_eps: float = 1e-6,
        initializer_range: float = 0.02,
        tie_word_embeddings: bool = False,
        use_cache: bool = True,
        **kwargs: Any,
    ) -> None:
        if isinstance(layers, str):
            raise InvalidOption(f"layers is a list of names, such as [{layers!r:.80}]")
        self.layers = [entry if isinstance(entry, str) else dict(entry) for entry in layers]
        self.memory = memory if memory is None or isinstance(memory, str) else dict(memory)
        self.dim, self.vocab_size = dim, vocab_size
        self.mlp_ratio, self.norm_eps, self.initializer_range = mlp_ratio, norm_eps, initializer_range
        self.use_cache = use_cache
        self.num_hidden_layers = len(self.layers)
        kwargs.pop("num_hidden_layers", None)
        if not self.layers:
            raise InvalidOption("a stack needs at least one layer")
        if not isinstance(mlp_ratio, int | float) or mlp_ratio < 0:
            raise InvalidOption(f"mlp_ratio must be at least 0, got {mlp_ratio!r:.80}")
        if isinstance(vocab_size, bool) or not isinstance(vocab_size, int) or vocab_size < 1:
            raise InvalidOption(f"vocab_size must be a whole number of at least 1, got {vocab_size!r:.80}")
        self.layer_options()
        self.memory_options()
        super().__init__(tie_word_embeddings=tie_word_embeddings, **kwargs)

    def layer_options(self) -> list[tuple[type[MemoryLayer[Any]], LayerOptions]]:
        """Class and options of each layer. Raises InvalidOption."""
        return [self._read(entry) for entry in self.layers]

    def memory_options(self) -> tuple[type[SlotMemory], LayerOptions] | None:
        """Class and options of the memory beside the MLPs, if there is one. Raises InvalidOption."""
        if self.memory is None:
            return None
        kind, options = self._read(self.memory)
        if not issubclass(kind, SlotMemory):
            raise InvalidOption(
                f"memory is a memory of slots such as ultramem; {kind.name} belongs in layers"
            )
        if isinstance(options, UltraMemOptions):
            options = replace(options, blocks=len(self.layers), mlp_ratio=max(self.mlp_ratio, 1e-3))
        return kind, options

    def _read(self, entry: LayerEntry) -> tuple[type[MemoryLayer[Any]], LayerOptions]:
        options = {"layer": entry} if isinstance(entry, str) else dict(entry)
        if "layer" not in options:
            raise InvalidOption(f"a layer is a name, or a mapping with 'layer', not {entry!r:.80}")
        kind = layer_class(options.pop("layer"))
        return kind, kind.Options.read({"dim": self.dim, **options})

    def state_bytes(self, tokens: int, *, batch: int = 1, element_bytes: int = 4) -> int:
        """Bytes of all states after `tokens` tokens."""
        return sum(
            options.state_bytes(tokens, batch=batch, element_bytes=element_bytes)
            for _, options in self.layer_options()
        )


class SwiGLU(nn.Module):
    """(SiLU(W x) ⊙ V x) U (Shazeer 2020)."""

    def __init__(self, dim: int, inner: int) -> None:
        super().__init__()
        self.gate_up = nn.Linear(dim, 2 * inner, bias=False)
        self.down = nn.Linear(inner, dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        gate, up = self.gate_up(x).chunk(2, -1)
        y: Tensor = self.down(silu(gate) * up)
        return y


class Block(nn.Module):
    """x + layer(norm(x)), then x + mlp(norm(x)) + memory(norm(x))."""

    def __init__(self, layer: MemoryLayer[Any], config: StackConfig) -> None:
        super().__init__()
        self.norm, self.layer = nn.RMSNorm(config.dim, eps=config.norm_eps), layer
        inner = round(config.mlp_ratio * config.dim)
        beside = config.memory_options()
        self.mlp_norm = nn.RMSNorm(config.dim, eps=config.norm_eps) if inner or beside else None
        self.mlp = SwiGLU(config.dim, inner) if inner else None
        self.memory = beside[0](beside[1]) if beside else None

    def forward(self, x: Tensor, state: LayerState | None, mask: Tensor | None) -> tuple[Tensor, LayerState]:
        """x (batch, time, dim), mask bool (batch, time); one token goes through the layer's `step`."""
        normed = self.norm(x)
        if x.shape[1] == 1 and state is not None:
            y, after = self.layer.step(normed[:, 0], state, mask=None if mask is None else mask[:, 0])
            x = x + y.unsqueeze(1)
        else:
            y, after = self.layer(normed, state, mask=mask)
            x = x + y
        if self.mlp_norm is not None:
            normed = self.mlp_norm(x)
            for part in (self.mlp, None if self.memory is None else self.memory.read):
                x = x if part is None else x + part(normed)
        return x, after


class StackForCausalLM(PreTrainedModel, GenerationMixin):  # type: ignore[misc]
    """Embedding, blocks, norm, linear head."""

    config_class = StackConfig
    base_model_prefix = "stack"
    _tied_weights_keys: ClassVar[dict[str, str]] = {"head.weight": "embed.weight"}
    _is_stateful = True  # a state cannot be cut back: no assisted generation
    _no_split_modules: ClassVar[list[str]] = ["Block"]

    def __init__(self, config: StackConfig) -> None:
        super().__init__(config)
        self.embed = nn.Embedding(config.vocab_size, config.dim)
        self.blocks = nn.ModuleList(Block(kind(options), config) for kind, options in config.layer_options())
        self.norm = nn.RMSNorm(config.dim, eps=config.norm_eps)
        self.head = nn.Linear(config.dim, config.vocab_size, bias=False)
        self.post_init()

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        *,
        inputs_embeds: Tensor | None = None,
        cache: StateCache | None = None,
        past_key_values: StateCache | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int = 0,
        return_dict: bool = True,
    ) -> CausalLMOutputWithPast:
        """input_ids int (batch, time); attention_mask (batch, past + time), 0 for padding.

        `cache` (also called `past_key_values`) is gone on from and moved forward; `labels` (batch, time) are
        compared with the logits of the position before, -100 is left out, and every layer's auxiliary loss is
        added. Raises InvalidInput.
        """
        cache = cache if cache is not None else past_key_values
        if (input_ids is None) == (inputs_embeds is None):
            raise InvalidInput("give either input_ids or inputs_embeds")
        if not return_dict:
            raise InvalidInput("this model returns a CausalLMOutputWithPast; leave return_dict as it is")
        x = self.embed(input_ids) if inputs_embeds is None else inputs_embeds
        cache = self._usable(cache, self.config.use_cache if use_cache is None else use_cache)
        layers = [StateLayer() for _ in self.blocks] if cache is None else cache.layers
        mask = _last_columns(attention_mask, layers[0].tokens, x.shape[1])
        for block, holder in zip(self.blocks, layers, strict=True):
            x, holder.state = block(x, holder.state, mask)
            holder.tokens += x.shape[1]
        logits = self.head(self.norm(x[:, -logits_to_keep:] if logits_to_keep else x))
        loss = None
        if labels is not None:
            if logits_to_keep:
                raise InvalidInput("a loss needs all logits: leave out logits_to_keep")
            predicted, following = logits[:, :-1].flatten(0, 1).float(), labels[:, 1:].flatten()
            loss = cross_entropy(predicted, following, ignore_index=-100)
            loss = loss + sum(self.aux_losses().values())
        return CausalLMOutputWithPast(loss=loss, logits=logits, **{CACHE_NAME: cache})

    def memory_layers(self) -> list[MemoryLayer[Any]]:
        """The layers in order."""
        return [block.layer for block in self.blocks.children() if isinstance(block, Block)]

    def slot_memories(self) -> list[SlotMemory]:
        """The memories beside the MLPs, in order."""
        memories = [block.memory for block in self.blocks.children() if isinstance(block, Block)]
        return [memory for memory in memories if memory is not None]

    def parameter_counts(self) -> dict[str, int]:
        """`total` of all parameters, and `active`: those that work on one token."""
        total = sum(p.numel() for p in self.parameters())
        idle = sum(layer.idle_parameters() for layer in (*self.memory_layers(), *self.slot_memories()))
        return {"total": total, "active": total - idle}

    def aux_losses(self) -> dict[int, Tensor]:
        """The auxiliary loss of the last forward by layer; their mean would hide one that collapsed."""
        losses = {number: layer.aux_loss() for number, layer in enumerate(self.memory_layers())}
        return {number: loss for number, loss in losses.items() if loss is not None}

    def get_input_embeddings(self) -> nn.Module:
        return self.embed

    def set_input_embeddings(self, value: nn.Embedding) -> None:
        self.embed = value

    def get_output_embeddings(self) -> nn.Module:
        return self.head

    def set_output_embeddings(self, new_embeddings: nn.Linear) -> None:
        self.head = new_embeddings

    @classmethod
    def _supports_default_dynamic_cache(cls) -> bool:
        return False  # else `generate` would make a cache of keys and values

    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, std=self.config.initializer_range)
        elif callable(reset := getattr(module, "reset_parameters", None)):  # each layer knows its own
            brought = [(p, p.detach().clone()) for p in module.parameters() if _is_loaded(p)]
            reset()
            with no_grad():  # what a checkpoint brought stays, also where it brought a part only
                for parameter, loaded in brought:
                    parameter.copy_(loaded)

    def _usable(self, cache: StateCache | None, wanted: bool) -> StateCache | None:
        if cache is None:
            return StateCache(len(self.blocks)) if wanted else None
        if not isinstance(cache, StateCache) or len(cache.layers) != len(self.blocks):
            raise InvalidInput(
                f"the cache of this model is a StateCache of {len(self.blocks)} layers, "
                f"got {type(cache).__name__}"
            )
        return cache


def _is_loaded(parameter: Tensor) -> bool:
    """Whether `from_pretrained` found it in the checkpoint: transformers' mark."""
    return bool(getattr(parameter, "_is_hf_initialized", False))


def _last_columns(attention_mask: Tensor | None, past: int, time: int) -> Tensor | None:
    """bool (batch, time): the columns of the new tokens, from a mask over all tokens or the new ones."""
    if attention_mask is None:
        return None
    if attention_mask.dim() != 2 or attention_mask.shape[1] not in (past + time, time):
        raise InvalidInput(
            f"attention_mask covers all {past + time} tokens or the {time} new ones, got shape "
            f"{tuple(attention_mask.shape)}"
        )
    mask = attention_mask[:, -time:].bool()
    return None if bool(mask.all()) else mask


AutoConfig.register(StackConfig.model_type, StackConfig)
AutoModelForCausalLM.register(StackConfig, StackForCausalLM)
