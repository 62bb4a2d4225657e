"""Exact claims of BASED's and MoM's specifications, each as the largest difference that was found."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, NamedTuple

import torch
from torch import Tensor

from mnemic.layers.attention import project
from mnemic.layers.layer import MemoryLayer
from mnemic.layers.mom import MixtureOfMemories
from mnemic.layers.mom_state import MoMOptions
from mnemic.layers.table import make
from mnemic.layers.window import SlidingWindow

UPDATES: Final = ("linear", "retention", "gla", "delta", "gated_delta")
LAYERS: Final = ("taylor", "window", "based")  # what BASED is made of
BATCH, TIME, DIM, CHANGED = 3, 50, 16, 37


class Exact(NamedTuple):
    """`worst` may be `limit` at most."""

    method: str
    what: str
    worst: float
    limit: float


@torch.no_grad()
def exact() -> Iterator[Exact]:
    """A few seconds, float64 throughout."""
    for window in (1, 5, TIME):
        what = f"window of {window} = full attention under that band, {TIME} tokens, float64"
        yield Exact("BASED", what, banded(window), 1e-10)
    yield Exact("BASED", "outputs before a changed token: taylor, window, based", max(map(leak, LAYERS)), 0.0)
    wrong = max(abs(miscounted(name, tokens)) for name in LAYERS for tokens in (1, 64, 300))
    yield Exact("BASED", "state bytes foretold against those kept, 1, 64, 300 tokens", float(wrong), 0.0)
    worst = max(looped(update, topk) for update in UPDATES for topk in (1, 2, 4))
    yield Exact("MoM", f"every update, topk 1, 2, 4 = loop, {TIME} tokens, float64", worst, 1e-10)
    yield Exact("MoM", "memories that a write is not sent to, every update", max(map(touched, UPDATES)), 0.0)
    yield Exact("MoM", "one memory, nothing shared = the plain linear layer", alone(), 1e-10)
    yield Exact("MoM", "all memories chosen, maps tied = one memory", tied(), 1e-10)


def banded(window: int) -> float:
    """Against a softmax over all scores of the last `window` tokens, its own counted."""
    layer = _made("window", heads=2, window=window)
    assert isinstance(layer, SlidingWindow)  # noqa: S101
    x, at = _stream(), torch.arange(TIME)
    q, k, v = project(layer.qkv, x, 2, at.expand(BATCH, -1))
    distance = at.unsqueeze(1) - at
    seen = (distance >= 0) & (distance < window)
    scores = (q @ k.mT / (DIM // 2) ** 0.5).masked_fill(~seen, -torch.inf)
    return _apart(layer(x)[0], layer.out((scores.softmax(-1) @ v).transpose(1, 2).flatten(2)))


def leak(name: str) -> float:
    layer, x = _made(name, heads=2), _stream()
    changed = x.clone()
    changed[:, CHANGED] += 1
    return _apart(layer(changed)[0][:, :CHANGED], layer(x)[0][:, :CHANGED])


def miscounted(name: str, tokens: int) -> int:
    layer: Any = _made(name, heads=2).float()
    state = layer(_stream(time=tokens).float()[:1])[1]
    wanted = type(layer).Options.read({"dim": DIM, "heads": 2}).state_bytes(tokens)
    return int(state.size_bytes() - wanted)


def looped(update: str, topk: int) -> float:
    """Outputs and final state of the fast form against the token loop."""
    layer, x = _mixture(update=update, topk=topk, chunk=8), _stream()
    (y, state), (expected, last) = layer(x), layer.reference(x)
    pairs = [(y, expected), *((t, last.tensors()[name]) for name, t in state.tensors().items())]
    return max(_apart(a, b) for a, b in pairs)


def touched(update: str) -> float:
    layer = _mixture(update=update, shared=False)
    before = layer.write(layer.init_state(BATCH), _stream())
    after = layer.write(before, _stream(2), torch.full((BATCH, TIME), 2))
    others = [0, 1, 3]
    return max(_apart(after.memory[:, others], before.memory[:, others]),
               _apart(after.tail[:, others], before.tail[:, others]))  # fmt: skip


def alone() -> float:
    layer = _mixture(memories=1, topk=1, shared=False, conv=0, update="linear", gated=False, heads=2)
    plain: Any = _made("hebbian", heads=2)
    plain.qk.weight.copy_(torch.cat([layer.q.weight, layer.kv[0, :, :DIM].T]))
    plain.v.weight.copy_(layer.kv[0, :, DIM:].T)
    plain.out.weight.copy_(layer.output.weight)
    x = _stream()
    return _apart(layer(x)[0], plain(x)[0])


def tied() -> float:
    options: dict[str, Any] = {"single_kv": True, "shared": False, "update": "linear"}
    every, one = _mixture(topk=4, **options), _mixture(memories=1, topk=1, **options)
    weights = {name: weight for name, weight in every.state_dict().items() if name != "router.weight"}
    one.load_state_dict(weights, strict=False)
    return _apart(every(_stream())[0], one(_stream())[0])


def _made(name: str, **options: Any) -> MemoryLayer[Any]:
    torch.manual_seed(0)
    return make(name, dim=DIM, **options).double()


def _mixture(**options: Any) -> MixtureOfMemories:
    torch.manual_seed(0)
    return MixtureOfMemories(MoMOptions(dim=DIM, **options)).double()


def _stream(seed: int = 1, *, time: int = TIME) -> Tensor:
    return torch.randn(BATCH, time, DIM, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _apart(a: Tensor, b: Tensor) -> float:
    return float((a.double() - b.double()).abs().max())
