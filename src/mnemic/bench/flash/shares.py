"""A model with SwiGLU, of whose neurons only the strongest are kept: what it costs, what it saves (D)."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn

from mnemic.cube.errors import InvalidFile
from mnemic.models.local import LocalModel
from mnemic.parametric.flash_model import feed_forward_parts

SHARES: Final = (1.0, 0.5, 0.3, 0.2, 0.1, 0.05)
WINDOWS: Final = (1, 2, 4, 8)
TOKENS: Final = 300
# What the specification's authors measured with the same selection: loss, then new neurons a token at windows
# of 1, 2, 4 and 8, then resident ones at 2, 4 and 8.
MEASURED: Final[dict[float, tuple[float, ...]]] = {
    1.0: (2.417,),
    0.5: (2.484, 0.217, 0.111, 0.040, 0.006, 0.711, 0.890, 0.978),
    0.3: (2.691, 0.175, 0.116, 0.066, 0.023, 0.469, 0.673, 0.857),
    0.2: (2.955, 0.131, 0.097, 0.064, 0.031, 0.327, 0.500, 0.701),
    0.1: (3.797, 0.073, 0.059, 0.045, 0.030, 0.172, 0.281, 0.436),
    0.05: (5.728, 0.039, 0.033, 0.027, 0.020, 0.088, 0.150, 0.245),
}
Step = Callable[[str, str], None]


def read_questions(path: Path, count: int = 3) -> str:
    """The first questions of a file of GSM8K with their solutions. Raises InvalidFile."""
    try:
        rows = [json.loads(line) for line in path.read_text("utf-8").splitlines()[:count]]
        return "\n\n".join(f"{row['question']}\n{row['cot']}" for row in rows)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InvalidFile(
            f"{path} does not hold GSM8K's questions with `question` and `cot` ({error}). Name its test.jsonl"
        ) from error


@contextmanager
def kept(model: nn.Module, share: float) -> Iterator[list[list[Tensor]]]:
    """Of every feed-forward part, the neurons with the largest |silu(gate) · up| of each token, `share` of
    all, are kept and the others left out; yields which, by layer and forward: bool [tokens, neurons].
    """
    parts = feed_forward_parts(model)
    chosen: list[list[Tensor]] = [[] for _ in parts]

    def keep(layer: int) -> Callable[[nn.Module, tuple[Tensor, ...]], tuple[Tensor] | None]:
        def hook(_module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor] | None:
            (inner,) = args
            count = round(share * inner.shape[-1])
            best = inner.abs().topk(count, dim=-1).indices
            active = torch.zeros(inner.shape, dtype=torch.bool).scatter(-1, best, True)
            chosen[layer].append(active.flatten(0, -2))
            return (inner * active,)

        return hook

    hooks = [part.down_proj.register_forward_pre_hook(keep(n)) for n, part in enumerate(parts)]  # type: ignore[union-attr]
    try:
        yield chosen
    finally:
        for one in hooks:
            one.remove()


def union(active: Tensor, tokens: int) -> Tensor:
    """Which neurons fired at any of the last `tokens` tokens: bool [n, neurons] to the same."""
    out = active.clone()
    for back in range(1, tokens):
        out[back:] |= active[:-back]
    return out


def windows(active: Tensor, sizes: tuple[int, ...] = WINDOWS) -> dict[int, tuple[float, float]]:
    """By window: (new neurons a token, resident ones), as shares of all. The start counts as it is."""
    found = {}
    for size in sizes:
        resident = union(active, size)
        fresh = active[1:] & ~resident[:-1]
        found[size] = float(fresh.float().mean()), float(resident.float().mean())
    return found


def shares(local: LocalModel, text: str, *, step: Step = lambda *_: None) -> list[dict[str, Any]]:
    """A row for each share of neurons: loss, and what windows would read and hold."""
    ids = torch.tensor([local.encode(text)[: TOKENS + 1]])
    out = []
    for share in SHARES:
        with kept(local.model, share) as chosen, torch.no_grad():
            logits = local.model(ids, use_cache=False).logits[0, :-1].float()
        loss = float(torch.nn.functional.cross_entropy(logits, ids[0, 1:]))
        by_layer = [windows(torch.cat(one)) for one in chosen]
        row: dict[str, Any] = {"share": share, "loss": loss}
        for size in WINDOWS:
            row[f"new {size}"] = sum(one[size][0] for one in by_layer) / len(by_layer)
            row[f"resident {size}"] = sum(one[size][1] for one in by_layer) / len(by_layer)
        out.append(row)
        step("flash", f"{share:.0%} of the neurons: loss {loss:.3f}")
    return out


def row_of(found: dict[str, Any]) -> tuple[float, ...]:
    """In the order of MEASURED."""
    return (
        found["loss"],
        *(found[f"new {size}"] for size in WINDOWS),
        *(found[f"resident {size}"] for size in WINDOWS[1:]),
    )
