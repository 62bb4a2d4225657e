"""What one token costs each layer: FLOPs and bytes, counted operation by operation while a step runs.

    python -m mnemic.bench.layers.costs docs     # writes results/layers-cost.md, and the numbers on the pages

A product of matrices counts 2 · m · n · k, any other operation one for each number it makes or reduces. Bytes
are what operations read and write, nothing fused: what a CPU moves between its caches, at most.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry, sdpa_flop_count

from mnemic.bench.layers.pages import page_of
from mnemic.bench.markdown import table
from mnemic.layers.table import LAYERS, layer_class, make

DIM, HEADS, BEFORE = 512, 8, 1_000


@dataclass(frozen=True)
class Cost:
    """Of one token. `maps`: FLOPs of products with weights; `beyond`: all others. `weights`: their bytes,
    read; `moved`: bytes of all else that operations read and wrote; `state`: bytes of the state.
    """

    maps: int
    beyond: int
    weights: int
    moved: int
    state: int


class Counted(TorchDispatchMode):
    """Counts what runs inside."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._weights = {parameter.untyped_storage().data_ptr() for parameter in module.parameters()}
        self.maps = self.beyond = self.weights = self.moved = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        read, made = (
            [leaf for leaf in tree_leaves(part) if isinstance(leaf, Tensor)] for part in ((args, kwargs), out)
        )
        if func.is_view or not made or (_places(made) <= _places(read) - {0} and not func._schema.is_mutable):
            return out  # a view: nothing is computed or moved
        mapped = any(self._is_weight(tensor) for tensor in read)
        rule = flop_registry.get(func.overloadpacket)
        if "scaled_dot_product" in func.name():  # not every kernel is registered
            rule, numbers = True, sdpa_flop_count(*(tensor.shape for tensor in args[:3]))
        else:
            numbers = rule(*args, **kwargs, out_val=out) if rule else max(t.numel() for t in (*read, *made))
        if rule and mapped:
            self.maps += numbers
        elif rule or any(tensor.is_floating_point() for tensor in made):
            self.beyond += numbers
        for tensor in (*read, *made):
            if self._is_weight(tensor):
                self.weights += _bytes(tensor)
            else:
                self.moved += _bytes(tensor)
        return out

    def _is_weight(self, tensor: Tensor) -> bool:
        return tensor.untyped_storage().data_ptr() in self._weights


def _places(tensors: list[Tensor]) -> set[int]:
    return {tensor.untyped_storage().data_ptr() for tensor in tensors}


def _bytes(tensor: Tensor) -> int:
    """Of its distinct numbers: an expanded tensor is read once."""
    distinct = 1
    for size, stride in zip(tensor.shape, tensor.stride(), strict=True):
        distinct *= size if stride else 1
    return distinct * tensor.element_size()


def options_of(name: str) -> dict[str, Any]:
    """Width 512 and, where it has heads, 8 of them."""
    wanted = {"dim": DIM, "heads": HEADS}
    return {
        key: value for key, value in wanted.items() if key in layer_class(name).Options.__dataclass_fields__
    }


def cost(name: str, *, before: int = BEFORE, **options: Any) -> Cost:
    """Of one step after `before` tokens, batch 1, float32."""
    torch.manual_seed(0)
    layer = make(name, **{**options_of(name), **options})
    x = torch.randn(1, before + 1, layer.dim)
    with torch.inference_mode():
        state = layer(x[:, :before])[1]
    with torch.no_grad(), Counted(layer) as counted:
        layer.step(x[:, before], state)
    return Cost(counted.maps, counted.beyond, counted.weights, counted.moved, state.size_bytes())


HEADINGS: Final = (
    "layer", "FLOPs, linear maps", "FLOPs beyond", "bytes of weights", "bytes of state", "bytes moved beyond",
)  # fmt: skip


def costs() -> dict[str, Cost]:
    """Of every layer; some seconds."""
    return {name: cost(name) for name in LAYERS}


def markdown(found: Mapping[str, Cost]) -> str:
    """The page, every layer a row."""
    rows = []
    for name, one in found.items():
        counts = (one.maps, one.beyond, one.weights, one.state, one.moved)
        rows.append([name, *(f"{count:,}" for count in counts)])
    about = (
        f"Width {DIM}, {HEADS} heads where there are heads, default options, float32, batch 1, one `step` "
        f"after {BEFORE:,} tokens. A product of matrices counts 2 · m · n · k, any other operation one for "
        "each number it makes or reduces, copies too: attention joins its keys anew at each step. Bytes are "
        "what operations read and write, nothing fused."
    )
    command = "python -m mnemic.bench.layers.costs docs"
    return f"# What a token costs\n\n`{command}`\n\n{about}\n\n{table(HEADINGS, rows)}\n"


def stated(page: str, name: str, one: Cost) -> str:
    """A layer's page with the counted numbers in its table: in the rows of FLOPs and bytes, or a row of its
    own where layers share the page.
    """
    page = re.sub(rf"(\| `{name}` )\| [\d,]+ \| [\d,]+ \|", rf"\1| {one.beyond:,} | {one.moved:,} |", page)
    if f"| `{name}` |" in page:
        return page
    for row, said in (
        ("FLOPs a token", f"[counted](../results/layers-cost.md): {one.beyond:,}"),
        ("bytes moved a token", f"counted: {one.moved:,}"),
    ):
        page = re.sub(
            rf"^(\| {row}.*?)(; \[?counted[^|]*)? \|$", rf"\1; {said} |", page, count=1, flags=re.MULTILINE
        )
    return page


def pages(docs: Path, found: Mapping[str, Cost]) -> dict[Path, str]:
    """Every file with its numbers made anew."""
    out = {docs / "results" / "layers-cost.md": markdown(found)}
    for name, one in found.items():
        path = docs / page_of(name)
        out[path] = stated(out.get(path) or path.read_text(encoding="utf-8"), name, one)
    return out


if __name__ == "__main__":
    torch.set_num_threads(1)
    for path, text in pages(Path(sys.argv[1]), costs()).items():
        path.write_text(text, encoding="utf-8")
