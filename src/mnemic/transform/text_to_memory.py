"""Text to a memory of next tokens: a datastore of a model's states, searched, or compiled into a network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from torch import Tensor

from mnemic.cube.errors import InvalidOption
from mnemic.cube.model import MemCube
from mnemic.cube.times import to_micros
from mnemic.models.local import LocalModel
from mnemic.parametric.bare import require_bare
from mnemic.parametric.blend import Curve, Memory, curve
from mnemic.parametric.blend_cube import load, store
from mnemic.parametric.datastore import Taps, Text, build
from mnemic.parametric.keeping import drop, look
from mnemic.parametric.lora_training import Example, Progress, examples, silent
from mnemic.parametric.mlp import Compile, compile_memory, targets
from mnemic.parametric.nearest import Search, nearest
from mnemic.parametric.neutral import KEPT, REHEARSED
from mnemic.parametric.scoring import question_ids
from mnemic.plaintext.compose.sentences import said
from mnemic.transform.paraphrases import Paraphraser, Templates, facts_of
from mnemic.transform.sources import read_sources
from mnemic.vault.vault import Vault

FORMS: Final = ("exact", "ivfpq", "mlp")
DEFAULT_LAM: Final = 0.25
DEFAULT_LAM_WITHIN: Final = 0.8  # of a memory that speaks only within its reach


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How a memory is made. form: "exact" and "ivfpq" search the states at each step, "mlp" compiles them.

    search: by default that of a memory of statements: few neighbours, and silent beyond its reach (see
    `Search.reach`; the published kNN-LM, for a corpus that the model is to sound like, is `Search()`).
    compile: likewise; a fact is seen a few times only, so more epochs on fewer blocks than `Compile()`, and
    of few facts more still. lam:
    its weight beside the model; None: the best of a grid on `tune_on`; without such a text 0.8 within a
    reach, 0.25 where it always speaks.
    """

    form: str = "mlp"
    taps: Taps = field(default_factory=Taps)
    search: Search = field(default_factory=lambda: Search(k=16, temperature=0.1, reach=1.5))
    compile: Compile = field(default_factory=lambda: Compile(blocks=2, epochs=8, least=100))
    lam: float | None = None

    def __post_init__(self) -> None:
        if self.form not in FORMS:
            raise InvalidOption(f"form={self.form!r:.40} must be one of {', '.join(FORMS)}")
        if self.lam is not None and not 0 <= self.lam <= 1:
            raise InvalidOption(f"lam={self.lam!r:.80} must be between 0 and 1")


def make_memory(
    model: LocalModel, texts: Sequence[Text], options: Options, *, progress: Progress = silent
) -> Memory:
    """A memory of texts (or token ids) that no vault keeps. Costs: `datastore.estimate` says them first."""
    require_bare(model)
    kept = build(model, texts, options.taps, progress=progress)
    if options.form != "mlp":
        return nearest(model, kept, options.search, form=options.form)
    told = targets(nearest(model, kept, options.search), progress=progress)
    others = None if options.search.reach is None else unrelated(model, options.taps)
    return compile_memory(model, kept, told, options.compile, others=others, progress=progress)


def unrelated(model: LocalModel, taps: Taps) -> Tensor:
    """What enters a compiled memory while the model reads what has to do with nobody's memory.

    Without what is the same for all: a text's first token, and what a chat template puts before a question.
    """
    texts: list[Text] = [KEPT]
    if model.tokenizer.chat_template:
        asked = [question_ids(model, one) for one in REHEARSED]
        same = next(n for n, one in enumerate(zip(*asked, strict=False)) if len(set(one)) > 1)
        # a token more, for the state that an answer begins from
        texts += [Example(one[: same + 1], [*one[same + 1 :], one[-1]]) for one in asked]
    return build(model, texts, taps).inputs[1:]


def as_memory(
    vault: Vault,
    cubes: Sequence[str | MemCube],
    model: LocalModel,
    *,
    options: Options | None = None,
    paraphraser: Paraphraser | None = None,
    tune_on: str | None = None,
    title: str | None = None,
    progress: Progress = silent,
) -> MemCube:
    """Turn what these cubes say into a memory that is mounted beside `model`: a cube.

    What is kept: each cube's text, and the answers to its statements as questions in the model's chat
    template, so that it helps both a text that goes on and a question. tune_on: text on which lambda is
    chosen; not one you report on. Stale as soon as a source changes: weights cannot forget one row, and a
    datastore is not picked apart either.

    Raises InvalidOption, NotFound, StaleMemory when a source changed meanwhile, MissingExtra, VaultFull.
    """
    options = options or Options()
    found, sources, scope = read_sources(vault, cubes, made="a memory")
    vault.require_writable(scope)
    texts: list[Text] = [said(one) for one in found]
    if model.tokenizer.chat_template:
        texts += examples(model, facts_of(found, paraphraser or Templates()))
    memory = make_memory(model, texts, options, progress=progress)
    tuned = None if tune_on is None else curve(model, memory, tune_on)
    expiries = [one.header.expires_at for one in found if one.header.expires_at is not None]
    cube = store(
        vault,
        scope,
        memory,
        sources,
        model=model,
        recipe={"options": asdict(options)},
        lam=_lam(options, tuned),
        curve=tuned,
        title=title,
        expires_at=to_micros(min(expiries)) if expiries else None,
    )
    with vault.snapshot() as snapshot:
        snapshot.require_current(cube.id)
    return cube


def tune(vault: Vault, id: str, model: LocalModel, text: str, *, tokens: int | None = None) -> MemCube:
    """Choose lambda anew on a text, 0 among the choices; the memory in its place, with the curve it rests on.

    One forward and one search a block of text. Raises as `mount`.
    """
    old = look(vault, id)
    if old.described.form not in FORMS:
        raise InvalidOption(
            f"{id} is an adapter, which has no weight to choose; leave the text out to train it again"
        )
    with vault.snapshot() as snapshot:
        snapshot.require_current(id)
    blend = load(vault, old.cube)
    blend.check(model, ())
    tuned = curve(model, blend.memory, text, tokens=tokens)
    header = old.cube.header
    recipe = {name: one for name, one in old.described.recipe.items() if name != "holds"}
    made = store(
        vault,
        header.scope,
        blend.memory,
        header.sources,
        model=model,
        recipe=recipe,
        lam=tuned.best,
        curve=tuned,
        title=old.described.title,
        expires_at=None if header.expires_at is None else to_micros(header.expires_at),
    )
    drop(vault, id, reason=f"tuned again as {made.id}")
    return made


def options_of(told: dict[str, Any]) -> Options:
    """From a recipe."""
    return Options(
        form=told["form"],
        taps=Taps(**told["taps"]),
        search=Search(**told["search"]),
        compile=Compile(**told["compile"]),
        lam=told["lam"],
    )


def _lam(options: Options, tuned: Curve | None) -> float:
    if options.lam is not None:
        return options.lam
    if tuned is not None:
        return tuned.best
    return DEFAULT_LAM if options.search.reach is None else DEFAULT_LAM_WITHIN
