"""The tables of the papers' experiments: demanded, measured, spread, met or not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mnemic.bench.markdown import table

Found = Mapping[str, Any]


def rhythm_markdown(found: Found, *, command: str) -> str:
    columns = [name for name in next(iter(found.values())) if name != "peak"]
    rows = [
        [name, *(_spread(cells[column], 3) for column in columns), f"{max(cells['peak']):.0f}"]
        for name, cells in found.items()
    ]
    said = (
        "Share of scheduled looks after step 600 whose slot was still held (new: of the newer conditions, "
        "after step 1,300); mean and half the range over seeds. Budget 160, window 64: 224 slots at most."
    )
    mean = {name: {c: float(np.mean(cells[c])) for c in columns} for name, cells in found.items()}
    lazy, last, h2o, code = (mean[n] for n in ("lazy, gated", "last use alone", "h2o", "lazy, code"))
    still, new = ([c for c in columns if ("new" in c) is late] for late in (False, True))
    most = max(found["lazy, gated"]["peak"])
    demanded = [
        _at_least("gated in all four columns", [lazy[c] for c in still], 0.90),
        _at_least("gated, new", [lazy[c] for c in new], 0.80),
        _at_least("gated - last use alone", [lazy[c] - last[c] for c in still], 0.05),
        _at_least("gated - H2O", [lazy[c] - h2o[c] for c in still], 0.20),
        _at_most("code, in bursts", [code[c] for c in still if "burst" in c], 0.15),
        ("most slots = budget + window = 224", f"{most:.0f}", most == 224),
    ]
    return _page(
        "Synthetic recurrence", command, said, table(["policy", *columns, "most slots"], rows), _met(demanded)
    )


def reasoning_markdown(found: Found, *, command: str) -> str:
    mass, ends = found["mass"], found["end_to_end"]
    shares = list(next(iter(mass.values())))
    rows = []
    for name, by_share in mass.items():
        cells = []
        for share in shares:
            for key in ("mean", "p5"):
                cells.append(_spread([cell[key] for cell in by_share[share]], 3))
        rows.append([name, *cells])
    header = [
        "policy",
        *(f"{float(share):.0%}, {key}" for share in shares for key in ("mean", "5th percentile")),
    ]
    said = (
        f"Attention mass on what is still held, over all heads of all layers and the last third of steps; "
        f"{len(found['tokens'])} MATH-500 solutions of {min(found['tokens'])} to {max(found['tokens'])} "
        "tokens, "
        "window 32, alpha 1e-3; mean and half the range over texts. Simulated on an eager model's rows."
    )

    def low(name: str, share: str) -> float:
        return float(np.mean([cell["p5"] for cell in mass[name][share]]))

    lazy = [low("lazy, gated", share) for share in shares]
    pairs = [("h2o", "h2o, per step"), ("tova", "tova, per step"), ("streaming", "streaming, per step")]
    same, peak = ends["identical"], ends["peak above the prompt"]
    demanded = [
        _above("5th percentile, lazy - random", lazy, [low("random", share) for share in shares]),
        _above("5th percentile, lazy - sliding window", lazy, [low("streaming", share) for share in shares]),
        _at_least(
            "window - per step, any baseline",
            [low(a, s) - low(b, s) for a, b in pairs for s in shares],
            -0.005,
        ),
        ("budget above everything: the full tokens", f"{same} of {ends['prompts']}", same == ends["prompts"]),
        _at_most("most slots above the prompt", [peak], ends["allowed"]),
    ]
    losses = [[name, f"{mean:.3f} ± {std:.3f}"] for name, (mean, std) in ends["nll"].items()]
    generated = table(["policy", "NLL of the full cache's own continuation, mean ± std over prompts"], losses)
    return _page(
        "LazyEviction on real attention", command, said, table(header, rows), generated, _met(demanded)
    )


def heads_markdown(found: Found, *, command: str) -> str:
    reread, tasks = found["reread"], found["tasks"]
    shares = list(next(iter(reread.values())))
    rows = []
    for name, by_share in reread.items():
        cells = [_spread([c[key] for c in by_share[share]], 3) for share in shares for key in ("kl", "loss")]
        rows.append([name, *cells])
    header = ["policy", *(f"{key}, {float(share):.0%}" for share in shares for key in ("KL", "NLL increase"))]
    texts = len(reread["taskkv"][shares[0]])
    said = (
        f"A passage of the prompt read again: KL to the full cache's distribution and increase of the "
        f"passage's NLL, mean and half the range over {texts} texts. Keys stored for each query head."
    )

    def kl(name: str, share: str) -> float:
        return float(np.mean([cell["kl"] for cell in reread[name][share]]))

    high, tight = shares[0], shares[-1]

    def of(name: str, share: str, other: str = "taskkv") -> list[float]:
        return [kl(other, share) / kl(name, share)]

    demanded = [
        _at_most(f"KL, of nearest heads', {high}", of("taskkv, nearest heads", high), 0.85),
        _at_most(f"KL, of StreamingLLM's, {high}", of("streaming", high), 0.75),
        _at_most(f"KL, of SnapKV's, {high}", of("snapkv", high), 1.0),
        _at_most(f"KL, of nearest heads', {tight}", of("taskkv, nearest heads", tight), 1.0),
        _at_most(f"KL, of StreamingLLM's, {tight}", of("streaming", tight), 1.0),
        _at_most(f"KL, of that without the closest head, {high}", of("taskkv, no closest head", high), 1.0),
        _at_most(f"KL, of that without the middle, {high}", of("taskkv, no middle", high), 1.0),
        _at_least("overlap within a family - between", [tasks["within"] - tasks["between"]], 0.05),
    ]
    layers = table(
        ["layer", "within a family", "between families"],
        [[str(i), f"{w:.2f}", f"{b:.2f}"] for i, (w, b) in enumerate(tasks["layers"])],
    )
    overlap = f"Overlap of full heads (Jaccard): {tasks['within']:.3f} within a family, "
    overlap += f"{tasks['between']:.3f} between."
    return _page("Task-KV", command, said, table(header, rows), _met(demanded), overlap, layers)


def speed_markdown(found: Found, *, command: str, machine: str) -> str:
    rows = []
    for length, by_policy in found.items():
        stock = np.array(by_policy["stock"]["tokens_per_cpu_s"])
        for name, cells in by_policy.items():
            rate = np.array(cells["tokens_per_s"])
            ratios = np.array(cells["tokens_per_cpu_s"]) / stock
            rows.append(
                [
                    length,
                    name,
                    f"{np.median(rate):.1f}",
                    f"{np.median(ratios):.2f} [{ratios.min():.2f}, {ratios.max():.2f}]",
                    f"{cells['mb'][0]:.1f}",
                ]
            )
    header = ["context", "policy", "tokens/s", "of the stock cache by processor time, round by round", "MB"]
    said = f"Median of rounds in which every policy decodes in turn; {machine}. Half of the prompt is kept."
    return _page("Speed of decoding", command, said, table(header, rows))


def speed_lines(found: Found) -> dict[str, list[tuple[float, float]]]:
    """policy -> (context, milliseconds a token)"""
    lines: dict[str, list[tuple[float, float]]] = {}
    for length, by_policy in found.items():
        for name, cells in by_policy.items():
            lines.setdefault(name, []).append(
                (float(length), 1_000 / float(np.median(cells["tokens_per_s"])))
            )
    return lines


def _page(title: str, command: str, *parts: str) -> str:
    return "\n\n".join([f"# {title}", f"`{command}`", *parts]) + "\n"


Demand = tuple[str, str, bool]


def _met(demanded: Sequence[Demand]) -> str:
    rows = [[what, value, "met" if met else "not met"] for what, value, met in demanded]
    return table(["demanded", "measured", ""], rows)


def _at_least(what: str, values: Sequence[float], floor: float) -> Demand:
    return f"{what} >= {floor:g}", f"{min(values):.3f}", min(values) >= floor


def _at_most(what: str, values: Sequence[float], ceiling: float) -> Demand:
    return f"{what} <= {ceiling:g}", f"{max(values):.3f}", max(values) <= ceiling


def _above(what: str, ours: Sequence[float], theirs: Sequence[float]) -> Demand:
    gaps = [a - b for a, b in zip(ours, theirs, strict=True)]
    return f"{what} > 0", ", ".join(f"{gap:+.4f}" for gap in gaps), min(gaps) > 0


def _spread(values: Sequence[float], digits: int) -> str:
    return f"{np.mean(values):.{digits}f} ± {(max(values) - min(values)) / 2:.{digits}f}"
