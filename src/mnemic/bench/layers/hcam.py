"""The acceptance experiments of HCAM, through the public API: demanded, measured, met."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Final

import torch
from torch import Tensor

from mnemic.bench.kept import Record
from mnemic.bench.layers.acceptance import Demand
from mnemic.bench.layers.hcam_naming import ARMS, ASKED, TRAINED_ON, train
from mnemic.bench.layers.training import mean_and_spread
from mnemic.bench.markdown import table
from mnemic.bench.worlds.naming import CHANCE
from mnemic.layers.hcam import HCAM
from mnemic.layers.table import make

SEEDS: Final = range(5)
QUERIES, CHUNKS, CHUNK, TOPK, HEADS, DIM = 9, 7, 5, 4, 3, 12  # of the exactness checks
VERDICT: Final = {True: "yes", False: "no", None: "–"}


def line(what: str, demanded: str, measured: str, seeds: int, met: bool | None) -> Demand:
    return Demand(method="HCAM", what=what, demanded=demanded, measured=measured, seeds=seeds, met=met)


# 1: exactness


def untrained() -> list[Demand]:
    """Everything that trains nothing: seconds."""
    checks: dict[str, tuple[Callable[[int], float], float]] = {
        "1 recall = the equations, query by query": (against_definition, 1e-5),
        "1 topk = all, equal relevance = mean of attentions": (against_mean, 1e-5),
        "1 influence of masked chunks, perturbed by 1e6": (influence, 0.0),
        "1 fewer chunks allowed than topk: weight of the others": (weight_of_invalid, 0.0),
        "1 appended step by step = at once, any length": (against_streaming, 1e-6),
        "1 gradient in stored tensors": (stored_gradient, 0.0),
        "1 gradient of relevance, topk 1": (partial(relevance_gradient, topk=1), 1e-8),
    }
    lines = []
    for what, (measure, bound) in checks.items():
        worst = max(measure(seed) for seed in SEEDS)
        lines.append(line(what, f"≤ {bound:g}", f"{worst:.1e}", len(SEEDS), worst <= bound))
    least = min(relevance_gradient(seed, topk=2) for seed in SEEDS)
    lines.append(line("1 gradient of relevance, topk 2", "> 0", f"{least:.1e}", len(SEEDS), least > 1e-8))
    return lines


def against_definition(seed: int) -> float:
    layer, state, q = _told(seed)
    with torch.no_grad():
        found = layer.read(state, q)
        one_by_one = [layer.reference(part, state)[0] for part in q.split(1, 1)]
    return _apart(found, torch.cat(one_by_one, 1))


def against_mean(seed: int) -> float:
    layer, state, q = _told(seed, topk=CHUNKS)
    with torch.no_grad():
        torch.nn.init.zeros_(layer.ask.weight)
        alone = [layer.recall(state, q, mask=_only(m)).output for m in range(CHUNKS)]
        return _apart(layer.read(state, q), torch.stack(alone).mean(0))


def influence(seed: int) -> float:
    layer, state, q = _told(seed)
    mask = _only(1, 3, 4, 5, 6)
    shaken = replace(
        state,
        contents=torch.where(mask[..., None, None], state.contents, state.contents + 1e6),
        summaries=torch.where(mask[..., None], state.summaries, state.summaries + 1e6),
    )
    with torch.no_grad():
        return _apart(layer.recall(state, q, mask=mask).output, layer.recall(shaken, q, mask=mask).output)


def weight_of_invalid(seed: int) -> float:
    layer, state, q = _told(seed)
    with torch.no_grad():
        found = layer.recall(state, q, mask=_only(2, 5))
    allowed = (found.chunks == 2) | (found.chunks == 5)
    nothing = layer.recall(state, q, mask=_only())
    return max(float(found.weights[~allowed].abs().max()), float(nothing.output.detach().abs().max()))


def against_streaming(seed: int) -> float:
    layer, _, _ = _told(seed)
    x = torch.randn(2, 38, DIM, generator=torch.Generator().manual_seed(seed))
    worst = 0.0
    with torch.no_grad():
        for time in (1, CHUNK - 1, CHUNK, CHUNK + 1, 23, 38):
            state = layer.init_state(2)
            for t in range(time):
                state = layer.step(x[:, t], state)[1]
            at_once = layer(x[:, :time])[1].tensors()
            worst = max(
                worst,
                *(_apart(at_once[n].double(), t.double()) for n, t in state.tensors().items() if t.numel()),
            )
    return worst


def stored_gradient(seed: int) -> float:
    """Of a read in what was told and in the state."""
    layer, _, q = _told(seed)
    x = torch.randn(2, 23, DIM, generator=torch.Generator().manual_seed(seed)).requires_grad_()
    state = layer.write(layer.init_state(2), x).map(lambda t: t.requires_grad_(t.is_floating_point()))
    layer.read(state, q).square().sum().backward()
    grads = [t.grad for t in (x, *state.tensors().values())]
    return max((float(grad.abs().max()) for grad in grads if grad is not None), default=0.0)


def relevance_gradient(seed: int, *, topk: int) -> float:
    layer, state, q = _told(seed, topk=topk)
    layer.read(state, q).square().sum().backward()
    assert layer.ask.weight.grad is not None  # noqa: S101
    return float(layer.ask.weight.grad.abs().max())


def _told(seed: int, topk: int = TOPK) -> tuple[HCAM, Any, Tensor]:
    torch.manual_seed(seed)
    layer = make("hcam", dim=DIM, heads=HEADS, chunk=CHUNK, topk=topk)
    assert isinstance(layer, HCAM)  # noqa: S101
    with torch.no_grad():
        state = layer.write(layer.init_state(2), torch.randn(2, CHUNKS * CHUNK, DIM))
    return layer, state, torch.randn(2, QUERIES, DIM)


def _only(*chunks: int) -> Tensor:
    mask = torch.zeros(2, CHUNKS, dtype=torch.bool)
    mask[:, list(chunks)] = True
    return mask


def _apart(a: Tensor, b: Tensor) -> float:
    return float((a - b).abs().max())


# 2: rapid naming


def runs(arms: Sequence[str], seeds: int, steps: int) -> dict[str, Callable[[], Record]]:
    """Seed by seed, so that what is stopped has whole tables with fewer seeds."""
    return {
        f"{arm}/{steps}/{seed}": partial(train, arm, seed, steps) for seed in range(seeds) for arm in arms
    }


def trained(records: Mapping[str, Record]) -> list[Demand]:
    """The demands on rapid naming, by the runs there are; each by its worst seed."""
    ours = _accuracies(records, "HCAM", 8), _accuracies(records, "HCAM", 48)
    if not ours[0]:
        return []
    lines = [
        line("2 HCAM, 8 things", "≥ 0.95", said(ours[0]), len(ours[0]), min(ours[0]) >= 0.95),
        line("2 HCAM, 48 things", "≥ 0.90", said(ours[1]), len(ours[1]), min(ours[1]) >= 0.90),
    ]
    drop = [a - b for a, b in zip(*ours, strict=True)]
    lines.append(line("2 HCAM, loss from 8 to 48 things", "≤ 0.1", said(drop), len(drop), max(drop) <= 0.1))
    if flat := _accuracies(records, "flat attention", 8):
        lines.append(line("2 flat attention, 8 things", "≤ 0.60", said(flat), len(flat), max(flat) <= 0.60))
    for arm in ("random chunks", "summaries only"):
        for things, best in ((8, ours[0]), (48, ours[1])):
            if found := _accuracies(records, arm, things):
                met = min(best) - max(found) >= 0.2
                what = f"2 {arm}, {things} things"
                lines.append(line(what, "HCAM better by 0.2", said(found), len(found), met))
    return lines


def _accuracies(records: Mapping[str, Record], arm: str, things: int) -> list[float]:
    return [record["accuracy"][str(things)] for record in records.values() if record["arm"] == arm]


def said(values: Sequence[float]) -> str:
    mean, least, most = mean_and_spread(values)
    return f"{mean:.2f} [{least:.2f}, {most:.2f}]"


def naming_table(records: Mapping[str, Record]) -> str:
    """Accuracy by number of things, an arm a row."""
    heads = ["memory", *(f"{things} things" for things in ASKED), "seeds", "steps", "parameters", "CPU s"]
    rows = []
    for arm in ARMS:
        mine = [record for record in records.values() if record["arm"] == arm]
        if mine:
            steps = sorted({record["steps"] for record in mine})
            rows.append([
                arm, *(said(_accuracies(records, arm, things)) for things in ASKED), str(len(mine)),
                " ".join(map(str, steps)), f"{mine[0]['parameters']:,}",
                f"{sum(record['cpu_s'] for record in mine) / len(mine):.0f}",
            ])  # fmt: skip
    return table(heads, rows)


def hcam_markdown(lines: Sequence[Demand], records: Mapping[str, Record], command: str) -> str:
    heads = ["experiment", "demanded", "measured, mean [least, most]", "seeds", "met"]
    rows = [[one.what, one.demanded, one.measured, str(one.seeds), VERDICT[one.met]] for one in lines]
    parts = ["# HCAM: acceptance", f"`{command}`", table(heads, rows)]
    if records:
        parts += [
            "## Rapid naming",
            f"Trained on {TRAINED_ON[0]} to {TRAINED_ON[1]} things of 8 steps each, asked about 4 to 48; "
            f"chance {CHANCE:.3f}. One memory layer on fixed projections of the steps, an MLP behind it. The "
            "chunk is one thing's 8 steps unless said; topk 2.",
            naming_table(records),
        ]
    return "\n\n".join(parts) + "\n"
