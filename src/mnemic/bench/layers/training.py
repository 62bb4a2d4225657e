"""Train a small stack on a task and say what it recalls, in how many bytes. Deterministic given the seed."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from mnemic.bench.layers.tasks import ASK_NOTHING, Needle, Task, smaller
from mnemic.layers.stack import LayerEntry, StackConfig, StackForCausalLM
from mnemic.layers.stack_cache import CACHE_NAME

Step = Callable[[int, int], None]


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """AdamW under a one-cycle rate, fresh samples at every step (the set-up of the BASED specification).

    `curriculum`: a quarter of the steps at a quarter of the task's size, a quarter at half of it, the rest on
    the task itself (Zoology trains on such a mixture of lengths). What is reported is of the task itself.
    """

    dim: int = 48
    steps: int = 700
    batch: int = 64
    rate: float = 3e-3
    weight_decay: float = 0.1
    clip: float = 1.0
    convolved: bool = True  # a BaseConv before each memory layer
    depth: int = 2
    tested: int = 1024
    curriculum: bool = False

    def size_at(self, step: int) -> float:
        """Share of the task's size at a step, counted from 0."""
        return 1.0 if not self.curriculum else (0.25, 0.5, 1.0, 1.0)[4 * step // self.steps]

    def settings(self) -> dict[str, Any]:
        return asdict(self)


def build(task: Task, layer: Mapping[str, Any], recipe: Recipe, seed: int) -> StackForCausalLM:
    """[BaseConv, layer] `depth` times, no MLP; `layer` names it and its options beside `dim`."""
    torch.manual_seed(seed)
    unit: list[LayerEntry] = ["base-conv", dict(layer)] if recipe.convolved else [dict(layer)]
    config = StackConfig(layers=unit * recipe.depth, dim=recipe.dim, vocab_size=task.vocabulary, mlp_ratio=0)
    return StackForCausalLM(config)


def train(
    model: StackForCausalLM, task: Task, recipe: Recipe, seed: int, step: Step = lambda *_: None
) -> list[float]:
    """Accuracy on fresh samples after each quarter of the steps."""
    generator = torch.Generator().manual_seed(1_000 + seed)
    optimiser = torch.optim.AdamW(model.parameters(), lr=recipe.rate, weight_decay=recipe.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=recipe.rate, total_steps=recipe.steps)
    curve = []
    for done in range(1, recipe.steps + 1):
        tokens, labels = smaller(task, recipe.size_at(done - 1)).batch(recipe.batch, generator)
        logits = model(tokens, use_cache=False).logits
        loss = cross_entropy(*_where_asked(logits, labels))
        for auxiliary in model.aux_losses().values():
            loss = loss + auxiliary
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.clip)
        optimiser.step()
        schedule.step()
        if done % max(recipe.steps // 4, 1) == 0:
            curve.append(accuracy(model, task, 256, seed))
        step(done, recipe.steps)
    return curve


@torch.inference_mode()
def accuracy(model: StackForCausalLM, task: Task, rows: int, seed: int) -> float:
    """Share of the questions answered right, on samples that training never sees."""
    generator = torch.Generator().manual_seed(2_000_000 + seed)
    right = total = 0
    for start in range(0, rows, 256):
        tokens, labels = task.batch(min(256, rows - start), generator)
        logits, wanted = _where_asked(model(tokens, use_cache=False).logits, labels)
        right += int((logits.argmax(-1) == wanted).sum())
        total += wanted.numel()
    return right / total


@torch.inference_mode()
def needle(
    model: StackForCausalLM, task: Needle, steps: int, seed: int, *, rows: int = 4, piece: int = 2_000
) -> dict[str, float]:
    """Tell, stream `steps` noise tokens through the carried state piece by piece, ask. O(piece) memory.

    Returns accuracy, bytes of the state of one stream at the beginning and at the end, and tokens a second.
    """
    generator = torch.Generator().manual_seed(3_000_000 + seed)
    told = task.told(rows, generator)
    cache = model(told)[CACHE_NAME]
    first, clock = cache.size_bytes(), time.perf_counter()
    for start in range(0, steps, piece):
        model(
            task.haystack(rows, min(piece, steps - start), generator), logits_to_keep=1, **{CACHE_NAME: cache}
        )
    seconds = time.perf_counter() - clock
    questions, answers = task.asked_for(told, generator)
    logits, wanted = _where_asked(model(questions, **{CACHE_NAME: cache}).logits, answers)
    return {
        "accuracy": float((logits.argmax(-1) == wanted).double().mean()),
        "first_bytes": first / rows,
        "last_bytes": cache.size_bytes() / rows,
        "tokens_per_s": rows * steps / max(seconds, 1e-9),
    }


def parameters(model: StackForCausalLM) -> dict[str, int]:
    """All parameters, and those that work on one token."""
    return model.parameter_counts()


def mean_and_spread(values: Sequence[float]) -> tuple[float, float, float]:
    """Mean, least and most."""
    return sum(values) / len(values), min(values), max(values)


def _where_asked(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    at = labels != ASK_NOTHING
    return logits[at], labels[at]
