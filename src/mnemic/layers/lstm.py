"""LSTM (Hochreiter and Schmidhuber 1997): the classical recurrent memory, as a baseline."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from mnemic.layers.heads import COUNTER_BYTES, accumulator_bytes, counts_of, full_precision
from mnemic.layers.layer import MemoryLayer
from mnemic.layers.options import LayerOptions
from mnemic.layers.state import LayerState


@dataclass(frozen=True, kw_only=True)
class LSTMOptions(LayerOptions):
    """`hidden`: units; `dim` unless given."""

    hidden: int | None = None

    @property
    def units(self) -> int:
        return self.hidden or self.dim

    def state_bytes(self, tokens: int, *, batch: int = 1, element_bytes: int = 4) -> int:
        return batch * (2 * self.units * accumulator_bytes(element_bytes) + COUNTER_BYTES)


@dataclass(frozen=True, kw_only=True)
class LSTMState(LayerState):
    """`hidden`, `cell` (batch, units), float32 or float64."""

    hidden: Tensor
    cell: Tensor


class LSTM(MemoryLayer[LSTMState]):
    """i, f, g, o = W x + U h + b; c = σ(f) c + σ(i) tanh(g); h = σ(o) tanh(c). State: 2 · units."""

    name = "lstm"
    Options = LSTMOptions
    State = LSTMState
    small: ClassVar[tuple[Mapping[str, Any], ...]] = ({}, {"hidden": 5})

    def __init__(self, options: LSTMOptions) -> None:
        super().__init__(options)
        self.units = options.units
        self.input = nn.Linear(options.dim, 4 * self.units)
        self.recurrent = nn.Linear(self.units, 4 * self.units, bias=False)
        self.out = nn.Linear(self.units, options.dim, bias=False)

    def init_state(
        self, batch: int, *, dtype: torch.dtype | None = None, device: torch.device | str | None = None
    ) -> LSTMState:
        dtype, device = self._place(dtype, device)
        zero = torch.zeros(batch, self.units, dtype=self.accumulator_dtype(dtype), device=device)
        seen = torch.zeros(batch, dtype=torch.int32, device=device)
        return LSTMState(spec=self.spec, seen=seen, hidden=zero, cell=zero.clone())

    def chunked(
        self, x: Tensor, state: LSTMState, valid: Tensor | None, positions: Tensor | None
    ) -> tuple[Tensor, LSTMState]:
        precise = state.cell.dtype
        with full_precision(x.device):
            bias = torch.zeros_like(self.input.bias)
            weights = [
                w.to(precise) for w in (self.input.weight, self.recurrent.weight, self.input.bias, bias)
            ]
            before = (state.hidden.unsqueeze(0), state.cell.unsqueeze(0))
            if valid is None:
                read, hidden, cell = torch.lstm(
                    x.to(precise), before, weights, True, 1, 0.0, self.training, False, True
                )
            else:
                lengths = counts_of(x, valid).clamp(min=1).cpu()  # rows of nothing are kept by the caller
                packed = pack_padded_sequence(x.to(precise), lengths, batch_first=True, enforce_sorted=False)
                order = packed.sorted_indices
                before = (before[0][:, order], before[1][:, order])
                data, hidden, cell = torch.lstm(
                    packed.data, packed.batch_sizes, before, weights, True, 1, 0.0, self.training, False
                )
                back = packed.unsorted_indices
                hidden, cell = hidden[:, back], cell[:, back]
                read, _ = pad_packed_sequence(
                    packed._replace(data=data), batch_first=True, total_length=x.shape[1]
                )
        after = LSTMState(spec=self.spec, seen=state.seen, hidden=hidden[0], cell=cell[0])
        return self.out(read.to(x.dtype)), after

    def definition(self, x: Tensor, state: LSTMState) -> tuple[Tensor, LSTMState]:
        precise = state.cell.dtype
        with full_precision(x.device):
            gates = nn.functional.linear(
                x.to(precise), self.input.weight.to(precise), self.input.bias.to(precise)
            ) + nn.functional.linear(state.hidden, self.recurrent.weight.to(precise))
            i, f, g, o = gates.chunk(4, -1)
            cell = f.sigmoid() * state.cell + i.sigmoid() * g.tanh()
            hidden = o.sigmoid() * cell.tanh()
        return self.out(hidden.to(x.dtype)), LSTMState(
            spec=self.spec, seen=state.seen, hidden=hidden, cell=cell
        )
