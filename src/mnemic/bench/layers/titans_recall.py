"""Recall beyond the window (experiment 3 of Titans): pairs, a stretch of filler, then the keys again.

The window is shorter than the stretch, so that what answers is the memory. Needs torch.
"""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from mnemic.bench.kept import write_whole
from mnemic.layers.layer import MemoryLayer
from mnemic.layers.table import make

PAIRS, KEYS, VALUES, FILLER = 6, 30, 30, 36
LENGTH: Final = 4 * PAIRS + FILLER
WIDTH, BLOCKS, WINDOW, CHUNK, BATCH = 48, 2, 12, 12, 48
TITANS: Final = {
    "window": WINDOW,
    "chunk": CHUNK,
    "conv": 3,
    "reads": "chunk",
    "rotary": False,
    "decays_to": "zero",
    "bounded": False,
}  # the specification's gates: the paper's, whatever the length of a chunk
ARMS: Final[Mapping[str, tuple[str, Mapping[str, Any]]]] = {
    "window only": ("window", {"window": WINDOW, "rotary": False}),
    "MAG, linear": ("titans-mag", {**TITANS, "depth": 1}),
    "MAG, two layers": ("titans-mag", {**TITANS, "depth": 2, "hidden": WIDTH}),
    "MAG, no decay": ("titans-mag", {**TITANS, "depth": 1, "decay": False}),
    "MAG, no momentum": ("titans-mag", {**TITANS, "depth": 1, "momentum": False}),
    "MAG, bounded steps": ("titans-mag", {**TITANS, "depth": 1, "bounded": True}),
    "full attention": ("attention", {"rotary": False}),
}


@dataclass(frozen=True)
class Trained:
    """Accuracy at the second keys, after the steps and on the way; `silenced`: with the writes turned off."""

    arm: str
    seed: int
    steps: int
    accuracy: float
    curve: dict[str, float]
    silenced: float | None
    parameters: int
    cpu_s: float


class Reader(nn.Module):
    """Embeddings, learned positions, blocks of a mixer and an MLP on residuals; logits over all tokens."""

    def __init__(self, mixer: Callable[[], MemoryLayer[Any]], *, tokens: int, length: int) -> None:
        super().__init__()
        self.embed, self.place = nn.Embedding(tokens, WIDTH), nn.Embedding(length, WIDTH)
        self.mixers = nn.ModuleList(mixer() for _ in range(BLOCKS))
        self.mlps = nn.ModuleList(
            nn.Sequential(
                nn.RMSNorm(WIDTH), nn.Linear(WIDTH, 2 * WIDTH), nn.GELU(), nn.Linear(2 * WIDTH, WIDTH)
            )
            for _ in range(BLOCKS)
        )
        self.norms = nn.ModuleList(nn.RMSNorm(WIDTH) for _ in range(BLOCKS))
        self.head = nn.Sequential(nn.RMSNorm(WIDTH), nn.Linear(WIDTH, tokens))

    def forward(self, ids: Tensor) -> Tensor:
        """ids (batch, time) -> logits (batch, time, tokens)."""
        x = self.embed(ids) + self.place(torch.arange(ids.shape[1], device=ids.device))
        for mixer, mlp, norm in zip(self.mixers, self.mlps, self.norms, strict=True):
            x = x + mixer(norm(x))[0]
            x = x + mlp(x)
        logits: Tensor = self.head(x)
        return logits


def sample(generator: torch.Generator, batch: int = BATCH) -> tuple[Tensor, Tensor]:
    """ids and labels (batch, LENGTH); a label stands at the position of each second key, -100 elsewhere.

    Tokens: 0 filler, then KEYS, then VALUES.
    """
    keys = torch.rand(batch, KEYS, generator=generator).argsort(1)[:, :PAIRS] + 1
    values = torch.randint(VALUES, (batch, PAIRS), generator=generator) + 1 + KEYS
    order = torch.rand(batch, PAIRS, generator=generator).argsort(1)
    ids, labels = torch.zeros(batch, LENGTH, dtype=torch.long), torch.full((batch, LENGTH), -100)
    ids[:, 0 : 2 * PAIRS : 2], ids[:, 1 : 2 * PAIRS : 2] = keys, values
    asked = slice(2 * PAIRS + FILLER, None, 2)
    ids[:, asked], labels[:, asked] = keys.gather(1, order), values.gather(1, order)
    return ids, labels


def accuracy(model: nn.Module, *, batch: int = 512) -> float:
    """Over the second keys of sequences that no training seed draws."""
    ids, labels = sample(torch.Generator().manual_seed(10_000), batch)
    with torch.inference_mode():
        found = model(ids).argmax(-1)
    asked = labels >= 0
    return float((found[asked] == labels[asked]).float().mean())


def train(arm: str, seed: int, steps: int) -> Trained:
    """AdamW 2e-3 in one cycle, clipped at 1, batches of 48."""
    torch.manual_seed(seed)
    name, options = ARMS[arm]
    model = Reader(lambda: make(name, dim=WIDTH, **options), tokens=1 + KEYS + VALUES, length=LENGTH)
    optimiser = torch.optim.AdamW(model.parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=2e-3, total_steps=steps)
    draws = torch.Generator().manual_seed(seed)
    curve, begun = {}, time.process_time()
    for step in range(1, steps + 1):
        ids, labels = sample(draws)
        loss = cross_entropy(model(ids).flatten(0, 1), labels.flatten())
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        if step % 150 == 0 or step == steps:
            curve[str(step)] = accuracy(model)
    return Trained(
        arm=arm,
        seed=seed,
        steps=steps,
        accuracy=curve[str(steps)],
        curve=curve,
        silenced=silenced(model),
        parameters=sum(p.numel() for p in model.parameters()),
        cpu_s=round(time.process_time() - begun, 1),
    )


def silenced(model: Reader) -> float | None:
    """Accuracy of the same weights when no token writes to a memory; None where there is none."""
    quiet = copy.deepcopy(model)
    memories: list[Any] = [mixer.memory for mixer in quiet.mixers if hasattr(mixer, "memory")]
    if not memories:
        return None
    for memory in memories:
        nn.init.zeros_(memory.step.weight)
        nn.init.constant_(memory.step.bias, -1e9)  # a step of exactly 0
    return accuracy(quiet)


def train_all(
    arms: Sequence[str], seeds: int, steps: int, path: Path, *, report: Callable[[str, str], None]
) -> list[Trained]:
    """Every arm with every seed; runs that `path` holds with as many steps are not made again."""
    kept = [Trained(**run) for run in json.loads(path.read_text())] if path.exists() else []
    done = {(run.arm, run.seed, run.steps): run for run in kept}
    for seed in range(seeds):
        for arm in arms:
            if (arm, seed, steps) not in done:
                done[arm, seed, steps] = train(arm, seed, steps)
                write_whole(path, json.dumps([asdict(run) for run in done.values()], indent=1) + "\n")
            found = done[arm, seed, steps]
            report(f"{arm}, seed {seed}", f"{found.accuracy:.3f} in {found.cpu_s:.0f} s of CPU")
    return list(done.values())
