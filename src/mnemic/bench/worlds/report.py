"""Which agents are taught, and a table of what they do."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Final

from mnemic.bench.kept import Record
from mnemic.bench.layers.hcam import said
from mnemic.bench.markdown import table
from mnemic.bench.worlds.agents import ARMS, PATIENCE, train

HOW: Final = ("imitation", "reward")


def runs(
    arms: Sequence[str], how: Sequence[str], dancers: Sequence[int], seeds: int, steps: int
) -> dict[str, Callable[[], Record]]:
    """Seed by seed, so that what is stopped has whole tables with fewer seeds."""
    return {
        f"{way}/{count} dancers/{arm}/{steps}/{seed}": partial(train, arm, way, count, seed, steps)
        for seed in range(seeds)
        for way in how
        for count in dancers
        for arm in arms
    }


def worlds_markdown(records: Mapping[str, Record], command: str) -> str:
    heads = [
        "taught by", "dancers", "memory", "right dancer [least, most]", "any dancer", "a guess",
        "after 1/4, 1/2, 3/4", "seeds", "steps", "parameters", "CPU s",
    ]  # fmt: skip
    rows = []
    for how, count, arm, steps in sorted(
        {(r["how"], r["dancers"], r["arm"], r["steps"]) for r in records.values()},
        key=lambda key: (key[0], key[1], list(ARMS).index(key[2]), key[3]),
    ):
        mine = [
            r
            for r in records.values()
            if (r["how"], r["dancers"], r["arm"], r["steps"]) == (how, count, arm, steps)
        ]
        quarters = [list(r["curve"].values())[:3] for r in mine]
        rows.append([
            how, str(count), arm, said([r["success"] for r in mine]), said([r["reached"] for r in mine]),
            f"{1 / count:.2f}", " ".join(f"{sum(at) / len(at):.2f}" for at in zip(*quarters, strict=True)),
            str(len(mine)), str(steps), f"{mine[0]['parameters']:,}",
            f"{sum(r['cpu_s'] for r in mine) / len(mine):.0f}",
        ])  # fmt: skip
    parts = [
        "# Ballet",
        f"`{command}`",
        "Symbolic observations, delay 16, unseen episodes; the agent has "
        f"{PATIENCE} steps for a way of three. `a guess`: of one who walks to a dancer, whoever it is. "
        "Taught by imitation of an expert that walks straight there, or by reward alone (actor-critic, "
        "drawn actions). A convolution of three steps stands before every memory unless said. There is no "
        "demand: the specification asks for numbers.",
        table(heads, rows),
    ]
    return "\n\n".join(parts) + "\n"
