"""Product keys (Lample et al. 2019) and PEER (He 2024): n² sums of two sets of n scores, searched in O(n).

The best m of all sums a_i + b_j lie among the best m rows and the best m columns, so that m² candidates are
enough: exact, not approximate.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, linear, rms_norm

from mnemic.layers.heads import full_precision
from mnemic.layers.rows import MemoryRows, RowTable
from mnemic.layers.slots import (
    SlotMemory,
    SlotOptions,
    best_first,
    highest,
    require_finite_scores,
    require_table,
)

KEY_EPS = 1e-6


@dataclass(frozen=True, kw_only=True)
class ProductKeyOptions(SlotOptions):
    """`key_dim`: width of each half of a head's query, dim // 2 unless given. Each head reads `topm` slots.

    `expert`: "none", a slot is a value; "gelu" or "linear", a slot is a neuron (u, v) that gives
    act(u · x) v, as in PEER.
    """

    heads: int = 1
    key_dim: int | None = None
    expert: Literal["none", "gelu", "linear"] = "none"

    @property
    def key_size(self) -> int:
        return self.key_dim or max(self.dim // 2, 1)


class ProductKeys(SlotMemory):
    """o = Σ softmax(score)_s V_s over the topm slots of a head; score of slot (i, j) = q₁·k_i + q₂·k_j.

    Queries are normalised a half (RMS with a learned weight; the paper has batch norm). Keys are a head's,
    values are shared. O(heads · (keys · key_dim + topm² + topm · dim)) a token.
    """

    name = "product-keys"
    Options = ProductKeyOptions
    small: ClassVar[tuple[Mapping[str, Any], ...]] = (
        {"keys": 4, "topm": 3, "heads": 2, "sparse": False},
        {"keys": 3, "topm": 2, "key_dim": 5, "expert": "linear", "sparse": False},
    )

    def __init__(self, options: ProductKeyOptions, values: RowTable | None = None) -> None:
        super().__init__(options)
        self.options = options
        heads, key_dim = options.heads, options.key_size
        width = options.dim * (1 if options.expert == "none" else 2)
        self.query = nn.Linear(options.dim, heads * 2 * key_dim, bias=False)
        self.query_norm = nn.Parameter(torch.ones(key_dim))
        self.keys = nn.Parameter(torch.empty(heads, 2, options.keys, key_dim))
        own = MemoryRows(options.slots, width, sparse=options.sparse) if values is None else values
        self.values: RowTable = own
        require_table(own, options.slots, width)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Values N(0, 1/dim) as published, keys of unit length on average."""
        options = self.options
        nn.init.normal_(self.query.weight, std=options.dim**-0.5)
        nn.init.ones_(self.query_norm)
        nn.init.normal_(self.keys, std=options.key_size**-0.5)
        if isinstance(self.values, MemoryRows):
            self.values.reset_parameters(std=options.dim**-0.5)

    def reads_per_token(self) -> int:
        return self.options.heads * self.options.topm

    def lookup(self, x: Tensor) -> tuple[Tensor, Tensor]:
        flat = x.reshape(-1, self.dim)
        slots, scores = self._search(flat)
        shape = *x.shape[:-1], self.reads_per_token()
        return slots.view(shape), scores.softmax(-1).view(shape)

    def read(self, x: Tensor) -> Tensor:
        flat = x.reshape(-1, self.dim)
        with full_precision(x.device):
            slots, scores = self._search(flat)
            require_finite_scores(self.name, scores)
            weights = scores.softmax(-1).flatten(1)
            y = self._mix(flat.to(weights.dtype), weights, self.values.get(slots.flatten(1)))
        return y.to(x.dtype).view_as(x)

    def read_dense(self, x: Tensor) -> Tensor:
        with full_precision(x.device):
            halves = self._scores(x)
            dense = (halves[:, :, 0].unsqueeze(-1) + halves[:, :, 1].unsqueeze(-2)).flatten(2)
            chosen = torch.zeros_like(dense, dtype=torch.bool)
            chosen.scatter_(2, dense.topk(self.options.topm).indices, True)
            weights = dense.masked_fill(~chosen, -torch.inf).softmax(-1).sum(1)  # (tokens, slots)
            everything = self.values.get(torch.arange(self.options.slots, device=x.device))
            y = self._mix(x.to(weights.dtype), weights, everything.unsqueeze(0))
        return y.to(x.dtype)

    def _mix(self, x: Tensor, weights: Tensor, rows: Tensor) -> Tensor:
        """x (tokens, dim), weights (tokens, r), rows (tokens or 1, r, width) -> (tokens, dim)."""
        rows = rows.to(weights.dtype)
        if self.options.expert != "none":
            seen, rows = rows.chunk(2, -1)
            hidden = (seen @ x.unsqueeze(-1)).squeeze(-1)
            weights = weights * (gelu(hidden) if self.options.expert == "gelu" else hidden)
        return (weights.unsqueeze(-2) @ rows).squeeze(-2)

    def _search(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """x (tokens, dim) -> slots and scores, both (tokens, heads, topm), best first."""
        rows, columns = self._scores(x).unbind(2)
        return best_sums(rows, columns, self.options.topm)

    def _scores(self, x: Tensor) -> Tensor:
        """(tokens, heads, 2, keys), float32 or better."""
        precise = self.accumulator_dtype(x.dtype)
        with full_precision(x.device):
            q = linear(x.to(precise), self.query.weight.to(precise))
            q = q.unflatten(-1, (self.options.heads, 2, -1))
            q = rms_norm(q, (self.options.key_size,), self.query_norm.to(precise), KEY_EPS)
            return torch.einsum("thad,hand->than", q, self.keys.to(precise))


@dataclass(frozen=True, kw_only=True)
class PeerOptions(ProductKeyOptions):
    """As published: eight heads of sixteen neurons with GELU."""

    topm: int = 16
    heads: int = 8
    expert: Literal["none", "gelu", "linear"] = "gelu"


class Peer(ProductKeys):
    """o = Σ softmax(score)_s gelu(u_s · x) v_s: product keys choose neurons of one unit each (He 2024)."""

    name = "peer"
    Options = PeerOptions
    small: ClassVar[tuple[Mapping[str, Any], ...]] = ({"keys": 4, "topm": 2, "heads": 2, "sparse": False},)


def best_sums(rows: Tensor, columns: Tensor, m: int) -> tuple[Tensor, Tensor]:
    """rows, columns (…, n) -> the m best of all n² sums: indices i · n + j and sums, both (…, m).

    Best first. O(n + m²); exact.
    """
    n, i, j = rows.shape[-1], highest(rows, m), highest(columns, m)
    sums = (rows.gather(-1, i).unsqueeze(-1) + columns.gather(-1, j).unsqueeze(-2)).flatten(-2)
    best = highest(sums, m)
    slots = i.gather(-1, best // m) * n + j.gather(-1, best % m)
    sums = sums.gather(-1, best)
    return best_first(slots, sums, by=sums)
