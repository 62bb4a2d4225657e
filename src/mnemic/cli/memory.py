"""`mnemic memory`: what a model in this process has learned from texts, as adapters and other memories."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mnemic.cli import options as o
from mnemic.cli.made import LocalModelName, Title, as_dict, chat_hint, cited, now, texts
from mnemic.cli.opening import Place, Who, read_where
from mnemic.cli.output import console, ending, minute, note, plain, print_json, safe, short

if TYPE_CHECKING:
    from mnemic.cube.model import MemCube
    from mnemic.parametric.keeping import Learned

app = typer.Typer(
    name="memory",
    no_args_is_help=True,
    help="What a model has learned from texts: small memories of weights that are mounted, never merged.",
)
COMPILED_BY = {  # the options that a form has when it is made, and when it is made again
    "lora": ("epochs", "rank", "control"),
    "exact": ("text",),
    "ivfpq": ("text",),
    "mlp": ("text", "epochs"),
}
TUNED_BY = {**COMPILED_BY, "mlp": ("text",)}
Id = Annotated[
    str, typer.Argument(metavar="ID", help="A learned memory's id, or an ending of it that only one has.")
]
Epochs = Annotated[
    int | None,
    typer.Option(
        "--epochs", min=1, help="Passes over what an adapter or MLP memory learns.", show_default=False
    ),
]
Rank = Annotated[
    int | None, typer.Option("--rank", min=1, help="Of an adapter's low-rank change.", show_default=False)
]
Text = Annotated[
    Path | None,
    typer.Option(
        "--text",
        metavar="FILE",
        exists=True,
        dir_okay=False,
        help="Choose a kNN or MLP memory's weight beside the model on this text; not one you report on.",
    ),
]
Control = Annotated[
    bool | None,
    typer.Option(
        "--control/--no-control",
        help="Also train an adapter on shuffled answers, which must teach nothing true. It doubles the time. "
        "Default: --control.",
        show_default=False,
    ),
]


@app.command("compile", epilog="Example:  mnemic memory compile --user ana --model smollm2 --title profile")
def compile_(
    vault: o.Vault = None,
    tenant: o.Tenant = "default",
    user: o.User = None,
    agent: o.Agent = None,
    session: o.Session = None,
    id: Annotated[
        list[str] | None,
        typer.Option("--id", metavar="ID", help="Learn this cube; repeatable. Default: all of the user's."),
    ] = None,
    where: o.Where = None,
    model: LocalModelName = "smollm2",
    form: Annotated[
        str,
        typer.Option(
            "--form", help="lora: an adapter. exact, ivfpq: a kNN memory. mlp: one compiled into a network."
        ),
    ] = "lora",
    tune_on: Text = None,
    epochs: Epochs = None,
    rank: Rank = None,
    control: Control = None,
    reword: Annotated[
        bool, typer.Option("--reword", help="Have the model itself word more questions to learn from.")
    ] = False,
    title: Title = None,
    as_json: o.Json = False,
) -> None:
    """Have a model learn texts; `mnemic chat --memory` mounts what it has learned.

    An adapter is tested before it is stored: questions in wordings it was not trained on, unrelated text, a
    control trained on shuffled answers. One that fails is not stored, and exit code 2 says why. A kNN memory
    keeps the model's states and searches them at each step, an MLP memory is a network that was taught to
    answer as that search does.
    """
    from mnemic.models.registry import load_model

    _require_used(form, COMPILED_BY, text=tune_on, epochs=epochs, rank=rank, control=control)
    who, filters = Who(user=user, agent=agent, session=session), read_where(where)
    reads = who.reads()
    with Place(vault=vault, tenant=tenant).open(reading=True) as memory:
        chosen = texts(memory, id, {**reads, "where": filters})
        local = load_model(model)
        from mnemic.parametric.gate import Gate
        from mnemic.transform.paraphrases import Reworded

        start = time.perf_counter()
        with _Stages() as progress:
            told = {
                "paraphraser": Reworded(model=local) if reword else None,
                "title": title,
                "progress": progress,
            }
            if form == "lora":
                gate = Gate(control=control is not False)
                made = memory.as_adapter(chosen, local, recipe=_recipe(epochs, rank), gate=gate, **told)
            else:
                text = None if tune_on is None else tune_on.read_text(encoding="utf-8")
                made = memory.as_memory(chosen, local, options=_options(form, epochs), tune_on=text, **told)
        learned = _look(memory, made.id)
    _tell_made(learned, len(chosen), time.perf_counter() - start, as_json)
    if not as_json:
        note(chat_hint("--memory", made, model, user))


@app.command("list", epilog="Example:  mnemic memory list --user ana")
def list_(
    vault: o.Vault = None,
    tenant: o.Tenant = "default",
    user: o.User = None,
    everyone: o.Everyone = False,
    as_json: o.Json = False,
) -> None:
    """List what models have learned, and whether it may still be used."""
    from mnemic.cube.model import ANY
    from mnemic.upkeep import learned_memories

    Who(user=user, everyone=everyone).reads()
    with Place(vault=vault, tenant=tenant).open(reading=True) as memory:
        found = learned_memories(memory, user=ANY if everyone else user)
    if as_json:
        print_json([as_dict(one) for one in found])
        return
    if not found:
        note("there are none; make one with: mnemic memory compile --user NAME --model smollm2")
        return
    from rich.table import Table

    table = Table("id", "title", "of", "form", "model", "from", "MB", "made", "now")
    for one in found:
        told, header = one.described, one.cube.header
        table.add_row(
            ending(one.cube.id), safe(told.title or ""), safe(header.scope.user or ""), safe(told.form),
            safe(told.model), f"{len(header.sources)} cubes", f"{told.size / 1e6:,.1f}",
            minute(header.recorded_at), now(one, 60),
        )  # fmt: skip
    console().print(table)


@app.command(epilog="Example:  mnemic memory inspect 3f9a01bc --probe --model smollm2")
def inspect(
    id: Id,
    vault: o.Vault = None,
    tenant: o.Tenant = "default",
    probe: Annotated[
        bool, typer.Option("--probe", help="Ask the weights what they still say of their sources.")
    ] = False,
    model: LocalModelName = "smollm2",
    export: Annotated[
        Path | None,
        typer.Option(
            "--export", metavar="DIR", help="Also write an adapter for PEFT; no erasure reaches it."
        ),
    ] = None,
    as_json: o.Json = False,
) -> None:
    """Show what a learned memory was made from and with, how it was tested, and what its weights say."""
    from mnemic.models.registry import load_model
    from mnemic.upkeep import export_adapter, full_id, stale_share

    with Place(vault=vault, tenant=tenant).open(reading=True) as memory:
        learned = _look(memory, full_id(memory, id))
        changed = stale_share(memory, learned)
        adapter = learned.described.form == "lora"
        spoken = None
        if adapter:
            spoken = memory.as_text(learned.cube.id, load_model(model) if probe else None)
        sources = cited(memory, learned)
        if export is not None:
            export_adapter(memory, learned.cube.id, export)
    if as_json:
        print_json(
            {**as_dict(learned), "stale_share": changed, "probes": plain(spoken.probes) if spoken else []}
        )
        return
    out, told = console(), learned.described
    out.print(f"{learned.cube.id}  {safe(told.title or '')}", style="bold")
    out.print(now(learned))
    out.print(
        f"{safe(told.form)}, {told.numbers:,} numbers, {told.size / 1e6:,.1f} MB, for {safe(told.model)}"
    )
    out.print(_report(learned))
    out.print(f"made with {safe(told.made_with)}", style="dim")
    for name, value in told.recipe.items():
        out.print(f"  {safe(name):14} {safe(str(value))}", style="dim")
    for part, digest in told.fingerprint.items():
        out.print(f"  {part:14} {safe(digest[:16])}…", style="dim")
    out.print(f"from {len(sources)} cubes, {changed:.0%} of them changed or gone since:")
    for line in sources:
        out.print(line, style="dim")
    if spoken and spoken.probes:
        from rich.table import Table

        table = Table("question", "the text now", "the weights say", "rank", "alone")
        for one in spoken.probes:
            table.add_row(
                safe(one.question), safe(one.text), short(one.said, 60), f"{one.rank}/{one.candidates}",
                f"{one.rank_alone}/{one.candidates}",
            )  # fmt: skip
        out.print(table)


@app.command(epilog="Example:  mnemic memory tune 3f9a01bc --model smollm2")
def tune(
    id: Id,
    vault: o.Vault = None,
    tenant: o.Tenant = "default",
    model: LocalModelName = "smollm2",
    text: Text = None,
    epochs: Epochs = None,
    rank: Rank = None,
    control: Control = None,
    yes: Annotated[
        bool, typer.Option("--yes", "-y", help="Do not ask first when it was trained for another model.")
    ] = False,
    as_json: o.Json = False,
) -> None:
    """Train it again on what its sources say now; or, with --text, choose a memory's weight on that text.

    The old one is dropped once the new one has passed its tests and is stored; sources that are gone are left
    out. Under another --model than before it asks first, for that model would lose what it has learned.
    """
    from mnemic.cube.errors import IncompatibleMemory
    from mnemic.models.registry import load_model
    from mnemic.upkeep import full_id, tune_memory

    with Place(vault=vault, tenant=tenant).open(reading=True) as memory:
        old = _look(memory, full_id(memory, id))
        local = load_model(model)
        from mnemic.parametric.gate import Gate

        start, form = time.perf_counter(), old.described.form
        _require_used(form, TUNED_BY, text=text, epochs=epochs, rank=rank, control=control)
        with _Stages() as progress:

            def train(for_another_model: bool) -> MemCube:
                return memory.retrain(
                    old.cube,
                    local,
                    recipe=None if epochs is None and rank is None else _recipe(epochs, rank),
                    gate=Gate(control=control is not False) if form == "lora" else None,
                    for_another_model=for_another_model,
                    progress=progress,
                )

            if text is not None:
                made = tune_memory(memory, old.cube.id, local, text.read_text(encoding="utf-8"))
            else:
                try:
                    made = train(yes)
                except IncompatibleMemory as refused:  # before anything was trained
                    if not sys.stdin.isatty():
                        raise
                    typer.confirm(f"{refused}\nGo on?", abort=True, err=True)
                    made = train(True)
        learned = _look(memory, made.id)
    _tell_made(learned, len(learned.cube.header.sources), time.perf_counter() - start, as_json)


@app.command(epilog='Example:  mnemic memory drop 3f9a01bc --reason "the profile moved on"')
def drop(
    id: Annotated[
        str | None, typer.Argument(metavar="ID", help="Or an ending of it.", show_default=False)
    ] = None,
    stale: Annotated[
        bool, typer.Option("--stale", help="Drop every one whose sources have changed or are gone.")
    ] = False,
    vault: o.Vault = None,
    tenant: o.Tenant = "default",
    reason: o.Reason = None,
    as_json: o.Json = False,
) -> None:
    """Take a learned memory away and delete its file. Its texts stay; it can be trained again from them."""
    from mnemic.upkeep import drop_learned, drop_stale_learned, full_id

    if (id is None) is not stale:
        raise typer.BadParameter("say which one, or --stale for all that are not served any more")
    with Place(vault=vault, tenant=tenant).open(reading=True) as memory:
        if id is None:
            dropped, freed = drop_stale_learned(memory)
        else:
            cube = full_id(memory, id)
            dropped, freed = 1, drop_learned(memory, cube, reason=reason)
    if as_json:
        print_json({"dropped": dropped, "bytes_freed": freed})
        return
    console().print(f"{dropped} dropped; {freed / 1e6:,.1f} MB freed")


class _Stages:
    """A bar for each stage of a training, on a terminal."""

    def __enter__(self) -> Any:
        self._bars: dict[str, Any] = {}
        return self._report

    def _report(self, what: str, done: int, total: int) -> None:
        from mnemic.cli.progress import Bar

        if what not in self._bars:
            self._end()
            self._bars[what] = Bar(what, "steps").__enter__()
        self._bars[what](done, total)

    def _end(self) -> None:
        for bar in self._bars.values():
            bar.__exit__(None, None, None)

    def __exit__(self, *_: object) -> None:
        self._end()


def _require_used(form: str, used: Mapping[str, tuple[str, ...]], **given: Any) -> None:
    """No option of another form is silently ignored."""
    if form not in used:
        raise typer.BadParameter(f"--form must be one of {', '.join(used)}, not {form[:40]!r}")
    if unused := [f"--{one}" for one, value in given.items() if value is not None and one not in used[form]]:
        raise typer.BadParameter(f"{' and '.join(unused)}: not for a memory of the form {form}")


def _options(form: str, epochs: int | None) -> Any:
    """Of a kNN or MLP memory."""
    from mnemic.transform.text_to_memory import Options

    made = Options(form=form)
    return made if epochs is None else replace(made, compile=replace(made.compile, epochs=epochs, least=1))


def _recipe(epochs: int | None, rank: int | None) -> Any:
    from mnemic.parametric.lora_training import Recipe

    given: dict[str, Any] = {"epochs": epochs, "rank": rank}
    return Recipe(**{name: value for name, value in given.items() if value is not None})


def _look(memory: Any, id: str) -> Learned:
    from mnemic.upkeep import learned_memory

    return learned_memory(memory, id)


def _report(learned: Learned) -> str:
    report = learned.described.report
    if learned.described.form != "lora":
        curve = report["curve"] or {"perplexities": []}
        tried = ", ".join(f"{lam:g}: {found:.2f}" for lam, found in curve["perplexities"])
        return f"weight {report['lam']:g} beside the model" + (
            f"; perplexity by weight {tried}" if tried else ""
        )
    from mnemic.parametric.gate import GateReport

    return str(GateReport.of_dict(learned.described.report))


def _tell_made(learned: Learned, cubes: int, seconds: float, as_json: bool) -> None:
    if as_json:
        print_json({**as_dict(learned), "seconds": seconds})
        return
    told = learned.described
    console().print(
        f"[{ending(learned.cube.id)}] {safe(told.model)} learned {cubes:,} cubes in {seconds:.1f} s; "
        f"{told.numbers:,} numbers, {told.size / 1e6:,.1f} MB kept"
    )
    console().print(_report(learned), style="dim")
