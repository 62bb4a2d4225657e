"""What memories of numbered slots share: no state of the stream, a table of rows, a look-up that names slots.

Each token reads a few rows of a large table, found by keys. What the table holds is learned in training, or
put there row by row; reading a sequence changes nothing.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn

from mnemic.cube.errors import InvalidInput, InvalidOption
from mnemic.layers.heads import COUNTER_BYTES
from mnemic.layers.layer import MemoryLayer
from mnemic.layers.options import LayerOptions, option
from mnemic.layers.rows import RowTable
from mnemic.layers.state import LayerState


@runtime_checkable
class SlotTable(Protocol):
    """x (…, dim). `lookup` gives slots int64 and weights, both (…, chosen); `slot_usage` reads by slot."""

    values: RowTable

    def lookup(self, x: Tensor) -> tuple[Tensor, Tensor]: ...

    def slot_usage(self, x: Tensor) -> Tensor: ...


@dataclass(frozen=True, kw_only=True)
class SlotOptions(LayerOptions):
    """`keys` an axis, keys² slots; a token reads `topm` of them. `sparse`: gradients of read rows alone."""

    keys: int = option(64, low=2)
    topm: int = 16
    sparse: bool = option(True, meaning=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.topm > self.keys:
            raise InvalidOption(f"topm must be at most keys = {self.keys}, got {self.topm}")

    @property
    def slots(self) -> int:
        return self.keys**2

    def state_bytes(self, tokens: int, *, batch: int = 1, element_bytes: int = 4) -> int:
        return batch * COUNTER_BYTES


@dataclass(frozen=True, kw_only=True)
class SlotState(LayerState):
    """Nothing but the count of tokens: the memory is in the parameters."""


class SlotMemory(MemoryLayer[SlotState]):
    """A layer whose every token is read alone: `read` fast, `read_dense` over the whole table."""

    State = SlotState
    dials = ()  # no state of a sequence: no points on the curve of recall against state bytes
    values: RowTable

    @abstractmethod
    def read(self, x: Tensor) -> Tensor:
        """x (…, dim) -> (…, dim). Raises InvalidInput when scores are not finite."""

    @abstractmethod
    def read_dense(self, x: Tensor) -> Tensor:
        """The same by scoring every slot and summing over the whole table. O(slots): for tests."""

    @abstractmethod
    def lookup(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """x (…, dim) -> slots int64 and weights, both (…, chosen); best first within a head."""

    @abstractmethod
    def reads_per_token(self) -> int:
        """Rows that one token reads."""

    def init_state(
        self, batch: int, *, dtype: torch.dtype | None = None, device: torch.device | str | None = None
    ) -> SlotState:
        _, device = self._place(dtype, device)
        return SlotState(spec=self.spec, seen=torch.zeros(batch, dtype=torch.int32, device=device))

    def chunked(
        self, x: Tensor, state: SlotState, valid: Tensor | None, positions: Tensor | None
    ) -> tuple[Tensor, SlotState]:
        return self.read(x), state

    def token(self, x: Tensor, state: SlotState) -> tuple[Tensor, SlotState]:
        return self.read(x), state

    def definition(self, x: Tensor, state: SlotState) -> tuple[Tensor, SlotState]:
        return self.read_dense(x), state

    @torch.no_grad()
    def slot_usage(self, x: Tensor) -> Tensor:
        """x (…, dim) -> int64 (slots,): how often these tokens read each slot."""
        slots, _ = self.lookup(x)
        return torch.bincount(slots.flatten(), minlength=self.values.shape[0])

    @torch.no_grad()
    def touched_slots(self, x: Tensor) -> Tensor:
        """x (…, dim) -> the slots these tokens read, int64, ascending, each once."""
        return self.slot_usage(x).nonzero().flatten()

    def bytes_per_token(self) -> int:
        """Bytes of the table that one token reads, wherever the table lies."""
        return self.reads_per_token() * self.values.row_bytes

    def idle_parameters(self) -> int:
        rows, width = self.values.shape
        trained = isinstance(self.values, nn.Module)
        return (rows - min(self.reads_per_token(), rows)) * width if trained else 0


@dataclass(frozen=True, slots=True)
class SlotUsage:
    """How a table is used. `share` of slots that were read at all; `evenness`: 1 when all are read alike."""

    slots: int
    reads: int
    used: int
    share: float
    evenness: float

    @property
    def collapsed(self) -> bool:
        """Fewer than a tenth of the slots are read, though there were reads enough for all."""
        return self.share < 0.1 and self.reads >= self.slots


def usage_of(counts: Tensor) -> SlotUsage:
    """From reads by slot (slots,), summed over as many tokens as you like."""
    reads, used = int(counts.sum()), int((counts > 0).sum())
    shares = counts[counts > 0].double() / max(reads, 1)
    entropy = float(-(shares * shares.log()).sum())
    return SlotUsage(
        slots=counts.numel(), reads=reads, used=used, share=used / counts.numel(),
        evenness=entropy / math.log(counts.numel()),
    )  # fmt: skip


def specific_slots(counts: Tensor, background: Tensor, *, share: float) -> Tensor:
    """The `share` of all slots that these reads use most and others least, int64, most specific first.

    counts (slots,): reads of the new data; background (batches, slots): reads of each batch of other data.
    Their TF-IDF, count / all counts · log((batches + 1) / (batches that read it + 1)); only slots that the
    new data reads. To learn new facts and forget few, train these alone (Lin et al. 2025, §3).
    """
    if background.dim() != 2 or background.shape[1] != counts.shape[0]:
        raise InvalidInput(
            f"background must have shape (batches, {counts.shape[0]}), got {tuple(background.shape)}"
        )
    if not 0 < share <= 1:
        raise InvalidOption(f"share must be above 0 and at most 1, got {share!r:.80}")
    read_by = (background > 0).sum(0)
    rarity = ((background.shape[0] + 1) / (read_by + 1).double()).log()
    worth = counts.double() / counts.sum().clamp(min=1) * rarity
    wanted = max(round(share * counts.numel()), 1)
    order = worth.argsort(descending=True, stable=True)
    return order[counts[order] > 0][:wanted]


def highest(scores: Tensor, count: int) -> Tensor:
    """Indices of the `count` largest of (…, n), in no order: (…, count). NaN counts as larger than all.

    On a CPU by selection, in a third of the time of `topk`, which sorts.
    """
    if scores.device.type != "cpu":
        return scores.topk(count, sorted=False).indices
    least = scores.shape[-1] - count
    return torch.from_numpy(np.argpartition(scores.detach().numpy(), least, axis=-1)[..., least:].copy())


def best_first(slots: Tensor, weights: Tensor, by: Tensor) -> tuple[Tensor, Tensor]:
    """Both (…, chosen), in falling order of `by`."""
    order = by.detach().argsort(-1, descending=True)
    return slots.gather(-1, order), weights.gather(-1, order)


def require_finite_scores(name: str, weights: Tensor) -> None:
    """Raise InvalidInput when the scores of a look-up hold NaN or infinity."""
    if not bool(torch.isfinite(weights.detach()).all()):
        raise InvalidInput(
            f"the scores of {name} are not finite: its weights have diverged. Go back to the last good "
            "checkpoint and train at a lower rate"
        )


def require_table(values: RowTable, rows: int, width: int) -> None:
    """Raise InvalidOption unless a table has that shape."""
    if tuple(values.shape) != (rows, width):
        raise InvalidOption(f"this layer needs a table of {rows} rows of {width}, got {tuple(values.shape)}")
