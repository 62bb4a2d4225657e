"""Text to adapter: statements as questions and answers, trained into a LoRA, tested, and kept (MemOS §7).

The papers give no recipe and no thresholds; those here are ours, and each is an option.
"""

from __future__ import annotations

from collections.abc import Sequence

from mnemic.cube.errors import InvalidOption, NotLearned
from mnemic.cube.model import MemCube
from mnemic.cube.times import to_micros
from mnemic.models.local import LocalModel
from mnemic.parametric.gate import Gate, GateReport, examine
from mnemic.parametric.lora import LoRA
from mnemic.parametric.lora_cube import store
from mnemic.parametric.lora_training import Progress, Recipe, examples, rehearsal, silent, train
from mnemic.parametric.questions import Fact, choices, shuffled
from mnemic.transform.paraphrases import Paraphraser, Templates, facts_of
from mnemic.transform.sources import read_sources
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
    mount serves it; `retraining.retrain` makes one from what holds now. The model itself is not touched.

    Costs up to `recipe.epochs` passes over the questions, twice with the gate's control, and some 3 ·
    questions short forwards. Raises InvalidOption, NotFound, NotLearned, StaleMemory when a source changed
    meanwhile, MissingExtra, VaultFull.
    """
    recipe, gate = recipe or Recipe(), gate or Gate()
    found, sources, scope = read_sources(vault, cubes, made="an adapter")
    vault.require_writable(scope)
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
