"""Text to adapter: statements as questions and answers, trained into a LoRA, tested, and kept (MemOS §7).

The papers give no recipe and no thresholds; those here are ours, and each is an option.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mnemic.cube.errors import InvalidOption, NotLearned, StaleMemory
from mnemic.cube.model import MemCube
from mnemic.cube.times import to_micros
from mnemic.models.local import LocalModel
from mnemic.parametric.gate import Gate, GateReport, examine
from mnemic.parametric.keeping import drop, look
from mnemic.parametric.lora import LoRA
from mnemic.parametric.lora_cube import store
from mnemic.parametric.lora_training import Progress, Recipe, examples, rehearsal, silent, train
from mnemic.parametric.questions import Fact, choices, shuffled
from mnemic.transform.paraphrases import Paraphraser, Templates, facts_of
from mnemic.transform.sources import live_ids, read_sources
from mnemic.vault.vault import Vault


def as_adapter(
    vault: Vault,
    cubes: Sequence[str | MemCube],
    model: LocalModel,
    *,
    recipe: Recipe | None = None,
    gate: Gate | None = None,
    paraphraser: Paraphraser | None = None,
    title: str | None = None,
    progress: Progress = silent,
) -> MemCube:
    """Have `model` learn what these cubes say, as an adapter that can be mounted: a cube.

    cubes: text cubes of one user, or their ids. paraphraser: makes questions of statements; default:
    `Templates()`, and `Reworded(model=…)` asks a language model for more wordings. The adapter is stored only
    if it passes `gate`; else NotLearned brings the report.

    The cube cites its sources: when one is updated, deleted, erased or expires, it is stale at once and no
    mount serves it; `retrain` makes one from what holds now. The model itself is not touched.

    Costs up to `recipe.epochs` passes over the questions, twice with the gate's control, and some 3 ·
    questions short forwards. Raises InvalidOption, NotFound, NotLearned, StaleMemory when a source changed
    meanwhile, MissingExtra, VaultFull.
    """
    recipe, gate = recipe or Recipe(), gate or Gate()
    found, sources, scope = read_sources(vault, cubes, made="an adapter")
    facts = facts_of(found, paraphraser or Templates())
    if not facts:
        raise InvalidOption(
            "these cubes state nothing that can be asked: an adapter is trained on sentences such as "
            '"Tom is allergic to walnuts."'
        )
    lora, report = learn(model, facts, recipe, gate, progress=progress)
    if not report.passed:
        raise NotLearned(
            f"the adapter did not pass its gate and was not stored: {'; '.join(report.failed)}. Give it more "
            "epochs or a higher rank, fewer statements at once, or keep them as text",
            report=report,
        )
    expiries = [one.header.expires_at for one in found if one.header.expires_at is not None]
    cube = store(
        vault,
        scope,
        lora,
        sources,
        model=model,
        recipe=recipe,
        report=report,
        title=title,
        expires_at=to_micros(min(expiries)) if expiries else None,
    )
    with vault.snapshot() as snapshot:  # a source may have changed during training
        snapshot.require_current(cube.id)
    return cube


def learn(
    model: LocalModel, facts: Sequence[Fact], recipe: Recipe, gate: Gate, *, progress: Progress = silent
) -> tuple[LoRA, GateReport]:
    """Train an adapter, and its control where the gate asks for one, and measure them."""
    among = choices(facts, gate.candidates, recipe.seed)
    rehearsed = rehearsal(model, recipe.rehearsed)
    lora = train(model, [*examples(model, facts), *rehearsed], recipe, progress=progress)
    control = None
    if gate.control:
        wrong = shuffled(facts, among, recipe.seed)
        control = train(
            model,
            [*examples(model, wrong), *rehearsed],
            recipe,
            progress=lambda _, done, total: progress("training the control", done, total),
        )
    return lora, examine(model, lora, control, facts, among, gate, progress=progress)


def retrain(
    vault: Vault,
    adapter: str,
    model: LocalModel,
    *,
    recipe: Recipe | None = None,
    gate: Gate | None = None,
    paraphraser: Paraphraser | None = None,
    progress: Progress = silent,
) -> MemCube:
    """A new adapter from what the sources of this one say now, in its place; the old one is dropped.

    Sources that are deleted or have expired are left out; one that was erased took the adapter with it.
    recipe: default: that of the old one. When the new one does not pass its gate the old one stays, as it
    was: not served if it is stale. Raises as `as_adapter`, and StaleMemory when no source is left.
    """
    old = look(vault, adapter)
    left = live_ids(vault, [one.cube_id for one in old.cube.header.sources])
    if not left:
        raise StaleMemory(
            f"none of the sources of adapter {adapter} is there any more. Drop it: mnemic memory drop "
            f"{adapter}"
        )
    made = as_adapter(
        vault,
        left,
        model,
        recipe=recipe or _recipe(old.described.recipe),
        gate=gate,
        paraphraser=paraphraser,
        title=old.described.title,
        progress=progress,
    )
    drop(vault, adapter, reason=f"trained again as {made.id}")
    return made


def _recipe(told: Mapping[str, Any]) -> Recipe:
    return Recipe(**{**told, "targets": tuple(told["targets"])})
