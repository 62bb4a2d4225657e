"""Where a memory listens: what enters the feed-forward part of one layer, after its norm (kNN-LM §3)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from torch import Tensor, nn

from mnemic.cube.errors import InvalidOption, UnsupportedModel
from mnemic.models.local import LocalModel

_NAMES: Final = ("mlp", "feed_forward", "ffn")


def tap_path(local: LocalModel, layer: int) -> str:
    """The path of a layer's feed-forward module. Raises UnsupportedModel, InvalidOption."""
    depth = layers_of(local)
    if not 0 <= layer < depth:
        raise InvalidOption(f"layer={layer} must be between 0 and {depth - 1}")
    for path, module in local.model.named_modules():
        if isinstance(module, nn.ModuleList) and len(module) == depth:
            for name in _NAMES:
                if isinstance(getattr(module[layer], name, None), nn.Module):
                    return f"{path}.{layer}.{name}"
    raise UnsupportedModel(
        f"{local.name} has no list of {depth} layers with a feed-forward part called {' or '.join(_NAMES)}"
    )


def layers_of(local: LocalModel) -> int:
    return int(local.model.config.get_text_config(decoder=True).num_hidden_layers)


def width_of(local: LocalModel) -> int:
    return int(local.model.config.get_text_config(decoder=True).hidden_size)


def vocabulary_of(local: LocalModel) -> int:
    """Rows of the output, which may be more than the tokenizer has tokens."""
    return int(local.model.get_output_embeddings().weight.shape[0])


class Tap:
    """What entered a module in the last forward: [rows, tokens, width]."""

    def __init__(self) -> None:
        self.seen: Tensor | None = None

    def __call__(self, _module: nn.Module, args: tuple[Any, ...]) -> None:
        self.seen = args[0]

    def take(self) -> Tensor:
        """What was seen, once. Raises UnsupportedModel when nothing passed by."""
        seen, self.seen = self.seen, None
        if seen is None:
            raise UnsupportedModel(
                "the tapped layer took no part in this forward; a compiled or rewritten model cannot be "
                "tapped"
            )
        return seen


@contextmanager
def tapped(local: LocalModel, paths: list[str]) -> Iterator[list[Tap]]:
    """Taps at these modules, for as long as a `with` block lasts."""
    taps = [Tap() for _ in paths]
    hooks = []
    try:
        for path, tap in zip(paths, taps, strict=True):
            hooks.append(local.model.get_submodule(path).register_forward_pre_hook(tap))
        yield taps
    finally:
        for hook in hooks:
            hook.remove()
