"""`mnemic bench layers`: the recall suite of sequence-memory layers."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from mnemic.cli.progress import Steps
from mnemic.cli.results import Out


def layers(
    layer: Annotated[
        list[str] | None,
        typer.Option("--layer", help="Only these layers and the baselines, repeatable.", show_default=False),
    ] = None,
    experiment: Annotated[
        list[str] | None,
        typer.Option("--experiment", help="Only these experiments, repeatable.", show_default=False),
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Seeds a setting is trained with.")] = 3,
    train_steps: Annotated[
        int | None, typer.Option("--steps", min=8, help="Training steps; default: each experiment's own.")
    ] = None,
    out: Out = Path("bench-results"),
    fresh: Annotated[bool, typer.Option("--fresh", help="Start over instead of going on.")] = False,
    report_only: Annotated[
        bool, typer.Option("--report-only", help="Train nothing: tables of what --out holds so far.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the records as JSON instead of Markdown.")
    ] = False,
) -> None:
    """Train every memory layer on recall tasks: what is remembered, in how many bytes of state.

    Experiments: small, dial (as the papers' specifications want them); curve, rapid-naming, re-binding,
    beyond-window, forgetting, ordered, needle. Every run is kept as soon as it ends. Writes layers-runs.json,
    layers.md, layers.svg to --out. Needs mnemic[torch].

    Examples:

      mnemic bench layers --experiment curve --layer taylor --layer window --seeds 1

      OMP_NUM_THREADS=1 mnemic bench layers --out docs/results
    """
    from mnemic.cube.checks import require_extra
    from mnemic.cube.errors import InvalidOption

    require_extra("torch", extra="torch")
    require_extra("transformers", extra="torch")
    from mnemic.bench.facts import machine, versions
    from mnemic.bench.layers.acceptance import demands
    from mnemic.bench.layers.claims import claims
    from mnemic.bench.layers.suite import experiments, held, perform_all, runs
    from mnemic.bench.layers.tables import curve, markdown

    known = experiments(layer, steps=train_steps)
    if unknown := sorted(set(experiment or ()) - set(known)):
        raise InvalidOption(f"there is no experiment {', '.join(unknown)}; there are {', '.join(known)}")
    chosen = [known[name] for name in (experiment or known)]
    planned = runs(chosen, seeds)
    kept = out / "layers-runs.json"
    if report_only:
        planned = held(planned, kept)
    with Steps(len(planned)) as report:
        records = perform_all(planned, kept, fresh=fresh, report=report)
    mine = {run.key: records[run.key] for run in planned}
    command = "mnemic bench layers"
    command += "".join(f" --layer {name}" for name in layer or ())
    command += "".join(f" --experiment {name}" for name in experiment or ())
    command += (f" --seeds {seeds}" if seeds != 3 else "") + (
        f" --steps {train_steps}" if train_steps else ""
    )
    command += " --report-only" if report_only else ""
    found = demands(mine)
    about = {"machine": machine(), "versions": versions()}
    text = markdown(chosen, mine, found, command, about, claims(mine))
    (out / "layers.md").write_text(text)
    for one in chosen:
        if one.name == "curve":
            (out / "layers.svg").write_text(curve(mine, one))
    found_json = {"runs": mine, "demands": [asdict(one) for one in found]}
    typer.echo(json.dumps(found_json, indent=1) if as_json else text)
