"""A whole language model whose feed-forward weights stay on disk, within a budget (LLM in a flash §3).

In memory: embeddings, attention, norms, predictors, the KV cache, and the neurons of the last few tokens. For
models of Llama's shape with ReLU in their gated feed-forward part: a neuron whose gate is not positive adds
nothing, so that what a predictor rightly leaves out changes no number.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import torch
from torch import nn

from mnemic.cube.checks import require_count
from mnemic.cube.errors import BudgetTooSmall, InvalidFile, InvalidOption, UnsupportedModel
from mnemic.models.hf import quietly
from mnemic.models.local import LocalModel
from mnemic.parametric.disk_rows import ROW_BYTES, DiskRows, Traffic, slot_bytes
from mnemic.parametric.flash_mlp import FlashMLP, LowRank, Predictor, pack_mlp
from mnemic.parametric.row_file import PIECE as DIRECT_BYTES

FORMAT: Final = "mnemic-flash-1"
MANIFEST: Final = "flash.json"
RESIDENT: Final = "resident.safetensors"
PREDICTORS: Final = "predictors.safetensors"
PARTS: Final = ("gate_proj", "up_proj", "down_proj")


def feed_forward_parts(model: nn.Module) -> list[nn.Module]:
    """The gated feed-forward parts of a model, by layer. Raises UnsupportedModel for another shape."""
    found = [
        module
        for _, module in model.named_modules()
        if all(isinstance(getattr(module, part, None), nn.Linear) for part in PARTS)
    ]
    layers = getattr(getattr(model, "model", None), "layers", ())
    if not found or [id(one) for one in found] != [id(getattr(one, "mlp", None)) for one in layers]:
        raise UnsupportedModel(
            "weights on disk are for models of Llama's shape: model.layers[i].mlp with gate_proj, up_proj "
            "and down_proj"
        )
    if any(getattr(part, name).bias is not None for part in found for name in PARTS):
        raise UnsupportedModel("weights on disk are for feed-forward parts without bias")
    return found


def pack_model(
    local: LocalModel,
    folder: str | os.PathLike[str],
    *,
    predictors: Mapping[int, LowRank] | None = None,
    dtype: str = "float32",
) -> None:
    """Write a model as `FlashModel.open` reads it: neurons as bundles, a file a layer, the rest in one.

    predictors: by layer, all of them or none. O(weights), one layer in memory besides. Raises
    UnsupportedModel for a model that is not of Llama's shape or whose activation is not ReLU; InvalidOption.
    """
    parts = feed_forward_parts(local.model)
    if local.model.config.hidden_act != "relu":
        raise UnsupportedModel(
            f"{local.name} has {local.model.config.hidden_act!r:.40} in its feed-forward parts, so no neuron "
            "is exactly zero and none can be left on disk without loss. ReLU is what this needs (see "
            "docs/flash.md)"
        )
    if predictors is not None and sorted(predictors) != list(range(len(parts))):
        raise InvalidOption(f"predictors must be given for all {len(parts)} layers, or for none")
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    (target / MANIFEST).unlink(missing_ok=True)  # written last: a folder without it is not whole
    from safetensors.torch import save_file

    for number, part in enumerate(parts):
        gate, up, down = (getattr(part, name).weight.detach() for name in PARTS)
        pack_mlp(target / _rows(number), up, down, gate=gate, dtype=dtype)
    apart = {f"model.layers.{n}.mlp.{name}.weight" for n in range(len(parts)) for name in PARTS}
    kept, seen = {}, set[int]()
    for name, one in local.model.state_dict().items():
        if name not in apart and one.data_ptr() not in seen:  # tied weights once
            kept[name] = one.detach().contiguous()
            seen.add(one.data_ptr())
    save_file(kept, target / RESIDENT)
    told: list[dict[str, Any]] = []
    if predictors is not None:
        tensors = {
            f"{n}.{name}": one.contiguous()
            for n, predictor in predictors.items()
            for name, one in predictor.state_dict().items()
        }
        save_file(tensors, target / PREDICTORS)
        told = [
            {"rank": predictors[n].down.out_features, "threshold": predictors[n].threshold}
            for n in range(len(parts))
        ]
    local.model.config.save_pretrained(target)
    local.tokenizer.save_pretrained(target)
    manifest = {"format": FORMAT, "layers": len(parts), "predictors": told, "name": local.name}
    (target / MANIFEST).write_text(json.dumps(manifest))


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """Bytes in memory, by what they are for. working: pieces of neurons that are computed at once."""

    weights: int
    predictors: int
    kv: int
    working: int
    rows: int

    @property
    def total(self) -> int:
        return self.weights + self.predictors + self.kv + self.working + self.rows


class FlashModel:
    """A model from `pack_model`'s folder that never takes more than `budget` bytes.

    `local` is used like any other model: complete, stream, generate. tokens: room of the KV cache, prompt and
    answer together; a longer prompt is refused. window: of how many tokens the neurons stay, where the budget
    allows. predictor: by layer, which neurons will fire; default: those that were packed. uncached: every
    read is one of the disk. What is computed on the way (a few rows of activations) comes on top.

    Raises BudgetTooSmall naming the least budget, InvalidFile, InvalidOption, IncompatibleMemory.
    """

    def __init__(self, local: LocalModel, tables: list[DiskRows], held: Held, budget: int) -> None:
        self.local, self.held, self.budget = local, held, budget
        self._tables = tables

    @classmethod
    def open(
        cls,
        folder: str | os.PathLike[str],
        *,
        budget: int,
        tokens: int = 512,
        window: int = 4,
        predictor: Callable[[int], Predictor] | None = None,
        uncached: bool = False,
        threads: int = 4,
        piece: int = 64,
    ) -> Self:
        require_count(budget=budget, tokens=tokens, window=window, threads=threads, piece=piece)
        path = Path(folder)
        told = _manifest(path)
        if predictor is None and not told["predictors"]:
            raise InvalidOption(
                f"{path} was packed without predictors; pack it with some, or name what chooses neurons by "
                "predictor="
            )
        from transformers import AutoConfig, AutoTokenizer

        with quietly():
            config = AutoConfig.from_pretrained(str(path), local_files_only=True)
            tokenizer = AutoTokenizer.from_pretrained(str(path), local_files_only=True)
        layers, neurons, width = told["layers"], config.intermediate_size, config.hidden_size
        chosen = predictor or _read_predictors(path, told, width, neurons)
        head = getattr(config, "head_dim", None) or width // config.num_attention_heads
        row = 3 * width * 4
        always = {
            "weights": _tensor_bytes(path / RESIDENT),
            "predictors": 0 if predictor else _tensor_bytes(path / PREDICTORS),
            "kv": 2 * layers * config.num_key_value_heads * head * 4 * tokens,
            "working": 2 * piece * row,
        }
        direct = threads * DIRECT_BYTES if uncached else 0
        least_rows = neurons * ROW_BYTES + row + slot_bytes(window) + direct
        each = (budget - sum(always.values())) // layers
        if each < least_rows:
            least = sum(always.values()) + layers * least_rows
            raise BudgetTooSmall(
                f"budget={budget:,} bytes is too small for {told['name']}: {least:,} at least, of which "
                + ", ".join(f"{name} {size:,}" for name, size in always.items())
            )
        tables: list[DiskRows] = []
        try:
            for number in range(layers):
                tables.append(
                    DiskRows(
                        path / _rows(number), budget=each, window=window, uncached=uncached, threads=threads
                    )
                )
            model = _skeleton(config, path)
            for number, (layer, table) in enumerate(zip(model.model.layers, tables, strict=True)):
                if table.shape != (neurons, 3 * width):
                    raise InvalidFile(
                        f"{path / _rows(number)} has {table.shape} numbers, not {(neurons, 3 * width)}. Pack "
                        "the model again: pack_model(…)"
                    )
                layer.mlp = FlashMLP(table, chosen(number), gated=True, piece=piece)
        except BaseException:
            for table in tables:
                table.close()
            raise
        model.config.max_position_embeddings = min(tokens, model.config.max_position_embeddings)
        local = LocalModel(model.requires_grad_(False), tokenizer, name=f"flash:{told['name']}")
        held = Held(**always, rows=sum(table.resident_bytes for table in tables))
        return cls(local, tables, held, budget)

    @property
    def traffic(self) -> Traffic:
        """Of all layers."""
        return sum((table.traffic for table in self._tables), Traffic())

    @property
    def cold_by(self) -> str:
        """How reads pass the page cache by: O_DIRECT or DONTNEED; empty where they do not."""
        return self._tables[0].cold_by

    def close(self) -> None:
        for table in self._tables:
            table.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def remove(folder: str | os.PathLike[str]) -> None:
    """Delete a packed model. Raises InvalidFile for a folder that holds none."""
    _manifest(Path(folder))
    shutil.rmtree(folder)


def _rows(layer: int) -> str:
    return f"layer-{layer:03}.rows"


def _manifest(path: Path) -> dict[str, Any]:
    try:
        told = json.loads((path / MANIFEST).read_text())
        if told["format"] != FORMAT or not isinstance(told["layers"], int):
            raise ValueError(f"format={told['format']!r:.40}")
        return dict(told)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InvalidFile(
            f"{path} holds no whole model with its weights on disk ({error}). Write one: pack_model(…)"
        ) from error


def _tensor_bytes(path: Path) -> int:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), framework="pt") as file:
            shapes = [file.get_slice(name) for name in file.keys()]  # noqa: SIM118  # not a mapping
            sizes = {"F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4}
            total = 0
            for one in shapes:
                numbers = 1
                for length in one.get_shape():
                    numbers *= length
                total += numbers * sizes[one.get_dtype()]
            return total
    except (SafetensorError, OSError, KeyError) as error:
        raise InvalidFile(f"{path} is not a sound file of weights ({error}). Pack the model again") from error


def _skeleton(config: Any, path: Path) -> Any:
    """The model with feed-forward parts of one neuron, its other weights read one after another."""
    from safetensors import safe_open
    from transformers import AutoModelForCausalLM

    neurons, config.intermediate_size = config.intermediate_size, 1
    with quietly(), torch.random.fork_rng(devices=[]):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    config.intermediate_size = model.config.intermediate_size = neurons
    places = dict(model.state_dict())
    left = {name for name in places if ".mlp." not in name}
    with safe_open(str(path / RESIDENT), framework="pt") as file, torch.no_grad():
        for name in file.keys():  # noqa: SIM118
            if name not in left or places[name].shape != tuple(file.get_slice(name).get_shape()):
                raise InvalidFile(
                    f"{path / RESIDENT} does not belong to its config.json ({name}). Pack it again"
                )
            places[name].copy_(file.get_tensor(name))
            left -= {other for other in left if places[other].data_ptr() == places[name].data_ptr()}
    if left:
        raise InvalidFile(f"{path / RESIDENT} lacks {sorted(left)[0]}. Pack the model again")
    return model.eval()


def _read_predictors(
    path: Path, told: Mapping[str, Any], width: int, neurons: int
) -> Callable[[int], Predictor]:
    from safetensors.torch import load_file

    tensors = load_file(path / PREDICTORS)

    def chosen(layer: int) -> Predictor:
        said = told["predictors"][layer]
        made = LowRank(width, neurons, rank=said["rank"], threshold=said["threshold"])
        made.load_state_dict({name: tensors[f"{layer}.{name}"] for name in made.state_dict()}, assign=True)
        return made.requires_grad_(False)

    return chosen
