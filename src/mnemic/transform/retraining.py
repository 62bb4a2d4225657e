"""A learned memory made again from what its sources say now, in place of the old one."""

from __future__ import annotations

from mnemic.cube.errors import InvalidOption, StaleMemory
from mnemic.cube.model import MemCube
from mnemic.models.local import LocalModel
from mnemic.parametric.gate import Gate
from mnemic.parametric.keeping import drop, look
from mnemic.parametric.lora_training import Progress, Recipe, silent
from mnemic.transform.sources import live_ids
from mnemic.transform.text_to_adapter import as_adapter
from mnemic.transform.text_to_memory import as_memory, options_of
from mnemic.vault.vault import Vault


def retrain(
    vault: Vault,
    id: str,
    model: LocalModel,
    *,
    recipe: Recipe | None = None,
    gate: Gate | None = None,
    progress: Progress = silent,
) -> MemCube:
    """A new adapter, or kNN or MLP memory, from what the sources of this one say now; the old one is dropped.

    Sources that are deleted or have expired are left out; one that was erased took the memory with it.
    recipe: of an adapter; default: that of the old one. When a new adapter does not pass its gate the old one
    stays as it was: not served if it is stale. Raises as `as_adapter` and `as_memory`, and StaleMemory when
    no source is left.
    """
    old = look(vault, id)
    left = live_ids(vault, [one.cube_id for one in old.cube.header.sources])
    if not left:
        raise StaleMemory(f"none of the sources of {id} is there any more. Drop it: mnemic memory drop {id}")
    told = old.described
    if told.form == "lora":
        chosen = recipe or Recipe(**{**told.recipe, "targets": tuple(told.recipe["targets"])})
        made = as_adapter(vault, left, model, recipe=chosen, gate=gate, title=told.title, progress=progress)
    elif recipe is not None or gate is not None:
        raise InvalidOption(f"{id} is a memory of the form {told.form}; recipe and gate belong to an adapter")
    else:
        made = as_memory(
            vault,
            left,
            model,
            options=options_of(told.recipe["options"]),
            title=told.title,
            progress=progress,
        )
    drop(vault, id, reason=f"made again as {made.id}")
    return made
