"""What the papers' specifications demand, measured: trained arms from the records, mechanisms at once."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import Any

import torch

from mnemic.bench.layers.exactness import UPDATES, exact
from mnemic.bench.layers.training import mean_and_spread
from mnemic.layers.mom import MixtureOfMemories
from mnemic.layers.mom_state import MoMOptions
from mnemic.layers.stack import StackConfig, StackForCausalLM
from mnemic.layers.stack_cache import CACHE_NAME, StateCache
from mnemic.layers.state import LayerState
from mnemic.layers.table import make
from mnemic.layers.taylor import features

Records = Mapping[str, dict[str, Any]]


@dataclass(frozen=True, kw_only=True)
class Demand:
    """One row: what a specification asks for, and what was found; `met` None where nothing was measured."""

    method: str
    what: str
    demanded: str
    measured: str
    seeds: int
    met: bool | None

    def row(self) -> list[str]:
        verdict = {True: "yes", False: "no", None: "not run"}[self.met]
        return [self.method, self.what, self.demanded, self.measured, str(self.seeds), verdict]


def demands(records: Records) -> list[Demand]:
    """Every row, mechanisms first."""
    return [*mechanisms(), *trained(records)]


@cache
def mechanisms() -> tuple[Demand, ...]:
    """What needs no training: measured once a process, in some ten seconds."""
    return (
        _features(),
        _forms("taylor"),
        *(_bound(*found) for found in exact()),
        *_decode(),
        *(_forms("mom", update=u) for u in UPDATES),
        *_isolation(),
    )


def trained(records: Records) -> list[Demand]:
    """What was trained, by the records of `suite`."""
    small, dial = of_experiment(records, "small"), of_experiment(records, "dial")
    sizes, windows = ([f"{name} {n}" for n in them] for name, them in _DIALS.items())
    eight = "Taylor over elu + 1 at equal key size (8 pairs)"
    return [
        compared("BASED", eight, small, "taylor key 8", "linear key 8", gap=0.10),
        _rises("BASED", "accuracy does not fall with key_dim 4, 8, 16", dial, sizes, 0.03),
        _rises("BASED", "accuracy rises with window 8, 32, 64", dial, windows, 0.0),
        _near("BASED", "window 64 near full attention", dial, "window window 64", "attention", 0.03),
        compared("MoM", "4/2 + shared over one memory, key size 4", small, _MOM, "hebbian key 4", gap=0.05),
        compared("MoM", "not below one memory of the same active state", small, _MOM, _WIDE, gap=0.0),
        _health("MoM", small, _MOM, demanded=True),
        _health("MoM", small, f"{_MOM} balance 0.0", demanded=False),
    ]


_DIALS = {"taylor key": (4, 8, 16), "window window": (8, 32, 64)}
_MOM, _WIDE = "mom key 4 value 48 update linear conv 0 gated False", "hebbian key 4 value 144"


def interference(memories: int, *, seeds: int = 40, pairs: int = 64, key_dim: int = 16) -> float:
    """Mean squared error of reading random pairs back, each pinned to one of `memories`.

    Through the layer's own `pinned` and `read`; theory (pairs / memories - 1) / key_dim.
    """
    options = MoMOptions(
        dim=2 * key_dim, key_dim=key_dim, value_dim=key_dim, memories=memories, topk=1, update="linear",
        shared=False, single_kv=True, conv=0,
    )  # fmt: skip
    layer, errors = MixtureOfMemories(options).double(), []
    with torch.no_grad():  # a token is [key, value]; the maps pick them out
        eye = torch.eye(key_dim, dtype=torch.float64)
        zero = torch.zeros_like(eye)
        layer.q.weight.copy_(torch.cat([eye, zero], 1))
        layer.kv.copy_(torch.block_diag(eye, eye).unsqueeze(0))
        for seed in range(seeds):
            generator = torch.Generator().manual_seed(seed)
            keys, values = (
                torch.nn.functional.normalize(
                    torch.randn(1, pairs, key_dim, generator=generator, dtype=torch.float64), dim=-1
                )
                for _ in range(2)
            )
            where = (torch.arange(pairs) % memories).unsqueeze(0)
            state = layer.write(layer.init_state(1), torch.cat([keys, values], -1), where)
            read = layer.read(state, torch.cat([keys, torch.zeros_like(keys)], -1), where)
            errors.append(float((read - values).square().sum(-1).mean()))
    return sum(errors) / len(errors)


def _features() -> Demand:
    worst = 0.0
    for compressed in (True, False):
        generator = torch.Generator().manual_seed(0)
        q, k = (torch.randn(4_000, 16, generator=generator) for _ in range(2))
        q, k = (3 * x / x.norm(dim=-1, keepdim=True).clamp(min=3) for x in (q, k))  # norms up to 3
        s = (q * k).sum(-1) / 4
        found = (features(q, compressed) * features(k, compressed)).sum(-1)
        worst = max(worst, float((found - (1 + s + s.square() / 2)).abs().max()))
    return _bound("BASED", "φ(q)·φ(k) = 1 + s + s²/2, both maps, float32", worst, 1e-5)


def _forms(name: str, **options: Any) -> Demand:
    """Chunked form against the token loop: outputs and final state, float32."""
    worst = 0.0
    expected: tuple[torch.Tensor, LayerState] | None = None
    steps, limit = (300, 1e-4) if name == "taylor" else (50, 1e-5)
    for chunk in (1, 7, 64):
        torch.manual_seed(0)
        layer = make(name, dim=32, heads=2, chunk=chunk, **options)
        x = torch.randn(3, steps, 32)
        with torch.no_grad():
            y, state = layer(x)
            expected = expected or layer.reference(x)  # the same whatever the chunk
        pairs = [(y, expected[0]), *((t, expected[1].tensors()[n]) for n, t in state.tensors().items())]
        for a, b in pairs:
            if a.is_floating_point():
                worst = max(worst, float((a - b).abs().max()) / max(float(b.abs().max()), 1.0))
    said = " ".join(str(value) for value in options.values())
    method = "BASED" if name == "taylor" else "MoM"
    what = f"chunks of 1, 7, 64 = loop, {steps} tokens, {said}".strip(" ,")
    return _bound(method, what, worst, limit)


def _decode() -> list[Demand]:
    """State bytes at steps 64 and 4096 of decoding, and the time of late steps over early ones."""
    rows, based = [], {"layer": "based", "heads": 2, "key_dim": 8, "window": 16}
    for entry in (based, {"layer": "attention", "heads": 2}):
        torch.manual_seed(0)
        model = StackForCausalLM(
            StackConfig(layers=["base-conv", entry], dim=32, vocab_size=64, mlp_ratio=0)
        ).eval()
        sizes: dict[int, int] = {}
        caches: dict[int, StateCache] = {}
        cache: StateCache | None = None
        with torch.inference_mode():
            for step in range(1, 4_097):
                told: StateCache = model(torch.full((1, 1), step % 64), past_key_values=cache)[CACHE_NAME]
                if step in (64, 200, 4_096):
                    caches[step] = told.clone()
                    sizes[step] = told.states[1].size_bytes()
                cache = told
        grown = sizes[4_096] / sizes[64]
        if entry is based:
            rows.append(Demand(
                method="BASED", what="state bytes at step 4096 over step 64", demanded="1", seeds=1,
                measured=f"{grown:.3f} ({sizes[64]} bytes)", met=grown == 1,
            ))  # fmt: skip
            slower = _slower(model, caches[4_096], caches[200])
            rows.append(Demand(
                method="BASED", what="time of a step after 4096 tokens over one after 200, medians of 100",
                seeds=1, demanded="at most 1.3", measured=f"{slower:.2f}", met=slower <= 1.3,
            ))  # fmt: skip
        else:
            rows.append(Demand(
                method="BASED", what="the same of full attention", demanded="64", seeds=1,
                measured=f"{grown:.2f}", met=abs(grown - 64) < 1,
            ))  # fmt: skip
    return rows


@torch.inference_mode()
def _slower(model: StackForCausalLM, late: StateCache, early: StateCache) -> float:
    """Processor time of steps that go on from one cache over that from another, by turns."""
    times: dict[str, list[float]] = {"late": [], "early": []}
    for step in range(100):
        for name, held in (("late", late), ("early", early)):
            clock = time.process_time()
            model(torch.full((1, 1), step % 64), past_key_values=held)
            times[name].append(time.process_time() - clock)
    return statistics.median(times["late"]) / statistics.median(times["early"])


def _isolation() -> list[Demand]:
    rows = []
    for memories in (1, 2, 4, 8):
        theory, found = (64 / memories - 1) / 16, interference(memories)
        rows.append(Demand(
            method="MoM", what=f"read error of 64 random pairs in {memories} pinned memories, no training",
            demanded=f"{theory:.2f} ± 15 %", measured=f"{found:.2f}", seeds=40,
            met=abs(found / theory - 1) <= 0.15,
        ))  # fmt: skip
    return rows


def of_experiment(records: Records, experiment: str) -> dict[str, list[dict[str, Any]]]:
    """Records of one experiment by arm."""
    found: dict[str, list[dict[str, Any]]] = {}
    for key, record in records.items():
        name, label, _ = key.split("/")
        if name == experiment:
            found.setdefault(label, []).append(record)
    return found


def _accuracies(found: Mapping[str, list[dict[str, Any]]], label: str) -> list[float]:
    return [record["accuracy"] for record in found.get(label, [])]


def _said(values: Sequence[float]) -> str:
    mean, least, most = mean_and_spread(values)
    return f"{mean:.3f} [{least:.3f}, {most:.3f}]"


def compared(
    method: str,
    what: str,
    found: Mapping[str, list[dict[str, Any]]],
    better: str,
    worse: str,
    *,
    gap: float,
    strict: bool = False,
) -> Demand:
    """The mean of one arm against another's plus `gap`; `strict`: above it, not level."""
    a, b = _accuracies(found, better), _accuracies(found, worse)
    demanded = f"{better} > {worse}" if strict else f"{better} ≥ {worse} + {100 * gap:.0f} points"
    if not a or not b:
        return Demand(method=method, what=what, demanded=demanded, measured="", seeds=0, met=None)
    difference = sum(a) / len(a) - sum(b) / len(b)
    apart = min(a) > max(b) or min(b) > max(a)
    return Demand(
        method=method,
        what=what,
        demanded=demanded,
        measured=f"{_said(a)} against {_said(b)}: {100 * difference:+.1f} points"
        + ("" if apart else ", ranges overlap"),
        seeds=min(len(a), len(b)),
        met=difference > gap if strict else difference >= gap,
    )


def _rises(
    method: str, what: str, found: Mapping[str, list[dict[str, Any]]], labels: Sequence[str], slack: float
) -> Demand:
    columns = [_accuracies(found, label) for label in labels]
    demanded = "increasing" if not slack else f"non-decreasing within {100 * slack:.0f} points"
    if not all(columns):
        return Demand(method=method, what=what, demanded=demanded, measured="", seeds=0, met=None)
    means = [sum(values) / len(values) for values in columns]
    met = all(b > a if not slack else b >= a - slack for a, b in pairwise(means))
    measured = " → ".join(_said(values) for values in columns)
    return Demand(
        method=method, what=what, demanded=demanded, measured=measured, seeds=min(map(len, columns)), met=met
    )


def _near(
    method: str, what: str, found: Mapping[str, list[dict[str, Any]]], one: str, other: str, within: float
) -> Demand:
    a, b = _accuracies(found, one), _accuracies(found, other)
    demanded = f"within {100 * within:.0f} points"
    if not a or not b:
        return Demand(method=method, what=what, demanded=demanded, measured="", seeds=0, met=None)
    difference = sum(a) / len(a) - sum(b) / len(b)
    return Demand(
        method=method, what=what, demanded=demanded, measured=f"{_said(a)} against {_said(b)}",
        seeds=min(len(a), len(b)), met=abs(difference) <= within,
    )  # fmt: skip


def _health(method: str, found: Mapping[str, list[dict[str, Any]]], label: str, *, demanded: bool) -> Demand:
    """Shares of routed tokens: each within [0.5, 2] of an equal share."""
    shares = [share for record in found.get(label, []) for layer in record["shares"] for share in layer]
    weight = "0.01" if demanded else "0"
    what = f"share of tokens a memory gets, balance {weight}, all layers and seeds"
    said = (
        "each in [0.125, 0.5] (0.5 to 2 times an equal share)" if demanded else "reported: collapse, if any"
    )
    if not shares:
        return Demand(method=method, what=what, demanded=said, measured="", seeds=0, met=None)
    met = min(shares) >= 0.125 and max(shares) <= 0.5
    return Demand(
        method=method, what=what, demanded=said, measured=f"{min(shares):.3f} to {max(shares):.3f}",
        seeds=len(found[label]), met=met if demanded else True,
    )  # fmt: skip


def _bound(method: str, what: str, found: float, limit: float) -> Demand:
    return Demand(
        method=method,
        what=what,
        demanded=f"≤ {limit:.0e}" if limit else "0",
        measured=f"{found:.1e}",
        seeds=1,
        met=found <= limit,
    )
