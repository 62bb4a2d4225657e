"""`mnemic bench hybrid`: layer choices on real text."""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from mnemic.cli.progress import Steps

SHOWN = ("seeds", "seconds", "vocabulary", "length", "repeats", "passage", "grow")


def hybrid(
    data: Annotated[Path, typer.Option("--data", help="Folder of the texts.")],
    train: Annotated[
        str, typer.Option("--train", help="Its training text: a file, or a folder.")
    ] = "valid.txt",
    held_out: Annotated[str, typer.Option("--held-out", help="Its held-out text.")] = "test.txt",
    arm: Annotated[
        list[str] | None, typer.Option("--arm", help="Only these choices, repeatable.", show_default=False)
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Seeds of each choice.")] = 3,
    seconds: Annotated[
        float, typer.Option(min=0.1, help="Processor time of the training steps of each run.")
    ] = 30.0,
    vocabulary: Annotated[int, typer.Option(min=257, help="Tokens made from the training text.")] = 512,
    length: Annotated[int, typer.Option(min=2, help="Tokens of a sequence.")] = 96,
    repeats: Annotated[
        float,
        typer.Option(min=0.01, max=1, help="Share of training sequences that say a passage again and again."),
    ] = 0.5,
    passage: Annotated[
        int,
        typer.Option(min=0, help="Tokens of the shortest; the longest is half a sequence. 0: all are half."),
    ] = 4,
    grow: Annotated[
        float,
        typer.Option(min=0, max=1, help="Share of the steps within which passages grow to their length."),
    ] = 0.75,
    out: Annotated[
        Path, typer.Option("--out", help="Folder for results; a second run goes on where the first ended.")
    ] = Path("bench-results"),
    fresh: Annotated[bool, typer.Option("--fresh", help="Start over instead of going on.")] = False,
    report_only: Annotated[
        bool, typer.Option("--report-only", help="Train nothing: a table of what --out holds so far.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of Markdown.")] = False,
) -> None:
    """Train layer choices on text at equal active parameters and training time: perplexity and recall.

    Defaults name the files of wikitext2_small. Writes hybrid-runs.json and hybrid.md to --out; every run is
    kept as soon as it ends, and a run that was stopped goes on from its last checkpoint. Needs mnemic[torch].

    Examples:

      mnemic bench hybrid --data wikitext2_small --seconds 20 --seeds 1

      OMP_NUM_THREADS=1 mnemic bench hybrid --data wikitext2_small --out docs/results
    """
    from mnemic.cube.checks import require_extra
    from mnemic.cube.errors import InvalidOption

    require_extra("torch", extra="torch")
    require_extra("transformers", extra="torch")
    from mnemic.bench.facts import machine, versions
    from mnemic.bench.layers.hybrid import ARMS, Setting, held, markdown, perform_all
    from mnemic.training.options import TextOptions
    from mnemic.training.text import Text

    arms = arm or list(ARMS)
    if unknown := sorted(set(arms) - ARMS.keys()):
        known = ", ".join(repr(name) for name in ARMS)  # a name may hold a comma
        raise InvalidOption(f"there is no choice {unknown[0]!r:.80}. Known: {known}")
    path = out / "hybrid-runs.json"
    if report_only:
        records = held(path)
    else:
        out.mkdir(parents=True, exist_ok=True)
        options = TextOptions(
            train=train, held_out=held_out, vocabulary=vocabulary, length=length, repeats=repeats,
            passage=passage or None, grow=grow if passage else 0.0,
        )  # fmt: skip
        text, setting = Text(options, data), Setting(seconds=seconds)
        with Steps(len(arms) * seeds) as report:
            records = perform_all(arms, seeds, text, setting, path, fresh=fresh, report=report)
    mine = {key: record for key, record in records.items() if key.rpartition("/")[0] in arms}
    if not mine:
        raise InvalidOption(f"{path} holds none of these runs; leave out --report-only to make them")
    command = _command(data.name, arm or (), next(iter(mine.values()))["settings"], seeds)
    said = markdown(mine, command, {"machine": machine(), "versions": versions()})
    (out / "hybrid.md").write_text(said)
    typer.echo(json.dumps(mine, indent=1) if as_json else said)


def _command(data: str, arms: Sequence[str], settings: Mapping[str, Any], seeds: int) -> str:
    """What makes these records, defaults left out."""
    told = {**settings["text"], "seconds": settings["seconds"], "seeds": seeds}
    told["passage"] = told["passage"] or 0
    parts = [f"mnemic bench hybrid --data {data}", *(f'--arm "{one}"' for one in arms)]
    for name, parameter in inspect.signature(hybrid).parameters.items():
        if name in SHOWN and told[name] != parameter.default:
            parts.append(f"--{name} {told[name]:g}")
    return " ".join(parts)
