"""What UltraMemV2's specification demands, measured: its search, its beginning, its capacity, its edits."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

import torch
from torch import Tensor

from mnemic.bench.layers.acceptance import Demand
from mnemic.bench.layers.facts import ARMS, DENSE, FULL, PLAIN, SPARSE, ULTRAMEM
from mnemic.bench.layers.training import mean_and_spread
from mnemic.bench.markdown import table
from mnemic.layers.product_keys import best_sums
from mnemic.layers.slots import SlotMemory
from mnemic.layers.table import make
from mnemic.layers.ultramem import UltraMem, UltraMemOptions

Records = Mapping[str, dict[str, Any]]
CORES: Final = 20  # random cores tried


def untrained() -> list[Demand]:
    """What needs no training: half a minute of CPU."""
    return [*_product_keys(), *_tucker(), *_equality(), *_beginning(), *_growth()]


def trained(records: Records, steps: int) -> list[Demand]:
    """Capacity and edits, by the runs there are."""
    return [*_capacity(records, steps), *_edits(records, steps)]


def _demand(what: str, demanded: str, measured: str, seeds: int, met: bool | None) -> Demand:
    return Demand(method="UltraMemV2", what=what, demanded=demanded, measured=measured, seeds=seeds, met=met)


# 1 searching


def _product_keys() -> list[Demand]:
    rows = []
    for m in (1, 8, 32):
        draws = torch.randn(2, 1000, 64, generator=torch.Generator().manual_seed(m))
        found = best_sums(draws[0], draws[1], m)[0]
        everything = (draws[0].unsqueeze(-1) + draws[1].unsqueeze(-2)).flatten(1)
        same = found.sort(-1).values == everything.topk(m).indices.sort(-1).values
        share = float(same.all(1).float().mean())
        rows.append(_demand(
            f"1a product keys, n = 64, m = {m}: sets equal to brute force over 1,000 queries",
            "100 %", f"{100 * share:.1f} %", 1, share == 1,
        ))  # fmt: skip
    return rows


@torch.no_grad()
def found_share(core: Tensor | None, seed: int, *, everywhere: bool = False, queries: int = 300) -> float:
    """Share of the best 16 of 64² slots that the search finds: of the quadrant it looks in, or of all."""
    torch.manual_seed(seed)
    layer = UltraMem(UltraMemOptions(dim=32, keys=64, topm=16)).double()
    if core is not None:
        layer.core.copy_(core)
    x = torch.randn(queries, 32, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    rows, columns = layer._axis_scores(x)
    u, v = layer._directions()
    scores = torch.einsum("tai,kab,tbj->tij", rows, layer.core, columns)
    quadrant = ((u @ rows) > 0).unsqueeze(2) & ((v @ columns) > 0).unsqueeze(1)
    wanted = scores if everywhere else scores.masked_fill(~quadrant, -torch.inf)
    best = torch.zeros_like(scores.flatten(1)).scatter(1, wanted.flatten(1).topk(16).indices, 1.0)
    mine = torch.zeros_like(best).scatter(1, layer._search(x)[0], 1.0)
    return float((best * mine).sum() / best.sum())


def _tucker() -> list[Demand]:
    draws = torch.Generator().manual_seed(0)
    one = torch.outer(*torch.rand(2, 2, generator=draws)).unsqueeze(0)
    rank_one, whole = found_share(one, 0), found_share(one, 0, everywhere=True)
    diagonal = found_share(torch.diag(torch.tensor([1.0, 0.25])).unsqueeze(0), 0)
    equal = found_share(torch.eye(2).unsqueeze(0), 0)
    shares = [found_share(None, seed) for seed in range(CORES)]
    mean, least, most = mean_and_spread(shares)
    where = "1c core of rank 2, positive quadrant"
    return [
        _demand("1b core of rank 1, positive quadrant: equal to brute force", "100 %",
                f"{100 * rank_one:.2f} %", 1, rank_one == 1),
        _demand("1b the same against all n² slots (negative times negative is left out, by design)",
                "about 0.5, reported", f"{whole:.2f}", 1, None),
        _demand(f"{where}, uniform [0, 1]", "≥ 0.99", f"{mean:.4f} [{least:.4f}, {most:.4f}]", CORES,
                mean >= 0.99),
        _demand(f"{where}, diag(1, 0.25)", "0.999, reported", f"{diagonal:.4f}", 1, None),
        _demand(f"{where}, identity: no leading direction", "0.78, reported", f"{equal:.2f}", 1, None),
    ]  # fmt: skip


def _equality() -> list[Demand]:
    """Values and gradients of the look-up against one sum over the whole table."""
    made: dict[str, dict[str, Any]] = {
        "UltraMemV2": {"name": "ultramem"},
        "UltraMemV2, plain values": {"name": "ultramem", "pre_dim": 0},
        "UltraMemV2, two cores, expanded keys": {"name": "ultramem", "cores": 2, "expand": 2},
        "product keys": {"name": "product-keys", "heads": 2},
    }
    rows = []
    for said, options in made.items():
        torch.manual_seed(0)
        options = dict(options)
        layer = make(options.pop("name"), dim=32, keys=16, topm=8, **options)
        assert isinstance(layer, SlotMemory)  # noqa: S101
        worst, results = 0.0, []
        for form in (layer.read, layer.read_dense):
            layer.zero_grad()
            x = torch.randn(64, 32, generator=torch.Generator().manual_seed(1)).requires_grad_()
            y = form(x)
            y.square().sum().backward()
            gradients = [p.grad for p in layer.parameters() if p.grad is not None]
            results.append([y.detach(), x.grad, *(g.to_dense() if g.is_sparse else g for g in gradients)])
        for mine, dense in zip(*results, strict=True):
            assert mine is not None  # noqa: S101
            assert dense is not None  # noqa: S101
            worst = max(worst, float((mine - dense).abs().max()) / max(float(dense.abs().max()), 1.0))
        rows.append(_demand(
            f"1d {said}: look-up against the masked sum over the table, values and gradients, float32",
            "≤ 1e-5", f"{worst:.1e}", 1, worst <= 1e-5,
        ))  # fmt: skip
    return rows


# 2 beginning


@torch.no_grad()
def _beginning() -> list[Demand]:
    rows, wanted = [], 0.064 * 3 / 8
    x = torch.randn(4_000, 128, generator=torch.Generator().manual_seed(9))
    for keys in (64, 128):
        for topm in (16, 32, 64):
            ratios, deviations = [], []
            for seed in range(3):
                torch.manual_seed(seed)
                layer = UltraMem(UltraMemOptions(dim=128, keys=keys, topm=topm, blocks=4, mlp_ratio=3.0))
                deviations.append(layer.score_statistics()[1])
                ratios.append(float(layer.read(x).var()) / wanted)
            mean, least, most = mean_and_spread(ratios)
            rows.append(_demand(
                f"2 variance over that of the MLP at the beginning, h = 128, n = {keys}, m = {topm}, L = 4",
                "in [0.5, 2]",
                f"{mean:.2f} [{least:.2f}, {most:.2f}], σ of the scores {sum(deviations) / 3:.2f}",
                3, least >= 0.5 and most <= 2,
            ))  # fmt: skip
    return rows


# cost


@torch.no_grad()
def _growth() -> list[Demand]:
    """Processor time of the search alone while n doubles, m the same: medians of nine."""
    times, x = [], torch.randn(1024, 64, generator=torch.Generator().manual_seed(0))
    sizes = (64, 128, 256, 512)
    for keys in sizes:
        layer, took = UltraMem(UltraMemOptions(dim=64, keys=keys, topm=16, value_dim=2, pre_dim=1)), []
        for _ in range(9):
            clock = time.process_time()
            layer._search(x)
            took.append(time.process_time() - clock)
        times.append(sorted(took)[4])
    said = ", ".join(f"n = {n}: {1e6 * t / 1024:.1f}" for n, t in zip(sizes, times, strict=True))
    ratio = times[-1] / times[-2]
    what = "search, µs a token while the table grows fourfold each time"
    demanded = "n = 512 over 256 below 3 (4: n²)"
    return [_demand(what, demanded, f"{said}; ratio {ratio:.2f}", 1, ratio < 3)]


# 3 and 4 trained


def _of(records: Records, arm: str, steps: int) -> list[dict[str, Any]]:
    return [one for key, one in records.items() if key.startswith(f"{arm}/{steps}/")]


def _capacity(records: Records, steps: int) -> list[Demand]:
    dense, rows = _of(records, DENSE, steps), []
    for arm in (ULTRAMEM, PLAIN):
        mine = _of(records, arm, steps)
        if not dense or not mine:
            rows.append(_demand(f"3 {arm}: accuracy over that of {DENSE}", "≥ 1.5", "", 0, None))
            continue
        for at in mine[0]["accuracy"]:
            accuracy, theirs = ([one["accuracy"][at] for one in runs] for runs in (mine, dense))
            ratios = [a / b for a, b in zip(accuracy, theirs, strict=False)]
            mean, least, most = mean_and_spread(ratios)
            rows.append(_demand(
                f"3 {arm}: accuracy over that of {DENSE} after {at} steps", "≥ 1.5",
                f"{mean:.2f} [{least:.2f}, {most:.2f}]", len(ratios), least >= 1.5,
            ))  # fmt: skip
        used = [one["used"] for one in mine]
        rows.append(_demand(
            f"3 {arm}: slots used", "≥ 25 %", f"{100 * sum(used) / len(used):.1f} %", len(used),
            min(used) >= 0.25,
        ))  # fmt: skip
    return rows


def _edits(records: Records, steps: int) -> list[Demand]:
    arms = {arm: _of(records, f"edit {arm}", steps) for arm in (SPARSE, FULL)}
    if not all(arms.values()):
        return [_demand("4 edit of 50 facts", "new ≥ 90 %, damage ≤ half", "", 0, None)]
    rows, damage = [], {}
    for arm, runs in arms.items():
        new = [one["new"] for one in runs]
        damage[arm] = [one["before"] - one["after"] for one in runs]
        rows.append(_demand(
            f"4 50 changed facts, {arm} ({runs[0]['moved']:,} numbers move)", "≥ 0.90 of them right",
            _three(new), len(new), min(new) >= 0.9,
        ))  # fmt: skip
    ratios = [a / b for a, b in zip(damage[SPARSE], damage[FULL], strict=True)]
    said = f"{_three(damage[SPARSE])} against {_three(damage[FULL])}: {_three(ratios)} of it"
    rows.append(_demand(
        "4 accuracy lost on 2,000 untouched facts, sparse against full", "≤ half", said, len(ratios),
        max(ratios) <= 0.5,
    ))  # fmt: skip
    return rows


def _three(values: Sequence[float]) -> str:
    mean, least, most = mean_and_spread(values)
    return f"{mean:.3f} [{least:.3f}, {most:.3f}]"


def capacity_table(records: Records, steps: int) -> str:
    """Facts held by each arm, and what a fact costs."""
    heads = ["arm", "accuracy after steps", "seeds", "active", "all", "slots used", "evenness"]
    heads += ["bytes of the table a fact reads", "CPU s"]
    rows = []
    for arm in ARMS:
        runs = _of(records, arm, steps)
        if runs:
            first = runs[0]
            said = ", ".join(
                f"{at}: {_three([one['accuracy'][at] for one in runs])}" for at in first["accuracy"]
            )
            used = "" if first["used"] is None else f"{100 * _mean(runs, 'used'):.1f} %"
            even = "" if first["evenness"] is None else f"{_mean(runs, 'evenness'):.3f}"
            rows.append([
                arm, said, str(len(runs)), f"{first['active']:,}", f"{first['total']:,}", used, even,
                f"{first['bytes_per_fact']:,}", f"{_mean(runs, 'cpu_s'):.0f}",
            ])  # fmt: skip
    return table(heads, rows)


def markdown(demands: Sequence[Demand], records: Records, steps: int, command: str) -> str:
    verdict = {True: "yes", False: "no", None: "–"}
    rows = [[one.what, one.demanded, one.measured, str(one.seeds), verdict[one.met]] for one in demands]
    parts = [
        "# UltraMemV2: acceptance",
        f"`{command}`",
        table(["experiment", "demanded", "measured, mean [least, most]", "seeds", "met"], rows),
        "## Fact capacity",
        "8,000 random facts, entity and relation to one of 128 values: accuracy on the facts that were "
        "trained. Embeddings of 16, width 64, one residual block; Adam 2e-3, tables four times that, batches "
        "of 512. Active: parameters that work on one fact, the row it reads of each embedding among them.",
        capacity_table(records, steps),
    ]
    return "\n\n".join(parts) + "\n"


def _mean(records: Sequence[Mapping[str, Any]], name: str) -> float:
    return float(sum(record[name] for record in records) / len(records))
