"""Records as tables and a curve."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from mnemic.bench.layers.acceptance import Demand
from mnemic.bench.layers.plot import Point, svg
from mnemic.bench.layers.suite import BASELINES, Experiment
from mnemic.bench.layers.training import mean_and_spread
from mnemic.bench.markdown import table

Records = Mapping[str, dict[str, Any]]
ABOUT_CLAIMS: Final = (
    "By the means; the papers measured models a thousand times as large, trained ten thousand times as long. "
    "Where ranges overlap, more seeds could turn the row."
)


def markdown(
    chosen: Sequence[Experiment],
    records: Records,
    demanded: Sequence[Demand],
    command: str,
    about: Mapping[str, Any],
    claimed: Sequence[Demand] = (),
) -> str:
    """Acceptance and claims first, then a table an experiment."""
    parts = ["# Recall of sequence-memory layers", f"`{command}`", _conditions(records, about)]
    heads = ["method", "what", "demanded", "measured [least, most]", "seeds", "met"]
    parts += [
        "## What the papers' specifications demand",
        table(heads, [demand.row() for demand in demanded]),
    ]
    if claimed:
        heads[0], heads[2] = "paper", "claimed"
        parts += ["## Which layer over which, as their papers claim", ABOUT_CLAIMS]
        parts.append(table(heads, [claim.row() for claim in claimed]))
    for experiment in chosen:
        rows = _rows(experiment, records)
        if rows:
            parts += [
                f"## {experiment.name}",
                f"{experiment.about.rstrip('.')}. {_setting(experiment)}",
                _table(experiment, rows),
            ]
    return "\n\n".join(parts) + "\n"


def curve(records: Records, experiment: Experiment) -> str:
    """Recall against bytes of the memory layers' state, as SVG; a line a layer."""
    series: dict[str, list[Point]] = {}
    for arm, found in _rows(experiment, records):
        point = (float(found[0]["layer_bytes"]), *mean_and_spread([record["accuracy"] for record in found]))
        if point[0] > 0:
            series.setdefault(arm.layer, []).append(point)
    return svg(experiment.about, "bytes of state in the memory layers", "share answered right", series)


def _rows(experiment: Experiment, records: Records) -> list[tuple[Any, list[dict[str, Any]]]]:
    found = []
    for arm in experiment.arms:
        start = f"{experiment.name}/{arm.label}/"
        mine = [record for key, record in records.items() if key.startswith(start)]
        if mine:
            found.append((arm, mine))
    return found


def _table(experiment: Experiment, rows: Iterable[tuple[Any, list[dict[str, Any]]]]) -> str:
    heads = ["layer", "accuracy [least, most]", "seeds", "after 1/4, 1/2, 3/4", "state bytes"]
    heads += ["of its memory", "parameters", "active", "CPU s"]
    heads += ["after the stream", "steps", "state bytes then", "tokens/s"] if experiment.stream else []
    lines = []
    for arm, found in sorted(rows, key=lambda row: -_mean(record["accuracy"] for record in row[1])):
        mean, least, most = mean_and_spread([record["accuracy"] for record in found])
        quarters = " ".join(f"{_mean(record['curve'][n] for record in found):.2f}" for n in range(3))
        first = found[0]
        line = [arm.label + (" (baseline)" if arm.layer in BASELINES else "")]
        ended = sum("diverged" in record for record in found)
        said = f"{mean:.3f} [{least:.3f}, {most:.3f}]" + (f", {ended} diverged" if ended else "")
        line += [said, str(len(found)), quarters]
        line += [f"{first['state_bytes']:,}", f"{first['layer_bytes']:,}"]
        line += [f"{first['parameters'][kind]:,}" for kind in ("total", "active")]
        line.append(f"{_mean(record['cpu_s'] for record in found):.0f}")
        if experiment.stream:
            streams = [record["stream"] for record in found]
            gone = sum("diverged" in stream for stream in streams)
            line.append(
                f"{_mean(s['accuracy'] for s in streams):.3f}" + (f", {gone} diverged" if gone else "")
            )
            line.append(f"{streams[0]['steps']:,}")
            line += [f"{streams[0]['last_bytes']:,.0f}", f"{_mean(s['tokens_per_s'] for s in streams):,.0f}"]
        lines.append(line)
    return table(heads, lines)


def _setting(experiment: Experiment) -> str:
    r = experiment.recipe
    grown = ", the first quarter at a quarter of the size, the second at half" if r.curriculum else ""
    return (
        f"Chance {experiment.task.chance:.3f}. {r.depth} × [BaseConv, layer], width {r.dim}, no MLP, AdamW "
        f"one-cycle to {r.rate:g}, batch {r.batch}, {r.steps} steps of fresh samples{grown}; "
        f"{r.tested:,} rows tested."
    )


def _conditions(records: Records, about: Mapping[str, Any]) -> str:
    spent = sum(record["cpu_s"] for record in records.values())
    machine = about["machine"]
    return (
        f"{len(records)} runs, {spent / 60:.0f} minutes of CPU in all. {machine['processor']}, "
        f"{machine['cores']} cores, torch {about['versions'].get('torch', '?')}, one thread. "
        "State bytes are those of one sequence at the task's length, counters included, float32; "
        "`of its memory` leaves the convolutions around it out."
    )


def _mean(values: Iterable[float]) -> float:
    found = list(values)
    return sum(found) / len(found)
