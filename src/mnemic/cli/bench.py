"""`mnemic bench`: run benchmarks on your own machine, on your own copy of the data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from mnemic.bench.locomo import Dialogue

app = typer.Typer(
    name="bench", no_args_is_help=True, help="Measure mnemic and other memories on the same questions."
)

Data = Annotated[
    Path | None,
    typer.Option("--data", help="LoCoMo's JSON file, or the folder that holds it.", show_default=False),
]
Out = Annotated[
    Path, typer.Option("--out", help="Folder for results; a second run goes on where the first ended.")
]
Json = Annotated[bool, typer.Option("--json", help="Print the summary as JSON instead of Markdown.")]
Fresh = Annotated[bool, typer.Option("--fresh", help="Start over instead of going on with results in --out.")]
Systems = Annotated[
    list[str] | None, typer.Option("--system", help="Which systems, repeatable. See `mnemic bench systems`.")
]
Dialogues = Annotated[list[str] | None, typer.Option("--dialogue", help="Only these dialogues, repeatable.")]
Url = Annotated[
    str | None, typer.Option("--reader", help="Base URL of an OpenAI-compatible endpoint that answers.")
]
Model = Annotated[str | None, typer.Option("--reader-model", help="Name of the model behind --reader.")]
ReaderBudget = Annotated[int, typer.Option(help="Tokens of context the reader is given.")]


@app.command()
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
    from rich.console import Console
    from rich.table import Table

    table = Table("system", "what it is", "here")
    for name, about in found.items():
        table.add_row(name, about["what"], about["status"])
    Console().print(table)


@app.command()
def locomo(
    data: Data = None,
    system: Systems = None,
    out: Out = Path("bench-results"),
    dialogue: Dialogues = None,
    fresh: Fresh = False,
    as_json: Json = False,
) -> None:
    """Ask every system the questions of LoCoMo: retrieval, contexts and, with a reader, answers.

    Writes a file for each system, summary.json and summary.md to --out. What is not installed is reported so.
    """
    from mnemic.bench.locomo import digest
    from mnemic.bench.markdown import markdown
    from mnemic.bench.report import summarise
    from mnemic.bench.run import Plan, run
    from mnemic.cube.errors import MnemicError

    names = system or ["mnemic", "bm25", "dense-static", "recent", "full-context"]
    try:
        chosen, path = _dialogues(data, dialogue)
        plan = Plan(data_digest=digest(path))
        with _progress(len(names) * len(chosen)) as report:
            results = run(names, chosen, plan, out, fresh=fresh, report=report)
    except MnemicError as error:
        raise _refusal(error) from error
    summary = summarise(results)
    command = f"mnemic bench locomo --data DIR {' '.join(f'--system {name}' for name in names)}"
    command += "".join(f" --dialogue {name}" for name in dialogue or ())
    text = markdown(summary, command)
    (out / "summary.json").write_text(json.dumps(summary | {"command": command}, indent=1) + "\n")
    (out / "summary.md").write_text(text)
    typer.echo(json.dumps(summary, indent=1) if as_json else text)
    if any(result["status"].startswith("failed") for result in results):
        raise typer.Exit(1)


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


class _progress:
    """A bar on standard error that moves by one per dialogue and system, and keeps a line for each event."""

    def __init__(self, steps: int) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeElapsedColumn

        self.bar = Progress(
            "{task.description}",
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=Console(stderr=True),
        )
        self.task = self.bar.add_task("starting", total=steps)

    def __enter__(self) -> Any:
        self.bar.start()
        return self._report

    def _report(self, system: str, message: str) -> None:
        self.bar.update(self.task, description=system, advance=1)
        self.bar.console.print(f"{system}: {message}", highlight=False)

    def __exit__(self, *_: object) -> None:
        self.bar.stop()


def _refusal(error: Exception) -> typer.BadParameter:
    return typer.BadParameter(str(error))
