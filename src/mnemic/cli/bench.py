"""`mnemic bench`: run benchmarks on your own machine, on your own copy of the data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mnemic.cli.bench_kv import app as kv_app
from mnemic.cli.progress import Steps as _progress
from mnemic.cli.results import Out, leave

if TYPE_CHECKING:
    from mnemic.bench.locomo import Dialogue
    from mnemic.bench.qa import Reader

app = typer.Typer(
    name="bench", no_args_is_help=True, help="Measure mnemic and other memories on the same questions."
)
app.add_typer(kv_app)

Data = Annotated[
    Path | None,
    typer.Option("--data", help="LoCoMo's JSON file, or the folder that holds it.", show_default=False),
]
Json = Annotated[bool, typer.Option("--json", help="Print the summary as JSON instead of Markdown.")]
Fresh = Annotated[bool, typer.Option("--fresh", help="Start over instead of going on with results in --out.")]
Systems = Annotated[
    list[str] | None, typer.Option("--system", help="Which systems, repeatable. See `mnemic bench systems`.")
]
Dialogues = Annotated[list[str] | None, typer.Option("--dialogue", help="Only these dialogues, repeatable.")]
Url = Annotated[str | None, typer.Option("--reader", help="Base URL of an OpenAI-compatible endpoint.")]
Model = Annotated[str | None, typer.Option("--reader-model", help="The model there that answers.")]
Key = Annotated[
    str | None, typer.Option("--reader-key", envvar="OPENAI_API_KEY", help="Its key.", show_envvar=True)
]
ReaderBudget = Annotated[int, typer.Option(help="Tokens of context the reader is given.")]


@app.command(epilog="Example:  mnemic bench systems")
def systems(as_json: Json = False) -> None:
    """List the systems that can be measured, and what each still needs here."""
    from mnemic.bench.systems import SYSTEMS, make, missing

    found = {}
    for name in SYSTEMS:
        system = make(name)
        found[name] = {
            "what": (type(system).__doc__ or "").strip().splitlines()[0],
            "status": missing(system) or "ready",
        }
    if as_json:
        typer.echo(json.dumps(found, indent=1))
        return
    from rich.table import Table

    from mnemic.cli.output import console

    table = Table("system", "what it is", "here")
    for name, about in found.items():
        table.add_row(name, about["what"], about["status"])
    console().print(table)


@app.command(epilog="Example:  mnemic bench locomo --data DIR --system mnemic --system bm25")
def locomo(
    data: Data = None,
    system: Systems = None,
    out: Out = Path("bench-results"),
    dialogue: Dialogues = None,
    reader: Url = None,
    reader_model: Model = None,
    reader_key: Key = None,
    reader_budget: ReaderBudget = 2000,
    fresh: Fresh = False,
    as_json: Json = False,
) -> None:
    """Ask every system the questions of LoCoMo: retrieval, contexts and, with a reader, answers.

    Writes a file for each system, summary.json and summary.md to --out. What is not installed is reported so.
    """
    from mnemic.bench.locomo import digest
    from mnemic.bench.markdown import markdown
    from mnemic.bench.profile import profile
    from mnemic.bench.report import summarise
    from mnemic.bench.run import Plan, run

    names = system or ["mnemic", "bm25", "dense-static", "recent", "full-context", "oracle"]
    chosen, path = _dialogues(data, dialogue)
    answers = _reader(reader, reader_model, reader_key)
    plan = Plan(data_digest=digest(path), reader=answers, reader_budget=reader_budget)
    with _progress(len(names) * len(chosen)) as report:
        results = run(names, chosen, plan, out, fresh=fresh, report=report)
    summary = summarise(results) | {"profile": profile(chosen)}
    command = _command("locomo", dialogue) + "".join(f" --system {name}" for name in names)
    command += "" if answers is None else f" --reader URL --reader-model {reader_model}"
    text = markdown(summary, command)
    leave(out, "summary", summary | {"command": command}, text, as_json)
    if any(result["status"].startswith("failed") for result in results):
        raise typer.Exit(1)


@app.command(epilog="Example:  mnemic bench ablation --data DIR --dialogue conv-26")
def ablation(
    data: Data = None, dialogue: Dialogues = None, out: Out = Path("bench-results"), as_json: Json = False
) -> None:
    """Leave each signal of mnemic's ranking out in turn, and use each alone: what is it worth?"""
    from mnemic.bench.ours import Mnemic
    from mnemic.bench.tune import ablation as ablate
    from mnemic.bench.tune import ablation_markdown, signals
    from mnemic.plaintext.recall.rank import Weights

    chosen, _ = _dialogues(data, dialogue)
    with _progress(1 + len(signals(Weights()))) as report:
        found = ablate(
            chosen, Weights(), lambda weights: Mnemic(weights=weights), lambda name: report(name, "done")
        )
    leave(out, "ablation", found, ablation_markdown(found, _command("ablation", dialogue)), as_json)


@app.command(epilog="Example:  mnemic bench fit --data DIR --leave-one-out")
def fit(
    data: Data = None,
    train: Annotated[
        list[str] | None, typer.Option("--train", help="Dialogues to fit on, repeatable or with commas.")
    ] = None,
    report: Annotated[
        list[str] | None, typer.Option("--report", help="Dialogues to report on; default: all others.")
    ] = None,
    leave_one_out: Annotated[
        bool, typer.Option("--leave-one-out", help="Report each dialogue by weights fitted on the others.")
    ] = False,
    out: Out = Path("bench-results"),
    as_json: Json = False,
) -> None:
    """Fit the ranking's weights on some dialogues and report recall on others.

    Writes fit.json, which `mnemic.Weights.read` takes, and fit.md to --out.
    """
    from mnemic.bench.fit import fit_markdown, run
    from mnemic.bench.fit import leave_one_out as one_out
    from mnemic.cube.errors import InvalidOption

    everything, _ = _dialogues(data, None)
    if leave_one_out:
        if train or report:
            raise InvalidOption("--leave-one-out takes every dialogue: leave out --train and --report")
        if len(everything) < 2:
            raise InvalidOption("--leave-one-out needs at least two dialogues")
        with _progress(2 * len(everything) + 1) as step:
            found = one_out(everything, lambda done: step("fit", done))
        command = "mnemic bench fit --data DIR --leave-one-out"
    else:
        fitted, _ = _dialogues(data, _split(train))
        others = [d for d in everything if d not in fitted]
        tested = _dialogues(data, _split(report))[0] if report else others
        if both := sorted({d.id for d in fitted} & {d.id for d in tested}):
            raise InvalidOption(f"{', '.join(both)} would be fitted and reported on; name them once")
        with _progress(2 * len(fitted) + 1 + len(tested)) as step:
            found = run(fitted, tested, lambda done: step("fit", done))
        command = f"mnemic bench fit --data DIR --train {','.join(found['trained_on'])}"
    leave(out, "fit", found, fit_markdown(found, command), as_json)


@app.command(epilog="Example:  mnemic bench abstain --data DIR")
def abstain(data: Data = None, out: Out = Path("bench-results"), as_json: Json = False) -> None:
    """Fit and report how well `ask` knows what a memory does not hold: each dialogue by the others."""
    from mnemic.bench.abstain import abstain_markdown, run
    from mnemic.cube.errors import InvalidOption

    dialogues, _ = _dialogues(data, None)
    if len(dialogues) < 2:
        raise InvalidOption("abstain needs at least two dialogues: one to report on, others to fit on")
    with _progress(len(dialogues)) as step:
        found = run(dialogues, lambda done: step("abstain", done))
    leave(out, "abstain", found, abstain_markdown(found, "mnemic bench abstain --data DIR"), as_json)


@app.command(epilog="Example:  mnemic bench context --data DIR --budget 500 --budget 1000")
def context(
    data: Data = None,
    budget: Annotated[
        list[int] | None, typer.Option("--budget", min=64, help="Tokens, repeatable.", show_default=False)
    ] = None,
    dialogue: Dialogues = None,
    out: Out = Path("bench-results"),
    as_json: Json = False,
) -> None:
    """How much of the evidence is in a context, beside plain top-k hits and the latest turns.

    Budgets of 1,000, 2,000 and 4,000 tokens unless named. Writes context.json and context.md to --out.
    """
    from mnemic.bench.context import BUDGETS, SYSTEMS, context_markdown, run

    chosen, _ = _dialogues(data, dialogue)
    budgets = budget or list(BUDGETS)
    with _progress(len(SYSTEMS) * len(chosen)) as report:
        found = run(chosen, budgets, report)
    command = _command("context", dialogue) + "".join(f" --budget {tokens}" for tokens in budgets)
    leave(out, "context", found, context_markdown(found, command), as_json)


@app.command(epilog="Example:  mnemic bench updates --data DIR")
def updates(
    data: Annotated[
        Path | None,
        typer.Option("--data", help="Folder of MQuAKE's prompt templates.", show_default=False),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            help="Instead: unseen paraphrases by the rules, by this model (smollm2, a folder), by both.",
            show_default=False,
        ),
    ] = None,
    out: Out = Path("bench-results"),
    as_json: Json = False,
) -> None:
    """Contradict facts: is what holds now first, what held before still there, and nothing else ended?

    Invented entities, and a control of compatible pairs. Writes updates.json and updates.md to --out, with
    --model updates-model.json and .md.
    """
    from mnemic.bench.updates import ROUNDS, SYSTEMS, run, updates_markdown
    from mnemic.cube.errors import InvalidOption

    if model is not None:
        from mnemic.bench.updates_model import MODEL_SYSTEMS, model_markdown, run_model
        from mnemic.models.registry import load_model

        with _progress(len(MODEL_SYSTEMS)) as step:
            found = run_model(load_model(model), lambda done: step("updates", done))
        command = f"mnemic bench updates --model {model}"
        leave(out, "updates-model", found, model_markdown(found, command), as_json)
        return
    if data is None:
        raise InvalidOption(
            "--data is missing. Download cloze_templates.json and question_templates.json from github.com/"
            "princeton-nlp/MQuAKE (MIT, prompts/templates) and pass their folder"
        )
    with _progress(ROUNDS * (len(SYSTEMS) + 2)) as step:
        found = run(data, lambda done: step("updates", done))
    leave(out, "updates", found, updates_markdown(found, "mnemic bench updates --data DIR"), as_json)


def _split(named: list[str] | None) -> list[str] | None:
    return [part for one in named for part in one.split(",") if part] if named else None


def _command(name: str, dialogue: list[str] | None) -> str:
    return " ".join([f"mnemic bench {name} --data DIR", *(f"--dialogue {d}" for d in dialogue or ())])


def _reader(url: str | None, model: str | None, key: str | None) -> Reader | None:
    from mnemic.bench.qa import Reader
    from mnemic.cube.errors import InvalidOption
    from mnemic.models.openai_model import OpenAIModel

    if url is None and model is None:
        return None
    if url is None or model is None:
        raise InvalidOption("give --reader URL and --reader-model NAME together")
    return Reader(OpenAIModel(model=model, base_url=url, api_key=key))


def _dialogues(data: Path | None, only: list[str] | None) -> tuple[list[Dialogue], Path]:
    from mnemic.bench.locomo import load
    from mnemic.cube.errors import InvalidOption

    if data is None:
        raise InvalidOption(
            "--data is missing. Download locomo10.json from github.com/snap-research/locomo "
            "(CC BY-NC 4.0) and pass its folder or the file: mnemic bench locomo --data DIR"
        )
    found = load(data)
    unknown = sorted(set(only or ()) - {d.id for d in found})
    if unknown:
        raise InvalidOption(f"no dialogue {', '.join(unknown)}; there are {', '.join(d.id for d in found)}")
    return [d for d in found if not only or d.id in only], data
