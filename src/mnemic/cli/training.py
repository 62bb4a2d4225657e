"""`mnemic train`: small models made of memory layers, on text and on recall tasks."""

from __future__ import annotations

import json
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mnemic.cli.progress import Bar

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from mnemic.training.loop import Trained
    from mnemic.training.options import LoopOptions, RecallRun, TextRun
    from mnemic.training.source import Source

app = typer.Typer(
    name="train", no_args_is_help=True, help="Train small models made of memory layers. Needs mnemic[torch]."
)

DEAD = 0.1  # share of a table's slots; below it, most of the table is dead weight

Config = Annotated[
    Path | None,
    typer.Option(
        "--config", metavar="FILE", help="TOML or JSON; what is given here goes before.", show_default=False
    ),
]
Layer = Annotated[
    list[str] | None,
    typer.Option(
        "--layer",
        metavar="NAME[,OPTION=VALUE…]",
        help="A block's layer, repeatable, in order. Such as: window,window=32",
        show_default=False,
    ),
]
Memory = Annotated[
    str | None,
    typer.Option(
        "--memory",
        metavar="NAME[,OPTION=VALUE…]",
        help="A memory of slots beside every MLP. Such as: ultramem,keys=64,topm=16",
        show_default=False,
    ),
]
Dim = Annotated[int | None, typer.Option("--dim", min=1, help="Width of the model.", show_default=False)]
TrainSteps = Annotated[int | None, typer.Option("--steps", min=1, help="Steps in all.", show_default=False)]
Batch = Annotated[int | None, typer.Option("--batch", min=1, help="Sequences a step.", show_default=False)]
Micro = Annotated[
    int | None,
    typer.Option("--micro", min=1, help="Sequences at a time; the steps stay the same.", show_default=False),
]
Seed = Annotated[int | None, typer.Option("--seed", min=0, help="Of weights and data.", show_default=False)]
Out = Annotated[
    Path, typer.Option("--out", help="Folder of the run; the same command goes on where it ended.")
]
Fresh = Annotated[bool, typer.Option("--fresh", help="Start over instead of going on.")]
Json = Annotated[bool, typer.Option("--json", help="Print the evaluations as JSON.")]


@app.command(epilog="Example:  mnemic train lm --data books --layer window --layer gated-delta --steps 500")
def lm(
    data: Annotated[
        Path | None,
        typer.Option(
            "--data", help="Folder of the texts; the files named below are in it.", show_default=False
        ),
    ] = None,
    train: Annotated[
        str | None,
        typer.Option("--train", help="Text file, or a folder's .txt files (default).", show_default=False),
    ] = None,
    held_out: Annotated[
        str | None,
        typer.Option("--held-out", help="Default: the last tenth of the text.", show_default=False),
    ] = None,
    config: Config = None,
    layer: Layer = None,
    memory: Memory = None,
    dim: Dim = None,
    steps: TrainSteps = None,
    batch: Batch = None,
    micro: Micro = None,
    seed: Seed = None,
    out: Out = Path("train-lm"),
    fresh: Fresh = False,
    as_json: Json = False,
) -> None:
    """Train a language model on text, made of the layers you name.

    Writes checkpoint.safetensors and log.jsonl to --out while it runs, and at the end model/, a transformers
    model with its tokenizer. Ctrl-C keeps the last whole step.
    """
    given = _given(config, layer, memory, dim, steps=steps, batch=batch, micro=micro, seed=seed)
    from mnemic.cube.errors import InvalidOption
    from mnemic.training.loop import config_of
    from mnemic.training.options import TextRun
    from mnemic.training.text import Text

    told = {"train": train or ("." if data is not None and "data" not in given else None)}
    _put(given, "data", **told, held_out=held_out)
    if "data" not in given:
        raise InvalidOption("name the text: --data FOLDER, or a [data] section with train in --config")
    run = TextRun.read(given)
    config_of(run.model, run.data.vocabulary)  # a wrong layer is refused before a long text is read
    text = Text(run.data, data)
    _perform(run, text, out, fresh=fresh, as_json=as_json, tokenizer=text.tokenizer)


@app.command(epilog="Example:  mnemic train recall --task mqar --layer base-conv --layer based --steps 400")
def recall(
    task: Annotated[
        str | None, typer.Option("--task", help="See `mnemic bench layers`.", show_default="mqar")
    ] = None,
    config: Config = None,
    layer: Layer = None,
    memory: Memory = None,
    dim: Dim = None,
    steps: TrainSteps = None,
    batch: Batch = None,
    micro: Micro = None,
    seed: Seed = None,
    out: Out = Path("train-recall"),
    fresh: Fresh = False,
    as_json: Json = False,
) -> None:
    """Train a stack on a recall task: how much of what a sequence said does it give back?

    Needs no data. Writes checkpoint.safetensors and log.jsonl to --out, and model/ at the end.
    """
    given = _given(config, layer, memory, dim, steps=steps, batch=batch, micro=micro, seed=seed)
    from mnemic.training.options import RecallRun

    _put(given, "task", name=task)
    run = RecallRun.read(given)
    source = _task(run.task.name, run.task.options, run.task.evaluated, run.training.seed)
    _perform(run, source, out, fresh=fresh, as_json=as_json)


def layer_entry(text: str) -> dict[str, Any]:
    """`window,window=32` as {"layer": "window", "window": 32}. Raises InvalidOption."""
    from mnemic.cube.errors import InvalidOption

    name, *rest = text.split(",")
    found: dict[str, Any] = {"layer": name.strip()}
    for one in rest:
        key, equals, value = one.partition("=")
        if not equals:
            raise InvalidOption(f"options of a layer are written NAME,OPTION=VALUE, got {text!r:.80}")
        try:
            found[key.strip()] = json.loads(value)
        except ValueError:
            found[key.strip()] = value.strip()
    return found


def _task(name: str, options: Mapping[str, Any], evaluated: int, seed: int) -> Source:
    from dataclasses import fields

    from mnemic.bench.layers.tasks import TASKS
    from mnemic.cube.errors import InvalidOption
    from mnemic.training.source import Made

    if name not in TASKS:
        raise InvalidOption(f"there is no task {name!r:.80}. Known: {', '.join(TASKS)}")
    kind: Any = type(TASKS[name])
    known = [field.name for field in fields(kind)]
    if unknown := sorted(set(options) - set(known)):
        raise InvalidOption(f"the task {name} has no {', '.join(unknown)}; it has {', '.join(known)}")
    return Made(kind(**options), {"task": name, "options": dict(options)}, evaluated=evaluated, seed=seed)


def _given(
    config: Path | None,
    layer: list[str] | None,
    memory: str | None,
    dim: int | None,
    **training: int | None,
) -> dict[str, Any]:
    """The file, and over it what both commands are told. Raises MissingExtra first: nothing runs without."""
    from mnemic.cube.checks import require_extra

    for module in ("torch", "transformers"):
        require_extra(module, extra="torch")
    from mnemic.training.options import read_file

    given = {} if config is None else read_file(config)
    layers = [layer_entry(one) for one in layer] if layer else None
    beside = layer_entry(memory) if memory else None
    _put(given, "model", layers=layers, memory=beside, dim=dim)
    _put(given, "training", **training)
    return given


def _put(given: dict[str, Any], section: str, **told: Any) -> None:
    """What the command line says goes before the file."""
    told = {name: value for name, value in told.items() if value is not None}
    if told:
        given[section] = {**given.get(section, {}), **told}


def _perform(
    run: TextRun | RecallRun,
    source: Source,
    out: Path,
    *,
    fresh: bool,
    as_json: bool,
    tokenizer: Tokenizer | None = None,
) -> None:
    """Train, or go on; keep the model, with its tokenizer, when it is done; say how it went."""
    from mnemic.cli.output import note
    from mnemic.training.loop import build, train

    made = build(run.model, source.vocabulary, run.training.seed)
    counts = made.parameter_counts()
    if not as_json:
        note(f"{counts['total']:,} parameters, {counts['active']:,} of them active for a token")
    with Bar("training", "steps") as bar, _Interrupted() as interrupted:

        def say(row: dict[str, Any]) -> None:
            if not as_json:
                note(_said(row))
                if row.get("slots_used", 1.0) < DEAD:
                    note("fewer than a tenth of a memory's slots are read: fewer keys, or a lower rate")

        trained = train(
            made, source, run.training, folder=out, settings={"model": run.to_dict()["model"]},
            progress=bar, say=say, stop=interrupted, fresh=fresh,
        )  # fmt: skip
    if trained.step == run.training.steps:
        _save(trained, out / "model", tokenizer)
    _end(trained, run.training, out, as_json)


def _save(trained: Trained, folder: Path, tokenizer: Tokenizer | None) -> None:
    from transformers.utils import logging

    from mnemic.training.text import save_tokenizer

    logging.disable_progress_bar()
    trained.model.save_pretrained(folder)
    if tokenizer is not None:
        save_tokenizer(tokenizer, folder)


def _said(row: dict[str, Any]) -> str:
    shown = {name: value for name, value in row.items() if name not in ("step", "norm")}
    return f"step {row['step']:,}: " + ", ".join(
        f"{name.replace('_', ' ')} {value:.3g}" for name, value in shown.items()
    )


def _end(trained: Trained, options: LoopOptions, out: Path, as_json: bool) -> None:
    from mnemic.cli.output import note

    if trained.resumed_at:
        note(f"went on from step {trained.resumed_at:,}")
    if as_json:
        typer.echo(json.dumps({"step": trained.step, "evaluations": trained.history}, indent=1))
    else:
        last = trained.history[-1] if trained.history else {}
        typer.echo("\n".join(f"{name.replace('_', ' ')}: {value:.4g}" for name, value in last.items()))
    if trained.step < options.steps:
        note(f"stopped after step {trained.step:,}; the same command goes on from there")
        raise typer.Exit(130)
    note(f"the model is in {out / 'model'}")


class _Interrupted:
    """Whether Ctrl-C was pressed: the first ends the run after the step, the second at once."""

    def __enter__(self) -> _Interrupted:
        self.asked = False
        self._before = signal.signal(signal.SIGINT, self._ask)
        return self

    def __call__(self) -> bool:
        return self.asked

    def __exit__(self, *_: object) -> None:
        signal.signal(signal.SIGINT, self._before)

    def _ask(self, *_: object) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True
