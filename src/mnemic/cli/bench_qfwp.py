"""`mnemic bench qfwp`: the acceptance experiments of fast weights in a quantum circuit."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mnemic.cli.experiments import Json, chosen, measured, write_demands
from mnemic.cli.results import Out


def qfwp(
    series: Annotated[
        list[str] | None,
        typer.Option(
            "--series", help="Train on these series only, repeatable; `none` trains none.", show_default=False
        ),
    ] = None,
    seeds: Annotated[
        int | None, typer.Option(min=1, help="Seeds of each model; default: each series' own, 3 or 5.")
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(min=1, help="Epochs of training; default: each series' own.")
    ] = None,
    out: Out = Path("bench-results"),
    as_json: Json = False,
) -> None:
    """Hold QFWP to its specification: the simulator, its gradients, what it remembers, beside an LSTM.

    Series: mean, weighted, three-ago, pendulum, bessel, narma5, narma10. Writes qfwp.md and qfwp.json to
    --out. Trained runs are kept in qfwp-runs.json as soon as they end; the table holds all that are there.
    Needs mnemic[torch]; compares with PennyLane where it is installed.

    Examples:

      mnemic bench qfwp --series none

      OMP_NUM_THREADS=1 mnemic bench qfwp --series mean --series weighted --out docs/results
    """
    from mnemic.cube.checks import require_extra

    require_extra("torch", extra="torch")
    from mnemic.bench.layers.qfwp import qfwp_markdown, runs, trained, untrained
    from mnemic.bench.layers.qfwp_series import SERIES

    planned = runs(chosen(series, SERIES, "series"), seeds, epochs)
    records = measured(planned, out / "qfwp-runs.json", lambda record: f"{record['test_mse']:.1e}")
    lines = [*untrained(), *trained(records)]
    text = qfwp_markdown(lines, records, "mnemic bench qfwp")
    write_demands("qfwp", out, lines, text, as_json=as_json)
