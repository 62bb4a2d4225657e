"""A learned memory made again from what its sources say now, in place of the old one."""

from __future__ import annotations

from contextlib import suppress

from mnemic.cube.errors import IncompatibleMemory, InvalidOption, NotFound, StaleMemory
from mnemic.cube.model import MemCube
from mnemic.models.fingerprint import Fingerprint, fingerprint
from mnemic.models.local import LocalModel
from mnemic.parametric.gate import Gate
from mnemic.parametric.keeping import Learned, drop, look
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
    for_another_model: bool = False,
    progress: Progress = silent,
) -> MemCube:
    """A new adapter, or kNN or MLP memory, from what the sources of this one say now; once that is stored,
    the old one is dropped.

    Sources that are deleted or have expired are left out; one that was erased took the memory with it.
    recipe: of an adapter; default: that of the old one. for_another_model: `model` may be another than the
    one that the old was trained for, which that model then has no memory of any more. When anything fails,
    or a new adapter does not pass its gate, the old one stays as it was: not served if it is stale. Raises as
    `as_adapter` and `as_memory`, IncompatibleMemory for another model, and StaleMemory when no source is
    left.
    """
    old = look(vault, id)
    if not for_another_model:
        require_same_model(old, model)
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
    with suppress(NotFound):  # somebody else has dropped it meanwhile
        drop(vault, id, reason=f"made again as {made.id}")
    return made


def require_same_model(old: Learned, model: LocalModel) -> None:
    """Raises IncompatibleMemory unless it was trained for this model, before anything is trained."""
    told = old.described
    if parts := Fingerprint.of_dict(told.fingerprint).differing(here := fingerprint(model)):
        part = parts[0]
        raise IncompatibleMemory(
            f"{old.cube.id} was trained for {told.model}, and {model.name} has other {' and '.join(parts)}: "
            f"trained again for it, {told.model} would lose it. Name the model that it was trained for; or "
            "keep both: mnemic memory compile; or say that it may go: for_another_model=True, --yes",
            part=part,
            expected=told.fingerprint[part],
            found=getattr(here, part),
        )
