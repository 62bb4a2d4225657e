"""What LazyEviction, Task-KV and the cache itself are held to: each demand beside what was measured.

Everything here is worked out from result files alone, so that the tables can be written again at any time.
What a test holds, and no number, names the test.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from mnemic.bench.markdown import table

Found = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """One demand. spread: over what, and how far; met: None where nothing was measured yet."""

    experiment: str
    what: str
    measured: str
    spread: str
    met: bool | None


def rhythm(found: Found) -> list[Demand]:
    """LazyEviction A, from kv-rhythm.json."""
    columns = [name for name in next(iter(found.values())) if name != "peak"]
    mean = {name: {c: float(np.mean(cells[c])) for c in columns} for name, cells in found.items()}
    lazy, last, h2o, code = (mean[n] for n in ("lazy, gated", "last use alone", "h2o", "lazy, code"))
    still, new = ([c for c in columns if ("new" in c) is late] for late in (False, True))
    seeds = len(found["lazy, gated"][columns[0]])

    def spread(*names: str) -> str:
        widest = max(np.ptp(found[name][c]) / 2 for name in names for c in still)
        return f"{seeds} seeds, ± {widest:.3f}"

    most, bursts = max(found["lazy, gated"]["peak"]), [c for c in still if "burst" in c]
    return [
        _least(
            "A", "held, gated, least of four columns", [lazy[c] for c in still], 0.90, spread("lazy, gated")
        ),
        _least("A", "held, gated, newer conditions", [lazy[c] for c in new], 0.80, spread("lazy, gated")),
        _least("A", "gated - last use", [lazy[c] - last[c] for c in still], 0.05, spread("last use alone")),
        _least("A", "gated - H2O", [lazy[c] - h2o[c] for c in still], 0.20, spread("h2o")),
        _most("A", "held, published score, bursts", [code[c] for c in bursts], 0.15, spread("lazy, code")),
        Demand(
            experiment="A",
            what="most slots = budget + window = 224",
            measured=f"{most:.0f}",
            spread=f"{seeds} seeds",
            met=most == 224,
        ),
    ]


def reasoning(found: Found) -> list[Demand]:
    """LazyEviction B and C, from kv-reasoning.json."""
    mass, ends = found["mass"], found["end_to_end"]
    shares = list(next(iter(mass.values())))

    def low(name: str, share: str) -> float:
        return float(np.mean([cell["p5"] for cell in mass[name][share]]))

    lazy = [low("lazy, gated", share) for share in shares]
    texts = f"{len(found['tokens'])} texts"
    demands = []
    for name, other in (("random", "random"), ("sliding window", "streaming")):
        gaps = [a - low(other, share) for a, share in zip(lazy, shares, strict=True)]
        demands.append(
            Demand(
                experiment="B",
                what=f"5th percentile of the mass held, lazy - {name}, {_shares(shares)} > 0",
                measured=", ".join(f"{gap:+.4f}" for gap in gaps),
                spread=f"{texts}, {_by_text(mass, 'lazy, gated', other, shares)}",
                met=min(gaps) > 0,
            )
        )
    pairs = [("h2o", "h2o, per step"), ("tova", "tova, per step"), ("streaming", "streaming, per step")]
    gaps = [low(a, share) - low(b, share) for a, b in pairs for share in shares]
    demands.append(_least("B", "every baseline, window - per step", gaps, -0.005, texts))
    prompts, same, peak = ends["prompts"], ends["identical"], ends["peak above the prompt"]
    demands += [
        Demand(
            experiment="C",
            what="budget above everything: the full cache's tokens",
            measured=f"{same} of {prompts}",
            spread=f"{prompts} prompts",
            met=same == prompts,
        ),
        _most("C", "most slots above the prompt", [peak], ends["allowed"], f"{prompts} prompts", digits=0),
        Demand(
            experiment="C",
            what="NLL of the full cache's continuation is reported",
            measured=", ".join(f"{name} {mean:.3f}" for name, (mean, _) in ends["nll"].items()),
            spread=", ".join(f"± {std:.3f}" for _, std in ends["nll"].values()),
            met=True,
        ),
    ]
    return demands


def heads(found: Found) -> list[Demand]:
    """Task-KV B, C and the ablation of D, from kv-heads.json."""
    reread, tasks = found["reread"], found["tasks"]
    high, tight = (list(next(iter(reread.values())))[i] for i in (0, -1))

    def of(experiment: str, what: str, name: str, share: str, most: float) -> Demand:
        own, other = ([cell["kl"] for cell in reread[n][share]] for n in ("taskkv", name))
        each = [a / b for a, b in zip(own, other, strict=True)]
        return _most(
            experiment,
            f"KL, Task-KV's of {what}, at {float(share):.0%}",
            [float(np.mean(own) / np.mean(other))],
            most,
            f"{len(own)} texts, {min(each):.2f} to {max(each):.2f}",
        )

    demands = [
        of("B", "nearest heads'", "taskkv, nearest heads", high, 0.85),
        of("B", "StreamingLLM's", "streaming", high, 0.75),
        of("B", "SnapKV's", "snapkv", high, 1.0),
        of("B", "nearest heads'", "taskkv, nearest heads", tight, 1.0),
        of("B", "StreamingLLM's", "streaming", tight, 1.0),
    ]
    if "kls" in reread["taskkv, random heads"][high][0]:
        pairs = list(zip(reread["taskkv"][high], reread["taskkv, random heads"][high], strict=True))
        better = sum(kl < own["kl"] for own, other in pairs for kl in other["kls"])
        every = [kl for _, other in pairs for kl in other["kls"]]
        demands.append(
            Demand(
                experiment="B",
                what="random choices of heads that do better than the farthest: fewer than half",
                measured=f"{better} of {len(every)}",
                spread=f"KL {min(every):.2f} to {max(every):.2f}",
                met=better < len(every) / 2,
            )
        )
    gap = tasks["within"] - tasks["between"]
    layers = [within - between for within, between in tasks["layers"]]
    overlaps = f"15 prompts, by layer {min(layers):.2f} to {max(layers):.2f}"
    return [
        *demands,
        _least("C", "overlap of heads within a task - between", [gap], 0.05, overlaps),
        of("D", "that without the closest head", "taskkv, no closest head", high, 1.0),
        of("D", "that without the middle", "taskkv, no middle", high, 1.0),
    ]


def speed(found: Found) -> list[Demand]:
    """Decoding under ragged heads, from kv-speed.json."""
    demands = []
    for length, by_policy in found.items():
        if length not in ("2048", "8192"):
            continue
        stock = np.array(by_policy["stock"]["tokens_per_cpu_s"])
        for name in ("snapkv-adaptive", "taskkv"):
            ratios = np.array(by_policy[name]["tokens_per_cpu_s"]) / stock
            least, median = 0.9 if length == "2048" else 1.0, float(np.median(ratios))
            demands.append(
                Demand(
                    experiment="speed",
                    what=f"{name}, {int(length):,} tokens: of the stock cache's tokens/s "
                    + (">= 0.9" if length == "2048" else "> 1"),
                    measured=f"{median:.2f}",
                    spread=f"{len(ratios)} rounds, {ratios.min():.2f} to {ratios.max():.2f}",
                    met=median >= least if length == "2048" else median > least,
                )
            )
    return demands


LAZY_TESTS: Final = (
    ("D", "int32 steps to 100,000, no inf or NaN in any score, numpy as torch",
     "tests/cube/test_recurrence.py::test_numpy_and_torch_agree_and_nothing_overflows"),
    ("D", "never used goes first; ties fall to the newer",
     "tests/activation/test_policies.py::test_never_used_tokens_go_first_and_the_newer_of_equals_stays"),
)  # fmt: skip
TASK_TESTS: Final = (
    ("A", "everything kept: the full cache's logits",
     "tests/activation/test_taskkv.py::test_everything_is_the_full_cache"),
    ("A", "the budget is spent and never overspent; sinks and recent stay; generation runs",
     "tests/activation/test_taskkv.py::test_the_budget_is_spent_and_never_overspent"),
    ("A", "freed bytes equal the prediction",
     "tests/activation/test_cache_accounts.py::test_ragged_heads_free_what_was_predicted"),
    ("D", "the depth schedule is the formula",
     "tests/activation/test_taskkv.py::test_the_depth_schedule_is_the_formula"),
)  # fmt: skip
CACHE_TESTS: Final = (
    ("exactness", "nothing evicted: bit-equal to the stock cache, float32 and bfloat16",
     "tests/activation/test_cache_exact.py::test_nothing_evicted_is_bit_equal"),
    ("exactness", "freed equals the same set hidden by masks, 1e-4",
     "tests/activation/test_cache_exact.py::test_freed_storage_equals_the_same_set_hidden_by_masks"),
    ("exactness", "bfloat16: freed no further from float32 than masked",
     "tests/activation/test_cache_exact.py::test_bf16_freed_is_no_further_from_float32_than_masked"),
    ("exactness", "recomputed rows are eager's, 1e-5",
     "tests/activation/test_cache_accounts.py::test_recomputed_rows_are_eagers"),
    ("cost", "no need of rows: no extra matmul",
     "tests/activation/test_cache_accounts.py::test_no_need_of_rows_means_no_extra_matmul"),
    ("cost", "H2O never holds an N x N matrix",
     "tests/activation/test_cache_accounts.py::test_h2o_never_holds_a_square"),
    ("cost", "step 10,000: bytes of step 1,000, RSS < 2 MB more, time <= 1.2 (slow)",
     "tests/activation/test_cache_accounts.py::test_step_ten_thousand_is_as_step_one_thousand"),
)  # fmt: skip


def page(results: Mapping[str, Found], *, command: str) -> str:
    """Tables of all demands. results: the content of result files by name without ending; what is missing
    is said to be.
    """
    lazy = [("kv-rhythm", "A", rhythm), ("kv-reasoning", "B, C", reasoning)]
    parts = [
        "# What the cache policies are held to",
        f"`{command}`",
        "From the result files beside this page; a row that names a test holds by that test. Spread: over "
        "what, and the lowest and highest, or half the range.",
    ]
    for title, of, tests in (
        ("LazyEviction", lazy, LAZY_TESTS),
        ("Task-KV", [("kv-heads", "B, C, D", heads)], TASK_TESTS),
        ("Every cache", [("kv-speed", "speed", speed)], CACHE_TESTS),
    ):
        demands = [each for name, _, make in of if name in results for each in make(results[name])]
        for name, experiments, _ in of:
            if name not in results:
                missing = f"not run: {name}.json is missing"
                demands.append(Demand(experiment=experiments, what=missing, measured="", spread="", met=None))
        demands += [
            Demand(experiment=experiment, what=what, measured=f"`{test}`", spread="a test", met=True)
            for experiment, what, test in tests
        ]
        demands.sort(key=lambda one: one.experiment)
        parts += [f"## {title}", demands_table(demands)]
    return "\n\n".join(parts) + "\n"


def demands_table(demands: Sequence[Demand]) -> str:
    said = {True: "met", False: "**not met**", None: ""}
    rows = [[one.experiment, one.what, one.measured, one.spread, said[one.met]] for one in demands]
    return table(["", "demanded", "measured", "spread", ""], rows)


def _least(experiment: str, what: str, values: Sequence[float], floor: float, spread: str) -> Demand:
    measured, met = f"{min(values):.3f}", min(values) >= floor
    return Demand(
        experiment=experiment, what=f"{what} >= {floor:g}", measured=measured, spread=spread, met=met
    )


def _most(
    experiment: str, what: str, values: Sequence[float], ceiling: float, spread: str, *, digits: int = 3
) -> Demand:
    measured, met = f"{max(values):.{digits}f}", max(values) <= ceiling
    return Demand(
        experiment=experiment, what=f"{what} <= {ceiling:g}", measured=measured, spread=spread, met=met
    )


def _shares(shares: Sequence[str]) -> str:
    return " and ".join(f"{float(share):.0%}" for share in shares)


def _by_text(mass: Found, one: str, other: str, shares: Sequence[str]) -> str:
    gaps = [
        a["p5"] - b["p5"]
        for share in shares
        for a, b in zip(mass[one][share], mass[other][share], strict=True)
    ]
    return f"{min(gaps):+.4f} to {max(gaps):+.4f}"
