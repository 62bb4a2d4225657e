"""The acceptance experiments of Titans' memory, through the public API: demanded, measured, met."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from typing import Any, Final

import torch
from torch import Tensor
from torch.nn.functional import normalize

from mnemic.bench.layers.acceptance import Demand
from mnemic.bench.layers.titans_recall import ARMS, Trained
from mnemic.bench.markdown import table
from mnemic.cube.errors import MemoryDivergedError
from mnemic.layers.table import make
from mnemic.layers.titans_rule import Fast, Gates, advance, derived, descend, evaluate, read, scan, steps
from mnemic.layers.titans_store import AssociativeMemory, StoreOptions

SEEDS: Final = range(5)
DIM, BOUND, STREAM = 32, 24, 128


def line(what: str, demanded: str, measured: str, seeds: int, met: bool | None) -> Demand:
    return Demand(method="Titans", what=what, demanded=demanded, measured=measured, seeds=seeds, met=met)


def spread(values: Iterable[float], digits: int = 3) -> str:
    """Mean and range."""
    found = list(values)
    return f"{statistics.mean(found):.{digits}f} [{min(found):.{digits}f}, {max(found):.{digits}f}]"


def draw(number: int, seed: int, correlation: float = 0.0) -> tuple[Tensor, Tensor]:
    """Unit keys that share a direction as far as `correlation` says, and unit values: (1, number, DIM)."""
    generator = torch.Generator().manual_seed(seed)
    noise, values = (normalize(torch.randn(1, number, DIM, generator=generator), dim=-1) for _ in range(2))
    common = normalize(torch.randn(1, 1, DIM, generator=generator), dim=-1)
    return normalize(correlation**0.5 * common + (1 - correlation) ** 0.5 * noise, dim=-1), values


def error(said: Tensor, values: Tensor) -> float:
    return float((said - values).square().sum(-1).mean())


def store(**options: Any) -> AssociativeMemory:
    return AssociativeMemory(StoreOptions(dim=DIM, **options))


def hebbian(keys: Tensor, values: Tensor, *, keep: float = 1.0) -> Tensor:
    """Σ keep^(N - n) kᵀv."""
    ages = torch.arange(keys.shape[1] - 1, -1, -1)
    return keys.mT @ (keep ** ages[:, None] * values)


# 1: exactness


def scan_against_loop(dtype: torch.dtype, seed: int) -> float:
    """Chunk 16, d = 32, random gates, carried weights and momentum: the largest difference."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)

    shape = (DIM, DIM)
    fast = Fast(*((normal(*shape) / DIM**0.5,) for _ in range(3)))
    keys, values, queries = normalize(normal(16, DIM), dim=-1), normal(16, DIM), normal(16, DIM)
    step, momentum, decay = (
        torch.rand(16, generator=generator, dtype=torch.float64).to(dtype) for _ in range(3)
    )
    solved, moves = scan(momentum, decay), steps(fast.anchor, keys, values, step)
    said, at_once = read(fast, queries, solved, moves), advance(fast, solved, moves)
    worst = 0.0
    for t in range(16):
        here = slice(t, t + 1)
        gradient = derived(fast.anchor, keys[here], values[here])
        fast = descend(fast, gradient, Gates(step[here], momentum[here], decay[here]))
        worst = max(worst, float((said[here] - evaluate(fast.weights, queries[here])).abs().max()))
    pairs = zip(at_once.weights + at_once.surprise, fast.weights + fast.surprise, strict=True)
    return max(worst, *(float((a - b).abs().max()) for a, b in pairs))


def descent_against_autograd(depth: int, seed: int) -> float:
    """Chunks of one token against a loop of autograd, float64: the largest difference of the weights."""
    made = store(depth=depth, step=0.1, momentum=0.3, decay=0.05, hidden=24).double()
    keys, values = (x.double() for x in draw(16, seed))
    found = made.write(made.init_state(), keys, values).fast(made.options.shapes)
    weights = list(made.init_state().fast(made.options.shapes).weights)
    first, surprise = weights, [torch.zeros_like(w) for w in weights]
    for k, v in zip(keys[0], values[0], strict=True):
        leaves = [w.clone().requires_grad_() for w in weights]
        out = k.view(1, 1, 1, -1)
        for number, leaf in enumerate(leaves):
            out = (out if number == 0 else torch.nn.functional.silu(out)) @ leaf
        gradients = torch.autograd.grad((out - v).square().sum(), leaves)
        surprise = [0.3 * s - 0.1 * g for s, g in zip(surprise, gradients, strict=True)]
        weights = [f + 0.95 * (w - f) + s for f, w, s in zip(first, weights, surprise, strict=True)]
    return max(float((a - b).abs().max()) for a, b in zip(found.weights, weights, strict=True))


def delta_rule_difference(seed: int) -> float:
    made = store(step=0.5).double()
    keys, values = (x.double() for x in draw(BOUND, seed))
    state = torch.zeros(DIM, DIM, dtype=torch.float64)
    for k, v in zip(keys[0], values[0], strict=True):
        state = state + torch.outer(k, v - k @ state)
    return float((made.write(made.init_state(), keys, values).weights.view(DIM, DIM) - state).abs().max())


def split_difference(name: str) -> float:
    """100 tokens in pieces of 1, 7, 15, 16 and 17 against the whole: outputs and state, float64."""
    torch.manual_seed(0)
    layer, worst = make(name, dim=DIM, heads=2, chunk=16).double(), 0.0
    x = torch.randn(2, 100, DIM, generator=torch.Generator().manual_seed(1)).double()
    with torch.inference_mode():
        whole, after = layer(x)
        for size in (1, 7, 15, 16, 17):
            outputs, state = [], None
            for part in x.split(size, 1):
                y, state = layer(part, state)
                outputs.append(y)
            worst = max(worst, float((torch.cat(outputs, 1) - whole).abs().max()))
            assert state is not None  # noqa: S101  there is at least one piece
            pairs = zip(state.tensors().values(), after.tensors().values(), strict=True)
            worst = max(worst, *(float((a - b).abs().max()) for a, b in pairs if a.numel()))
    return worst


def leak(name: str, reads: str) -> float:
    """How far an output before a changed token moves; with chunk reads, the rest of its chunk too."""
    torch.manual_seed(0)
    layer = make(name, dim=DIM, heads=2, chunk=16, reads=reads, conv=0).double()
    x = torch.randn(1, 64, DIM, generator=torch.Generator().manual_seed(1)).double()
    changed = x.clone()
    changed[:, 37] += 1
    with torch.inference_mode():
        moved = (layer(changed)[0] - layer(x)[0]).abs().amax((0, 2))
    worst = moved[:37].max()
    if reads == "chunk" and name == "titans-lmm":
        worst = torch.maximum(worst, moved[38:48].max())
    return float(worst)


def exactness() -> list[Demand]:
    lines = []
    for dtype, bound in ((torch.float32, 1e-5), (torch.float64, 1e-12)):
        worst = max(scan_against_loop(dtype, seed) for seed in SEEDS)
        what = f"1a scan = loop, {str(dtype).removeprefix('torch.')}"
        lines.append(line(what, f"< {bound:g}", f"{worst:.1e}", len(SEEDS), worst < bound))
    for depth in (1, 2, 3):
        worst = max(descent_against_autograd(depth, seed) for seed in SEEDS)
        what = f"1b chunk 1 = autograd descent, {depth} layers"
        lines.append(line(what, "< 1e-12", f"{worst:.1e}", len(SEEDS), worst < 1e-12))
    worst = max(delta_rule_difference(seed) for seed in SEEDS)
    lines.append(
        line("1c no momentum, no decay = delta rule", "< 1e-12", f"{worst:.1e}", len(SEEDS), worst < 1e-12)
    )
    for name in ("titans-lmm", "titans-mag", "titans-mal", "titans-mac"):
        worst = split_difference(name)
        lines.append(line(f"1d any split, {name}", "< 1e-10", f"{worst:.1e}", 1, worst < 1e-10))
        worst = max(leak(name, reads) for reads in ("token", "chunk"))
        lines.append(line(f"1e causal, {name}", "0", f"{worst:.1e}", 1, worst < 1e-12))
    return lines


# 2: re-binding and forgetting, without training


def rebinding(seed: int) -> dict[str, float]:
    """Squared error to the second values after 24 keys were bound twice."""
    keys, old = draw(BOUND, seed)
    _, new = draw(BOUND, seed + 1000)
    twice, both = torch.cat([keys, keys], 1), torch.cat([old, new], 1)

    def written(made: AssociativeMemory) -> float:
        return error(made.read(made.write(made.init_state(), twice, both), keys), new)

    return {
        "Hebbian": error(keys @ hebbian(twice, both), new),
        "Hebbian, decay 0.95": error(keys @ hebbian(twice, both, keep=0.95), new),
        "matrix": written(store(step=0.5)),
        "MLP": written(store(depth=2, hidden=64, step=0.3, momentum=0.5, seed=seed)),
    }


def recency(seed: int) -> dict[str, float]:
    """Share of 128 pairs whose own value is nearest to what is read: over the last 16, and over all."""
    keys, values = draw(STREAM, seed)

    def right(said: Tensor, last: int) -> float:
        nearest = (normalize(said, dim=-1) @ values.mT).argmax(-1)[0]
        return float((nearest == torch.arange(STREAM))[-last:].float().mean())

    found = {}
    made = {"matrix": store(step=0.5), "matrix, momentum 0.9, step 0.1": store(step=0.1, momentum=0.9)}
    said = {name: one.read(one.write(one.init_state(), keys, values), keys) for name, one in made.items()}
    for name, one in {"Hebbian": keys @ hebbian(keys, values), **said}.items():
        found[f"{name}, last 16"], found[f"{name}, all"] = right(one, 16), right(one, STREAM)
    return found


def correlated(seed: int, correlation: float) -> tuple[float, float]:
    """Error of a Hebbian sum and of a matrix written by the delta rule, on correlated keys."""
    keys, values = draw(BOUND, seed, correlation)
    made = store(step=0.5)
    said = made.read(made.write(made.init_state(), keys, values), keys)
    return error(keys @ hebbian(keys, values), values), error(said, values)


def binding() -> list[Demand]:
    lines = []
    bound = [rebinding(seed) for seed in SEEDS]
    ratios = [one["matrix"] / one["Hebbian"] for one in bound]
    lines.append(
        line("2 re-binding, matrix / Hebbian", "<= 0.4", spread(ratios), len(SEEDS), max(ratios) <= 0.4)
    )
    for name in bound[0]:
        lines.append(
            line(
                f"2 re-binding error, {name}", "report", spread(one[name] for one in bound), len(SEEDS), None
            )
        )
    streams = [recency(seed) for seed in SEEDS]
    for name in streams[0]:
        lines.append(
            line(f"2 top-1 of 128, {name}", "report", spread(s[name] for s in streams), len(SEEDS), None)
        )
    for correlation, demanded in ((0.5, 4.0), (0.0, None)):
        errors = [correlated(seed, correlation) for seed in SEEDS]
        summed, told_apart = ([one[which] for one in errors] for which in (0, 1))
        ratio = sum(summed) / sum(told_apart)
        said = f"{ratio:.1f} (Hebbian {spread(summed, 2)}, matrix {spread(told_apart, 2)})"
        asked = "report" if demanded is None else f"ratio >= {demanded:g}"
        met = None if demanded is None else ratio >= demanded
        lines.append(line(f"2 keys correlated {correlation:g}", asked, said, len(SEEDS), met))
    return lines


# 4: the guard, and a long stream


def diverges(seed: int, **options: Any) -> str:
    """What 64 random pairs do to an MLP of 256 at step 0.5: "raised" with a finite state, or "finite"."""
    keys, values = draw(64, seed)
    made = store(depth=2, hidden=256, step=0.5, seed=seed, **options)
    try:
        state = made.write(made.init_state(), keys, values)
    except MemoryDivergedError as found:
        return "raised" if bool(torch.isfinite(found.state.weights).all()) else "raised, state not finite"
    return "finite" if bool(torch.isfinite(state.weights).all()) else "not finite"


def guard() -> list[Demand]:
    lines = []
    for what, options in (("plain", {}), ("momentum 0.9", {"momentum": 0.9}), ("clip 0.1", {"clip": 0.1})):
        found = [diverges(seed, **options) for seed in SEEDS]
        said = ", ".join(f"{found.count(one)} {one}" for one in sorted(set(found)))
        good = all(one in ("raised", "finite") for one in found)
        lines.append(line(f"4 guard, {what}", "raises or clips, state finite", said, len(SEEDS), good))
    return lines


def long_stream(tokens: int = 204_800) -> list[Demand]:
    """Instead of the paper's two million tokens: embeddings through a memory of constant size."""
    torch.manual_seed(0)
    layer = make("titans-lmm", dim=64, chunk=64)
    draws, state, sizes, finite = torch.Generator().manual_seed(1), None, set(), True
    with torch.inference_mode():
        for _ in range(tokens // 4096):
            y, state = layer(torch.randn(1, 4096, 64, generator=draws), state)
            finite &= bool(torch.isfinite(y).all())
            sizes.add(state.size_bytes())
    assert state is not None  # noqa: S101
    largest = float(state.weights.norm(dim=-1).max())
    said = f"{tokens} tokens, {sizes} bytes, weights' norm {largest:.2g}"
    return [line("long stream", ">= 200k, state constant and finite", said, 1, finite and len(sizes) == 1)]


# 3: what was trained


def trained(runs: Sequence[Trained]) -> list[Demand]:
    """The demands on recall beyond the window, by the runs there are."""
    lines = []
    for arm in ARMS:
        mine = [run for run in runs if run.arm == arm]
        if not mine:
            continue
        found = [run.accuracy for run in mine]
        asked, met = "report", None
        if arm == "MAG, linear":
            asked, met = ">= 0.90, 2 of 3 seeds", sum(one >= 0.90 for one in found) >= 2
        if arm == "window only":
            asked, met = "<= 0.30, 2 of 3 seeds", sum(one <= 0.30 for one in found) >= 2
        if met is False and len(found) < 3:
            met = None  # not yet enough seeds to say no
        steps = " or ".join(str(one) for one in sorted({run.steps for run in mine}))
        lines.append(line(f"3 {arm}, {steps} steps", asked, spread(found, 2), len(mine), met))
        silent = [run.silenced for run in mine if run.silenced is not None]
        if silent:
            falls = min(found) - max(silent) > 0.05
            lines.append(line(f"3 {arm}, writes turned off", "falls", spread(silent, 2), len(mine), falls))
    return lines


def untrained() -> list[Demand]:
    """Everything that trains nothing: a minute of CPU."""
    return [*exactness(), *binding(), *guard(), *long_stream()]


def titans_markdown(lines: Sequence[Demand], command: str) -> str:
    verdict = {True: "yes", False: "no", None: "–"}
    heads = ["experiment", "demanded", "measured, mean [least, most]", "seeds", "met"]
    rows = [[one.what, one.demanded, one.measured, str(one.seeds), verdict[one.met]] for one in lines]
    return f"# Titans: acceptance\n\n`{command}`\n\n{table(heads, rows)}\n"
