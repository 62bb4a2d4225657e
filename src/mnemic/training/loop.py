"""The loop: steps that are functions of the seed and their number, so that a run resumes bit by bit.

Knows stacks, sources of sequences, optimisers and a folder; nothing of texts, tasks or single layers.
"""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.hooks import RemovableHandle

from mnemic.cube.errors import ModelError
from mnemic.layers.slots import usage_of
from mnemic.layers.stack import Block, StackConfig, StackForCausalLM
from mnemic.layers.state import write_whole
from mnemic.training import checkpoint
from mnemic.training.optimise import clip, optimisers_of, rate_at
from mnemic.training.options import LoopOptions, ModelOptions
from mnemic.training.row_adam import RowAdam
from mnemic.training.source import ASK_NOTHING, Source

CHECKPOINT: Final = "checkpoint.safetensors"
LOG: Final = "log.jsonl"
Progress = Callable[[int, int], None]
Say = Callable[[dict[str, Any]], None]


@dataclass(frozen=True, kw_only=True)
class Trained:
    """The model after `step` steps, and what was reported: a row for each evaluation, the last at the end."""

    model: StackForCausalLM
    history: list[dict[str, Any]]
    step: int
    resumed_at: int


def config_of(model: ModelOptions, vocabulary: int) -> StackConfig:
    """What the stack is made of, every layer's options checked; no weights. Raises InvalidOption."""
    return StackConfig(
        layers=list(model.layers), dim=model.dim, vocab_size=vocabulary, mlp_ratio=model.mlp_ratio,
        memory=model.memory, tie_word_embeddings=model.tie,
    )  # fmt: skip


def build(model: ModelOptions, vocabulary: int, seed: int) -> StackForCausalLM:
    """A stack with weights that are a function of the seed. Raises InvalidOption."""
    config = config_of(model, vocabulary)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return StackForCausalLM(config)


def train(
    model: StackForCausalLM,
    source: Source,
    options: LoopOptions,
    *,
    folder: Path | None = None,
    settings: dict[str, Any] | None = None,
    progress: Progress = lambda *_: None,
    say: Say = lambda _: None,
    stop: Callable[[], bool] = lambda: False,
    fresh: bool = False,
) -> Trained:
    """Train to `options.steps`, evaluating on the way; `stop` is asked between steps.

    With a folder, checkpoint.safetensors and log.jsonl are kept there, and a run that was stopped or killed
    goes on from the last checkpoint with the same bits as if it had not been (on the same machine, with as
    many threads); `fresh` starts over. `settings`: what else the run depends on. Raises InvalidOption when
    the folder holds a run with other settings, or another process trains there, ModelError when the loss is
    no longer finite.
    """
    settings = {**(settings or {}), "training": options.to_dict(), "source": source.settings()}
    if folder is None:
        return _train(model, source, options, None, settings, progress, say, stop)
    with checkpoint.alone(folder):
        if fresh:
            for name in (CHECKPOINT, LOG):
                (folder / name).unlink(missing_ok=True)
        return _train(model, source, options, folder / CHECKPOINT, settings, progress, say, stop)


def _train(
    model: StackForCausalLM,
    source: Source,
    options: LoopOptions,
    path: Path | None,
    settings: dict[str, Any],
    progress: Progress,
    say: Say,
    stop: Callable[[], bool],
) -> Trained:
    """`train`, with its checkpoint at `path`."""
    optimisers = optimisers_of(model, options)
    found = None if path is None else checkpoint.read(path, settings)
    step, history = 0, list[dict[str, Any]]()
    if found is not None:
        found.restore(model, optimisers)
        step, history = found.step, found.history
    resumed_at = step
    model.train()
    progress(step, options.steps)
    with torch.random.fork_rng(devices=[]):
        while step < options.steps:
            loss, norm = one_step(model, source, optimisers, options, step)
            step += 1
            last = step == options.steps
            if step % options.evaluate_every == 0 or last:
                history.append({"step": step, "train_loss": loss, "norm": norm, **evaluate(model, source)})
                say(history[-1])
            halt = stop()
            if path is not None and (step % options.save_every == 0 or last or halt):
                checkpoint.write(path, model, optimisers, step=step, settings=settings, history=history)
                lines = "".join(json.dumps(row) + "\n" for row in history)
                write_whole(path.with_name(LOG), lines.encode())
            progress(step, options.steps)
            if halt:
                break
    model.eval()
    return Trained(model=model, history=history, step=step, resumed_at=resumed_at)


def one_step(
    model: StackForCausalLM,
    source: Source,
    optimisers: Sequence[torch.optim.Optimizer],
    options: LoopOptions,
    step: int,
) -> tuple[float, float]:
    """Loss (nats a label) and gradient norm of step number `step`, which is a function of the seed and it.

    Accumulated over `micro` sequences at a time: the sum over all labels of the batch divided by their
    number, so the step is that of the whole batch. (A router's auxiliary loss is a mean over each part.)
    """
    seed = options.seed * 1_000_003 + step
    torch.manual_seed(seed)  # for a layer that draws
    generator = torch.Generator().manual_seed(seed)
    tokens, labels = source.batch(options.batch, generator, step / options.steps)
    asked = (labels != ASK_NOTHING).sum()
    model.zero_grad(set_to_none=True)
    total = 0.0
    micro = options.micro or options.batch
    for some, theirs in zip(tokens.split(micro), labels.split(micro), strict=True):
        logits = _precise(model(some, use_cache=False).logits)
        loss = cross_entropy(
            logits.flatten(0, 1), theirs.flatten(), ignore_index=ASK_NOTHING, reduction="sum"
        )
        loss = loss / asked
        total += float(loss.detach())
        for auxiliary in model.aux_losses().values():
            loss = loss + auxiliary * (some.shape[0] / tokens.shape[0])
        loss.backward()
    norm = clip(model.parameters(), options.clip)
    if not math.isfinite(total) or not math.isfinite(norm):
        raise ModelError(
            f"the loss or its gradient is no longer finite at step {step + 1}: train at a lower rate than "
            f"{options.rate:g}, or warm up for longer"
        )
    rate, rows_rate = rate_at(step, options)
    for optimiser in optimisers:
        for group in optimiser.param_groups:
            group["lr"] = rows_rate if isinstance(optimiser, RowAdam) else rate
        optimiser.step()
    return total, norm


@torch.no_grad()
def evaluate(model: StackForCausalLM, source: Source, rows: int = 32) -> dict[str, float]:
    """What the source reports of its held-out sequences; with a memory beside the MLPs, how it is used.

    `slots_used`: the least share of slots read, of all blocks, and `slots_even` the evenness there.
    """
    training = model.training
    model.eval()
    losses: list[Tensor] = []
    right: list[Tensor] = []
    seen: list[Tensor] = []
    asked: list[Tensor] = []
    with counted_slots(model) as counts:
        for tokens, labels in source.held_out(rows):
            logits = _precise(model(tokens, use_cache=False).logits)
            nats = cross_entropy(logits.mT, labels, ignore_index=ASK_NOTHING, reduction="none")
            for kept, one in ((losses, nats), (right, logits.argmax(-1) == labels)):
                kept.append(one)
            seen.append(tokens)
            asked.append(labels)
    model.train(training)
    found = source.report(*(torch.cat(parts) for parts in (losses, right, seen, asked)))
    if counts:
        least = min((usage_of(one) for one in counts.values()), key=lambda usage: usage.share)
        found |= {"slots_used": least.share, "slots_even": least.evenness}
    return found


@contextlib.contextmanager
def counted_slots(model: StackForCausalLM) -> Iterator[dict[int, Tensor]]:
    """Inside, how often each slot of each block's memory is read, by block."""
    counts: dict[int, Tensor] = {}

    def watch(number: int, block: Block) -> RemovableHandle:
        def count(_: nn.Module, __: Any, read: Tensor) -> None:
            assert block.memory is not None  # noqa: S101
            found = block.memory.slot_usage(read)
            counts[number] = found if number not in counts else counts[number] + found

        assert block.mlp_norm is not None  # noqa: S101
        return block.mlp_norm.register_forward_hook(count)

    blocks = [block for block in model.blocks.children() if isinstance(block, Block)]
    handles = [watch(n, block) for n, block in enumerate(blocks) if block.memory is not None]
    try:
        yield counts
    finally:
        for handle in handles:
            handle.remove()


def _precise(logits: Tensor) -> Tensor:
    return logits if logits.dtype == torch.float64 else logits.float()
