"""A memory of slots beside the MLPs of a model that has none: added, trained alone, taken out again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from mnemic.cube.errors import InvalidInput, InvalidOption, UnsupportedModel
from mnemic.layers.ultramem import UltraMem, UltraMemOptions

NAME = "memory"  # of the memory within the MLP it stands beside


@dataclass(frozen=True)
class Beside:
    """What was added: the memory of each block by its number."""

    memories: dict[int, UltraMem]
    _mlps: dict[int, nn.Module]
    _handles: tuple[RemovableHandle, ...]

    def parameters(self) -> list[nn.Parameter]:
        """Of the memories alone; tables, which have sparse gradients, among them."""
        return [p for memory in self.memories.values() for p in memory.parameters()]

    def remove(self) -> None:
        """Leave the model as it was found, bit by bit."""
        for handle in self._handles:
            handle.remove()
        for mlp in self._mlps.values():
            mlp._modules.pop(NAME, None)


def add_memory(model: nn.Module, *, layers: Sequence[int] | Literal["all"] = "all", **options: Any) -> Beside:
    """Put an UltraMem beside the MLP of blocks of a decoder; the model computes what it did, until trained.

    y = mlp(x) + memory(x), the memory's last map zero at first. `layers`: numbers of blocks; `options`: those
    of UltraMemOptions beside `dim`. The memories are submodules `memory` of the MLPs, on their device and in
    their dtype, so that `parameters()` and `state_dict()` of the model hold them. Raises UnsupportedModel
    where blocks with an `mlp` cannot be found, InvalidOption, InvalidInput when there is a memory already.
    """
    blocks = _blocks(model)
    chosen = list(range(len(blocks))) if layers == "all" else list(layers)
    if not chosen or len(set(chosen)) < len(chosen) or not set(chosen) <= set(range(len(blocks))):
        raise InvalidOption(f"layers are different numbers from 0 to {len(blocks) - 1}, got {layers!r:.80}")
    dim = getattr(getattr(model, "config", None), "hidden_size", None)
    if not isinstance(dim, int):
        raise UnsupportedModel("the model's configuration names no hidden_size: a width is needed")
    read = replace(UltraMemOptions.read({"dim": dim, **options}), blocks=len(chosen))
    mlps: dict[int, Any] = {number: blocks[number].mlp for number in chosen}
    if taken := [number for number, mlp in mlps.items() if NAME in mlp._modules]:
        raise InvalidInput(f"blocks {taken} have a memory already: remove() it first")
    memories, handles = {}, []
    for number, mlp in mlps.items():
        like = next(mlp.parameters())
        memory = UltraMem(read).to(device=like.device, dtype=like.dtype)
        nn.init.zeros_(memory.out.weight)
        mlp.register_module(NAME, memory)
        memories[number] = memory
        handles.append(mlp.register_forward_hook(_plus_memory))
    return Beside(memories, mlps, tuple(handles))


def _plus_memory(mlp: nn.Module, given: tuple[Tensor, ...], out: Tensor) -> Tensor:
    memory = mlp.get_submodule(NAME)
    assert isinstance(memory, UltraMem)  # noqa: S101
    return out + memory.read(given[0])


def _blocks(model: nn.Module) -> nn.ModuleList:
    """The one list of blocks that all have an `mlp`."""
    found = [
        one
        for one in model.modules()
        if isinstance(one, nn.ModuleList)
        and len(one)
        and all(isinstance(getattr(block, "mlp", None), nn.Module) for block in one)
    ]
    if len(found) != 1:
        raise UnsupportedModel(
            f"a memory stands beside the `mlp` of each block of one decoder; {type(model).__name__} has "
            f"{len(found)} lists of such blocks"
        )
    return found[0]
