"""Which agents are taught, and a table of what they do."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final

from mnemic.bench.kept import Record
from mnemic.bench.layers.hcam import said
from mnemic.bench.markdown import table
from mnemic.bench.worlds.agents import ARMS, PATIENCE, train

HOW: Final = ("imitation", "reward")


def runs(
    arms: Sequence[str],
    how: Sequence[str],
    dancers: Sequence[int],
    seeds: int,
    steps: int,
    *,
    delays: Sequence[int] = (16,),
) -> dict[str, Callable[[], Record]]:
    """Seed by seed, so that what is stopped has whole tables with fewer seeds."""
    return {
        f"{way}/{count} dancers{'' if delay == 16 else f', delay {delay}'}/{arm}/{steps}/{seed}": partial(
            train, arm, way, count, seed, steps, delay=delay
        )
        for seed in range(seeds)
        for way in how
        for delay in delays
        for count in dancers
        for arm in arms
    }


def commands(records: Mapping[str, Record]) -> list[str]:
    """What makes these records: a command for each setting and number of seeds."""
    seeds: dict[tuple[Any, ...], int] = {}
    for record in records.values():
        key = tuple(record[name] for name in ("how", "dancers", "delay", "steps", "arm"))
        seeds[key] = seeds.get(key, 0) + 1
    by_setting: dict[tuple[Any, ...], list[str]] = {}
    for key, count in seeds.items():
        by_setting.setdefault((*key[:-1], count), []).append(key[-1])
    found = []
    for (how, dancers, delay, steps, count), arms in sorted(by_setting.items()):
        told = f"--how {how} --dancers {dancers} --delay {delay} --steps {steps} --seeds {count}"
        arms_told = "".join(f' --arm "{arm}"' for arm in ARMS if arm in arms)
        found.append(f"mnemic bench ballet {told}{'' if len(arms) == len(ARMS) else arms_told}")
    return found


def worlds_markdown(records: Mapping[str, Record]) -> str:
    heads = [
        "taught by", "dancers", "delay", "memory", "right dancer [least, most]", "any dancer", "a guess",
        "after 1/4, 1/2, 3/4", "seeds", "steps", "parameters", "CPU s",
    ]  # fmt: skip
    rows = []
    named = ("how", "dancers", "delay", "arm", "steps")
    by_setting: dict[tuple[Any, ...], list[Record]] = {}
    for record in records.values():
        by_setting.setdefault(tuple(record[name] for name in named), []).append(record)
    for (how, count, delay, arm, steps), mine in sorted(
        by_setting.items(), key=lambda one: (*one[0][:3], list(ARMS).index(one[0][3]), one[0][4])
    ):
        quarters = zip(*(list(r["curve"].values())[:3] for r in mine), strict=True)
        rows.append([
            how, str(count), str(delay), arm, said([r["success"] for r in mine]),
            said([r["reached"] for r in mine]), f"{1 / count:.2f}",
            " ".join(f"{sum(at) / len(at):.2f}" for at in quarters), str(len(mine)),
            str(steps), f"{mine[0]['parameters']:,}",
            f"{sum(r['cpu_s'] for r in mine) / len(mine):.0f}",
        ])  # fmt: skip
    parts = [
        "# Ballet",
        "```\n" + "\n".join(commands(records)) + "\n```",
        "Symbolic observations, unseen episodes; `delay`: empty steps after each dance; the agent has "
        f"{PATIENCE} steps for a way of three. `a guess`: of one who walks to a dancer, whoever it is. "
        "Taught by imitation of an expert that walks straight there, or by reward alone (actor-critic, "
        "drawn actions). A convolution of three steps stands before every memory unless said. There is no "
        "demand: the specification asks for numbers.",
        table(heads, rows),
    ]
    return "\n\n".join(parts) + "\n"
