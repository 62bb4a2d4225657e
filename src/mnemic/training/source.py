"""Where the loop takes sequences from: a protocol, and what is asked of a model on held-out ones."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import torch
from torch import Generator, Tensor

ASK_NOTHING = -100
Batch = tuple[Tensor, Tensor]  # tokens and labels (rows, time); ASK_NOTHING where a position is not asked


class Source(Protocol):
    """`vocabulary` tokens; fresh batches by a generator alone, and the same held-out ones each time."""

    @property
    def vocabulary(self) -> int: ...

    def batch(self, rows: int, generator: Generator, done: float = 1.0) -> Batch:
        """`done`: share of the training that is over, for what grows while it is learned."""
        ...

    def held_out(self, rows: int) -> Iterator[Batch]:
        """All held-out sequences, `rows` at a time."""
        ...

    def settings(self) -> dict[str, Any]:
        """What a run depends on, as JSON values; of data its digest."""
        ...

    def report(self, losses: Tensor, right: Tensor, tokens: Tensor, labels: Tensor) -> dict[str, float]:
        """From nats and whether the first guess was right, both (rows, time) over all held-out sequences."""
        ...


class Made:
    """A task of the recall suite as a source: fresh samples for training, others for testing."""

    def __init__(self, task: Any, settings: dict[str, Any], *, evaluated: int, seed: int) -> None:
        self._task, self._settings, self._evaluated, self._seed = task, settings, evaluated, seed

    @property
    def vocabulary(self) -> int:
        return int(self._task.vocabulary)

    def batch(self, rows: int, generator: Generator, done: float = 1.0) -> Batch:  # noqa: ARG002
        tokens, labels = self._task.batch(rows, generator)
        return tokens, labels

    def held_out(self, rows: int) -> Iterator[Batch]:
        generator = torch.Generator().manual_seed(2_000_000 + self._seed)
        for start in range(0, self._evaluated, rows):
            yield self.batch(min(rows, self._evaluated - start), generator)

    def settings(self) -> dict[str, Any]:
        return self._settings

    def report(
        self,
        losses: Tensor,
        right: Tensor,
        tokens: Tensor,  # noqa: ARG002
        labels: Tensor,
    ) -> dict[str, float]:
        at = labels != ASK_NOTHING
        return {"loss": float(losses[at].mean()), "recall": float(right[at].double().mean())}
