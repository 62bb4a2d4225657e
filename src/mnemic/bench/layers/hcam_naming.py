"""Rapid naming with HCAM and with what it must beat: trained on 2 to 8 things, asked about up to 48.

Steps are a fixed orthogonal projection of their symbols; one memory layer, then an MLP. Needs torch.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from mnemic.bench.kept import Record
from mnemic.bench.worlds.naming import FEATURES, STEPS, VALUES, episodes
from mnemic.layers.hcam import HCAM
from mnemic.layers.layer import MemoryLayer
from mnemic.layers.table import make

WIDTH, BATCH, RATE, TESTED = 64, 64, 3e-3, 1024
TRAINED_ON: Final = (2, 8)  # things, least and most
ASKED: Final = (4, 8, 16, 48)
MEMORY: Final = {"heads": 2, "chunk": STEPS, "topk": 2, "relevance": 4.0}


class Chunks(nn.Module):
    """HCAM as it is: write what was told, recall for the question."""

    def __init__(self, **options: Any) -> None:
        super().__init__()
        made = make("hcam", dim=WIDTH, **{**MEMORY, **options})
        assert isinstance(made, HCAM)  # noqa: S101
        self.memory = made

    def forward(self, told: Tensor, asked: Tensor) -> Tensor:
        """told (batch, time, WIDTH), asked (batch, WIDTH) -> (batch, WIDTH)."""
        state = self.memory.write(self.memory.init_state(told.shape[0]), told)
        return self.memory.read(state, asked.unsqueeze(1)).squeeze(1)


class RandomChunks(Chunks):
    """The same, but chance says which chunks it may look into."""

    def forward(self, told: Tensor, asked: Tensor) -> Tensor:
        state = self.memory.write(self.memory.init_state(told.shape[0]), told)
        order = torch.rand(told.shape[0], state.slots).argsort(1).argsort(1)
        allowed = order < self.memory.options.topk
        return self.memory.recall(state, asked.unsqueeze(1), mask=allowed).output.squeeze(1)


class SummariesOnly(Chunks):
    """The same choice of chunks, but of each only the summary is read."""

    def forward(self, told: Tensor, asked: Tensor) -> Tensor:
        memory = self.memory
        state = memory.write(memory.init_state(told.shape[0]), told)
        found = memory.recall(state, asked.unsqueeze(1))
        rows = torch.arange(told.shape[0]).unsqueeze(1)
        read = (state.summaries[rows, found.chunks[:, 0]] * found.weights[:, 0].unsqueeze(-1)).sum(1)
        y: Tensor = memory.out(memory.v(read))
        return y


class Through(nn.Module):
    """A layer over all steps and then the question; its output there."""

    def __init__(self, name: str, **options: Any) -> None:
        super().__init__()
        self.layer: MemoryLayer[Any] = make(name, dim=WIDTH, **options)

    def forward(self, told: Tensor, asked: Tensor) -> Tensor:
        _, state = self.layer(told)
        return self.layer.step(asked, state)[0]


ARMS: Final[Mapping[str, Callable[[], nn.Module]]] = {
    "HCAM": Chunks,
    "flat attention": partial(Through, "attention", heads=2, rotary=False),
    "random chunks": RandomChunks,
    "summaries only": SummariesOnly,
    "LSTM": partial(Through, "lstm"),
    "HCAM, chunk of two things": partial(Chunks, chunk=2 * STEPS),
    "HCAM, chunk of half a thing": partial(Chunks, chunk=STEPS // 2),
    "HCAM, chunk of four things": partial(Chunks, chunk=4 * STEPS),
    "HCAM, topk 1": partial(Chunks, topk=1),
    "HCAM, topk 8": partial(Chunks, topk=8),
    "HCAM, summary max": partial(Chunks, summary="max"),
    "flat attention, rotary": partial(Through, "attention", heads=2),
}


class Namer(nn.Module):
    """Told and asked in symbols, says the logits of the values."""

    projection: Tensor

    def __init__(self, memory: nn.Module) -> None:
        super().__init__()
        self.memory = memory
        self.register_buffer("projection", nn.init.orthogonal_(torch.empty(FEATURES, WIDTH)))
        self.head = nn.Sequential(nn.Linear(WIDTH, 64), nn.ReLU(), nn.Linear(64, VALUES))

    def forward(self, told: Tensor, asked: Tensor) -> Tensor:
        said: Tensor = self.head(self.memory(told @ self.projection, asked @ self.projection))
        return said


def train(arm: str, seed: int, steps: int) -> Record:
    """Adam 3e-3, batches of 64 fresh episodes. Accuracy by number of things, every 300 steps too."""
    torch.manual_seed(seed)
    model = Namer(ARMS[arm]())
    optimiser = torch.optim.Adam(model.parameters(), lr=RATE)
    draws, begun = np.random.default_rng(seed), time.process_time()
    curve = {}
    for step in range(1, steps + 1):
        loss, _ = _asked(model, int(draws.integers(TRAINED_ON[0], TRAINED_ON[1] + 1)), BATCH, draws)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        if step % 300 == 0:
            curve[str(step)] = accuracy(model, TRAINED_ON[1], 256)
    return {
        "arm": arm,
        "seed": seed,
        "steps": steps,
        "accuracy": {str(chunks): accuracy(model, chunks) for chunks in ASKED},
        "curve": curve,
        "parameters": sum(p.numel() for p in model.parameters()),
        "cpu_s": round(time.process_time() - begun, 1),
    }


@torch.no_grad()
def accuracy(model: nn.Module, chunks: int, rows: int | None = None) -> float:
    """On `rows` (TESTED) episodes that no training seed draws."""
    draws, right = np.random.default_rng(1_000_000 + chunks), 0.0
    parts = range(0, rows or TESTED, 128)
    for _ in parts:
        right += _asked(model, chunks, 128, draws)[1]
    return right / len(parts)


def _asked(model: nn.Module, chunks: int, rows: int, draws: np.random.Generator) -> tuple[Tensor, float]:
    """Loss and accuracy of one fresh batch."""
    told, asked, answers = (torch.from_numpy(part) for part in episodes(rows, chunks, draws))
    logits = model(told, asked)
    return cross_entropy(logits, answers), float((logits.argmax(-1) == answers).float().mean())
