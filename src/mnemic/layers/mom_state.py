"""Options and state of the mixture of memories: which there are, and what each holds."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from mnemic.cube.errors import InvalidInput, InvalidOption
from mnemic.layers.heads import COUNTER_BYTES, UnitKeyOptions
from mnemic.layers.options import option
from mnemic.layers.state import LayerState, require_batch

Update = Literal["linear", "retention", "gla", "delta", "gated_delta"]


@dataclass(frozen=True, kw_only=True)
class MoMOptions(UnitKeyOptions):
    """`memories` and how many of them, `topk`, a token is sent to; `update`: what a write does.

    `shared`: one memory more that every token is written to, read with weight 1. `single_kv`: all memories
    use the same key and value projection. `conv`: tokens seen by the short convolutions along each memory's
    own sequence, SiLU on values behind them; 0 leaves both out, and that of `qk_silu`. `gated`: RMS norm and
    SiLU gate on what is read, as published; without them it goes to the output map as it is. `balance`:
    weight of the load-balancing loss (the release uses 1e-2, the paper's ablation favours 1e-3).
    """

    memories: int = 4
    topk: int = 2
    update: Update = "gated_delta"
    shared: bool = True
    single_kv: bool = False
    conv: int = option(4, low=0)
    gated: bool = True
    balance: float = option(1e-2, meaning=False, low=0.0)
    slowness: float = option(16.0, low=1.0)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.topk > self.memories:
            raise InvalidOption(f"topk must be at most memories = {self.memories}, got {self.topk}")

    @property
    def total(self) -> int:
        """Memories, the shared one counted."""
        return self.memories + self.shared

    @property
    def channels(self) -> int:
        return self.heads * (2 * self.key_size + self.value_size)

    def state_bytes(self, tokens: int, *, batch: int = 1, element_bytes: int = 4) -> int:
        matrix = self.heads * self.key_size * self.value_size * max(element_bytes, 4)
        tail = max(self.conv - 1, 0) * self.channels * element_bytes
        return batch * (self.total * (matrix + tail + COUNTER_BYTES) + COUNTER_BYTES)


@dataclass(frozen=True, kw_only=True)
class MoMState(LayerState):
    """Per memory, the shared one last.

    `memory` (batch, memories, heads, key_dim, value_dim); `tail` (batch, memories, conv - 1, channels): the
    last q, k, v sent there; `counts` int32 (batch, memories): tokens written there.
    """

    memory: Tensor
    tail: Tensor
    counts: Tensor

    def with_memory(self, part: int, source: MoMState | None) -> MoMState:
        """This state with one memory as it is in `source`, or emptied; the others bit by bit as they were.

        Raises InvalidInput where there is no such memory, or `source` has other sequences.
        """
        total = self.counts.shape[1]
        if not 0 <= part < total:
            raise InvalidInput(f"there are memories 0 to {total - 1}, not {part}")
        if source is not None:
            require_batch(source, self.batch)
        chosen = torch.arange(total, device=self.seen.device) == part

        def put(mine: Tensor, theirs: Tensor) -> Tensor:
            where = chosen.view(1, -1, *[1] * (mine.dim() - 2))
            return torch.where(where, 0 if source is None else theirs, mine)

        other = source or self
        return replace(
            self,
            memory=put(self.memory, other.memory),
            tail=put(self.tail, other.tail),
            counts=put(self.counts, other.counts),
        )
