"""A whole model whose feed-forward weights are four times the memory that it may take."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn

from mnemic.bench.flash.bounded import DENSE, RECORD, answer
from mnemic.cube.errors import Unsupported
from mnemic.models.local import LocalModel
from mnemic.parametric.flash_mlp import LowRank, pack_bits, train_predictor
from mnemic.parametric.flash_model import FlashModel, feed_forward_parts, pack_model

RANK: Final = 32
LEARNED_TOKENS: Final = 6_144  # that predictors are trained on
HELD_OUT_TOKENS: Final = 2_048
NEW_TOKENS: Final = 48
PROMPT_TOKENS: Final = 32
NAIVE_TOKENS: Final = 4
MODES: Final = ("all", "learned", "recorded", DENSE)
Step = Callable[[str, str], None]


def whole(
    local: LocalModel, corpus: str, other: str, folder: Path, *, step: Step = lambda *_: None
) -> dict[str, Any]:
    """Predictors trained, the model packed, and run in a process that holds a quarter of its feed-forward
    weights. Raises Unsupported where a process's memory cannot be limited.
    """
    if sys.platform != "linux":
        raise Unsupported("a process's memory is limited here as Linux does; run this part on Linux")
    parts = feed_forward_parts(local.model)
    weights = sum(one.numel() * one.element_size() for part in parts for one in part.parameters())
    budget = weights // 4
    started = time.process_time()
    predictors, found = _predictors(local, corpus, other)
    found |= {"weights": weights, "budget": budget, "predictors_s": time.process_time() - started}
    step("flash", f"predictors find {found['recall']:.1%} of what fires, and name {found['named']:.1%}")
    pack_model(local, folder, predictors=dict(enumerate(predictors)))
    local.model.save_pretrained(folder / DENSE)
    local.tokenizer.save_pretrained(folder / DENSE)
    prompt = local.encode(other)[:PROMPT_TOKENS]
    said = record(local, prompt, NEW_TOKENS, folder / RECORD)
    found["loss"] = loss(local, other, HELD_OUT_TOKENS)
    with FlashModel.open(folder, budget=budget, tokens=256) as flash:
        found["loss_learned"] = loss(flash.local, other, HELD_OUT_TOKENS)
    step("flash", f"loss {found['loss']:.3f}, with learned predictors {found['loss_learned']:.3f}")
    for mode in MODES:
        found[mode] = _bounded(folder, budget, mode, NAIVE_TOKENS if mode == "all" else NEW_TOKENS)
        step("flash", f"{mode}: {found[mode]}")
    found["same"] = found["recorded"]["said"] == said
    found["same_all"] = found["all"]["said"] == said[:NAIVE_TOKENS]
    told = found["learned"]["said"]
    found["same_learned"] = sum(a == b for a, b in zip(told, said, strict=False)) / max(1, len(said))
    return found


@contextmanager
def watched(model: nn.Module) -> Iterator[list[list[tuple[Tensor, Tensor]]]]:
    """By layer and forward: what enters its feed-forward part [n, width], and which neurons fire."""
    seen: list[list[tuple[Tensor, Tensor]]] = []
    hooks = []
    for part in feed_forward_parts(model):
        found: list[tuple[Tensor, Tensor]] = []

        def keep(
            _module: nn.Module,
            args: tuple[Tensor, ...],
            out: Tensor,
            found: list[tuple[Tensor, Tensor]] = found,
        ) -> None:
            found.append((args[0].flatten(0, -2), out.flatten(0, -2) > 0))

        hooks.append(part.gate_proj.register_forward_hook(keep))  # type: ignore[union-attr]
        seen.append(found)
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


def record(local: LocalModel, prompt: list[int], tokens: int, path: Path) -> list[int]:
    """What the model in memory says after `prompt`, and, in a file, which neurons fired at every token."""
    from safetensors.torch import save_file

    with watched(local.model) as seen:
        said = list(answer(local, prompt, tokens))
    fired = {
        f"layer-{n}": pack_bits(torch.cat([one for _, one in found])).clone() for n, found in enumerate(seen)
    }
    save_file({**fired, "prompt": torch.tensor(prompt)}, path)
    return said


def loss(local: LocalModel, text: str, tokens: int, block: int = 128) -> float:
    """Nats a token, in blocks."""
    ids = local.encode(text)[:tokens]
    total, count = 0.0, 0
    with torch.no_grad():
        for start in range(0, len(ids) - 1, block):
            piece = torch.tensor([ids[start : start + block]])
            logits = local.model(piece, use_cache=False).logits[0, :-1].float()
            total += float(nn.functional.cross_entropy(logits, piece[0, 1:], reduction="sum"))
            count += piece.shape[1] - 1
    return total / count


def _states(local: LocalModel, text: str, tokens: int) -> list[tuple[Tensor, Tensor]]:
    with watched(local.model) as seen:
        loss(local, text, tokens)
    return [
        (torch.cat([x for x, _ in found]).clone(), torch.cat([one for _, one in found])) for found in seen
    ]


def _predictors(local: LocalModel, corpus: str, other: str) -> tuple[list[LowRank], dict[str, Any]]:
    """One a layer, trained on the corpus and judged on another text."""
    made = []
    hits = named = fires = total = 0
    held_out = _states(local, other, HELD_OUT_TOKENS)
    for (x, fired), (test_x, test_fired) in zip(
        _states(local, corpus, LEARNED_TOKENS), held_out, strict=True
    ):
        predictor = LowRank(x.shape[1], fired.shape[1], rank=RANK)
        train_predictor(predictor, x, fired, epochs=4, learning_rate=3e-3)
        with torch.no_grad():
            told = predictor(test_x)
        hits += int((told & test_fired).sum())
        named, fires, total = named + int(told.sum()), fires + int(test_fired.sum()), total + told.numel()
        made.append(predictor.requires_grad_(False))
    return made, {"fires": fires / total, "named": named / total, "recall": hits / fires, "rank": RANK}


def _bounded(folder: Path, budget: int, mode: str, tokens: int) -> dict[str, Any]:
    command = [
        sys.executable,
        "-m",
        "mnemic.bench.flash.bounded",
        str(folder),
        str(budget),
        mode,
        str(tokens),
    ]
    env = {**os.environ, "MALLOC_ARENA_MAX": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=env, timeout=600)  # noqa: S603
    if done.returncode:
        return {"failed": done.stderr[-800:], "said": []}
    return dict(json.loads(done.stdout.splitlines()[-1]))
