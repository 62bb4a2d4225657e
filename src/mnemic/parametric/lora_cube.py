"""A LoRA in the vault: stored as PEFT names its tensors, read back with every byte checked."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Final

from mnemic.cube.model import MemCube, Scope, Source
from mnemic.models.fingerprint import Fingerprint, fingerprint
from mnemic.models.local import LocalModel
from mnemic.models.stack import stack_hash
from mnemic.parametric import cube as cubes
from mnemic.parametric.description import Description
from mnemic.parametric.gate import GateReport
from mnemic.parametric.lora import LoRA, of_tensors
from mnemic.parametric.lora_training import Recipe
from mnemic.vault.vault import Vault

FORM: Final = "lora"
METHOD: Final = "text_to_adapter"
FILE: Final = cubes.file_form(FORM, what="adapter")


def store(
    vault: Vault,
    scope: Scope,
    lora: LoRA,
    sources: Sequence[Source],
    *,
    model: LocalModel,
    recipe: Recipe,
    report: GateReport,
    title: str | None = None,
    expires_at: int | None = None,
) -> MemCube:
    """Keep an adapter that has passed its gate. Raises StaleMemory when a source changed meanwhile."""
    return cubes.store(
        vault,
        scope,
        FORM,
        FILE,
        lora.tensors(),
        sources,
        fingerprint=lora.fingerprint,
        stack=stack_hash(lora.fingerprint.weights, ()),
        model=model.name,
        recipe=asdict(recipe),
        report=report.as_dict(),
        method=METHOD,
        title=title,
        expires_at=expires_at,
    )


def load(vault: Vault, cube: MemCube) -> LoRA:
    """The adapter of a cube. O(bytes). Raises InvalidOption, NotFound, InvalidFile."""
    read = cubes.read_file(vault, cube, FILE)
    try:
        alpha = float(json.loads(read.said["recipe"])["alpha"])
        made = Fingerprint.of_dict(json.loads(read.said["fingerprint"]))
        return of_tensors(read.tensors, alpha=alpha, fingerprint=made, id=cube.id)
    except (ValueError, TypeError, KeyError) as error:
        FILE.refuse(f"the file of cube {cube.id}", f"its header cannot be read ({error})")


def open_for(vault: Vault, cube: MemCube, local: LocalModel) -> LoRA:
    """For `mount`: refused by its description, before a tensor is read, when it is for another model."""
    told = Description.of(cube)
    wanted = Fingerprint.of_dict(told.fingerprint)
    cubes.check_fingerprint(f"adapter {cube.id}", wanted, fingerprint(local), local.name)
    return load(vault, cube)


def export(vault: Vault, cube: MemCube, folder: Path) -> None:
    """Write it as PEFT reads it: adapter_config.json and adapter_model.safetensors.

    What is written is out of the vault's reach: no erasure finds it.
    """
    from safetensors.torch import save_file

    lora = load(vault, cube)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "adapter_config.json").write_text(json.dumps(lora.peft_config(), indent=1))
    save_file(
        {name: one.contiguous() for name, one in lora.tensors().items()}, folder / "adapter_model.safetensors"
    )
