"""kNN and MLP memories in the vault."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, Final

import torch
from torch import Tensor

from mnemic.cube.model import MemCube, Scope, Source
from mnemic.models.fingerprint import Fingerprint, fingerprint
from mnemic.models.local import LocalModel
from mnemic.models.stack import stack_hash
from mnemic.parametric import cube as cubes
from mnemic.parametric.blend import Blend, Curve, Memory
from mnemic.parametric.datastore import Datastore
from mnemic.parametric.description import Description
from mnemic.parametric.mlp import CompiledMemory, network_of
from mnemic.parametric.nearest import Neighbours, Search, index_bytes, index_of
from mnemic.vault.vault import Vault

METHOD: Final = "text_to_memory"
FILES: Final = {
    "exact": cubes.file_form("exact", what="kNN memory"),
    "ivfpq": cubes.file_form("ivfpq", what="kNN memory"),
    "mlp": cubes.file_form("mlp", what="compiled memory"),
}


def store(
    vault: Vault,
    scope: Scope,
    memory: Memory,
    sources: Sequence[Source],
    *,
    model: LocalModel,
    recipe: Mapping[str, Any],
    lam: float,
    curve: Curve | None,
    title: str | None = None,
    expires_at: int | None = None,
) -> MemCube:
    """Keep a memory and the lambda it is mounted with. Keys are stored in float16."""
    made = fingerprint(model)
    return cubes.store(
        vault,
        scope,
        memory.form,
        FILES[memory.form],
        _tensors(memory),
        sources,
        fingerprint=made,
        stack=stack_hash(made.weights, ()),
        model=model.name,
        recipe={**recipe, "holds": _holds(memory)},
        report={"lam": lam, "curve": None if curve is None else asdict(curve)},
        method=METHOD,
        title=title,
        expires_at=expires_at,
    )


def load(vault: Vault, cube: MemCube) -> Blend:
    """A memory, ready to mount. O(bytes). Raises InvalidOption, NotFound, InvalidFile."""
    told = Description.of(cube)
    file = FILES[told.form]
    read = cubes.read_file(vault, cube, file)
    try:
        holds = json.loads(read.said["recipe"])["holds"]
        made = Fingerprint.of_dict(json.loads(read.said["fingerprint"]))
        memory = _memory(told.form, read.tensors, holds)
        return Blend(memory=memory, fingerprint=made, lam=float(told.report["lam"]), id=cube.id)
    except (ValueError, TypeError, KeyError, IndexError) as error:
        file.refuse(f"the file of cube {cube.id}", f"its header cannot be read ({error})")


def open_for(vault: Vault, cube: MemCube, local: LocalModel) -> Blend:
    """For `mount`: refused by its description, before a tensor is read, when it is for another model."""
    wanted = Fingerprint.of_dict(Description.of(cube).fingerprint)
    cubes.check_fingerprint(f"memory {cube.id}", wanted, fingerprint(local), local.name)
    return load(vault, cube)


def _tensors(memory: Memory) -> dict[str, Tensor]:
    if isinstance(memory, CompiledMemory):
        return dict(memory.network.state_dict())
    store = memory.store
    told = {name: getattr(store, name) for name in ("values", "blocks", "texts")}
    if memory.index is None:
        return told | {"keys": store.keys.half()}
    return told | {"index": torch.from_numpy(index_bytes(memory.index))}


def _holds(memory: Memory) -> dict[str, Any]:
    if isinstance(memory, CompiledMemory):
        return {"path": memory.path, "vocabulary": memory.vocabulary, "tau": memory.tau}
    return {
        "path": memory.path,
        "input_path": memory.store.input_path,
        "width": int(memory.store.keys.shape[1]),
        "vocabulary": memory.vocabulary,
        "scale": memory.scale,
        "search": asdict(memory.search),
    }


def _memory(form: str, tensors: dict[str, Tensor], holds: Mapping[str, Any]) -> Memory:
    if form == "mlp":
        vocabulary = int(holds["vocabulary"])
        network = network_of(tensors, vocabulary)
        return CompiledMemory(
            network=network, path=holds["path"], vocabulary=vocabulary, tau=float(holds["tau"])
        )
    count, width = tensors["values"].shape[0], int(holds["width"])
    if any(tensors[name].shape != (count,) for name in ("blocks", "texts")):
        raise ValueError("values, blocks and texts are not of one length")
    keys = tensors["keys"].float() if form == "exact" else torch.zeros(0, width)
    if form == "exact" and keys.shape != (count, width):
        raise ValueError(f"keys are {tuple(keys.shape)}, not {(count, width)}")
    values = tensors["values"]
    if count and not 0 <= int(values.min()) <= int(values.max()) < holds["vocabulary"]:
        raise ValueError("a value is no token of this vocabulary")
    found = Datastore(
        keys=keys,
        inputs=torch.zeros(0, width),
        values=values,
        blocks=tensors["blocks"],
        texts=tensors["texts"],
        key_path=holds["path"],
        input_path=holds["input_path"],
    )
    return Neighbours(
        store=found,
        search=Search(**holds["search"]),
        vocabulary=int(holds["vocabulary"]),
        scale=float(holds["scale"]),
        form=form,
        index=index_of(tensors["index"].numpy().copy()) if form == "ivfpq" else None,
    )
