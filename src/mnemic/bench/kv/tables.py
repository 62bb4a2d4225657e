"""The tables of the papers' experiments: demanded, measured, spread, met or not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mnemic.bench.kv import acceptance
from mnemic.bench.kv.acceptance import demands_table
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
    return _page(
        "Synthetic recurrence",
        command,
        said,
        table(["policy", *columns, "most slots"], rows),
        demands_table(acceptance.rhythm(found)),
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

    losses = [[name, f"{mean:.3f} ± {std:.3f}"] for name, (mean, std) in ends["nll"].items()]
    generated = table(["policy", "NLL of the full cache's own continuation, mean ± std over prompts"], losses)
    return _page(
        "LazyEviction on real attention",
        command,
        said,
        table(header, rows),
        generated,
        demands_table(acceptance.reasoning(found)),
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

    layers = table(
        ["layer", "within a family", "between families"],
        [[str(i), f"{w:.2f}", f"{b:.2f}"] for i, (w, b) in enumerate(tasks["layers"])],
    )
    overlap = f"Overlap of full heads (Jaccard): {tasks['within']:.3f} within a family, "
    overlap += f"{tasks['between']:.3f} between."
    demanded = demands_table(acceptance.heads(found))
    return _page("Task-KV", command, said, table(header, rows), demanded, overlap, layers)


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
    demanded = [demands_table(demands)] if (demands := acceptance.speed(found)) else []
    return _page("Speed of decoding", command, said, table(header, rows), *demanded)


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


def _spread(values: Sequence[float], digits: int) -> str:
    return f"{np.mean(values):.{digits}f} ± {(max(values) - min(values)) / 2:.{digits}f}"
