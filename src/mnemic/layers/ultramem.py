"""UltraMemV2 (Huang et al. 2025): a large table beside every MLP, addressed by a bilinear score of two keys.

The score of slot (i, j) is a_iᵀ C b_j, a_i and b_j the scores of r row keys and r column keys, C learned
(Tucker). Searching it exactly costs n²; the best rows and columns along C's leading singular vectors cost n.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, rms_norm

from mnemic.cube.errors import InvalidOption
from mnemic.layers.heads import full_precision
from mnemic.layers.options import option, require_divisible
from mnemic.layers.rows import MemoryRows, RowTable
from mnemic.layers.slots import (
    SlotMemory,
    SlotOptions,
    best_first,
    highest,
    require_finite_scores,
    require_table,
)

KEY_EPS: Final = 1e-6
MOST_CANDIDATES: Final = 128  # of an axis, however many slots are read (§hyper-parameters)
GAIN: Final = 0.4  # variance of a linear map of a unit-variance input: weights of std √(2 / (5 dim))
SAMPLES: Final = 1024  # inputs by which the scale of the scores is measured at the beginning


@dataclass(frozen=True, kw_only=True)
class UltraMemOptions(SlotOptions):
    """Widths unless given: `key_dim` dim / 2, `pre_dim` dim / 8, `value_dim` 3 dim / 8 (a row is both).

    `pre_dim` 0: plain values instead of neurons of one unit. `rank` r of the core; `cores` 2 weigh the two
    halves of a value by scores of their own. `expand`: that many times as many keys an axis, virtual slots
    mapped to the same table. `blocks` and `mlp_ratio` describe the model around it, for its initialisation.
    """

    key_dim: int | None = None
    pre_dim: int | None = option(None, low=0)
    value_dim: int | None = None
    rank: int = 2
    cores: int = option(1, high=2)
    expand: int = 1
    blocks: int = option(1, meaning=False)
    mlp_ratio: float = option(3.0, low=1e-3, meaning=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.topm > self.candidates**2:
            raise InvalidOption(f"topm must be at most {self.candidates**2}, got {self.topm}")
        require_divisible(value_dim=self.value_size, cores=self.cores)

    @property
    def key_size(self) -> int:
        return self.key_dim or max(self.dim // 2, 1)

    @property
    def pre_size(self) -> int:
        return max(self.dim // 8, 1) if self.pre_dim is None else self.pre_dim

    @property
    def value_size(self) -> int:
        return self.value_dim or max(3 * self.dim // 8 // 2 * 2, 2)

    @property
    def axis(self) -> int:
        return self.keys * self.expand

    @property
    def candidates(self) -> int:
        return min(self.topm, MOST_CANDIDATES)

    def value_deviation(self, score_deviation: float) -> float:
        """Standard deviation of rows for which the memory begins with the variance of the MLP (appendix).

        Scores have mean 1 and this deviation. The MLP's variance is 0.064 · mlp_ratio / (2 · blocks). Values
        and pre-values both carry the deviation, so it is a fourth root; of plain values a square root.
        """
        mlp = 0.064 * self.mlp_ratio / (2 * self.blocks)
        read = self.topm * (1 + score_deviation**2) * GAIN * self.value_size / self.dim
        return float((mlp / (read * GAIN * self.pre_size)) ** 0.25 if self.pre_size else (mlp / read) ** 0.5)


class UltraMem(SlotMemory):
    """y = Wₒ Σ g_s (p_s · W_p x) v_s over the topm slots, g_s = a_iᵀ C b_j their scores as they are.

    No softmax and no activation: choosing is the nonlinearity. Queries and keys are RMS-normalised. A row of
    the table is [p_s | v_s], so one read brings both. O(2 rank · keys · key_dim + candidates² rank² + topm ·
    row) a token.

    Candidates are the best rows and columns along the leading singular vectors u, v of C. A product of two
    scores that are negative along them is large as well and is left out, by design: half of the best slots of
    all n² with random keys. u and v keep the sign nearest to the last one (`direction`, moved in training).
    """

    name = "ultramem"
    Options = UltraMemOptions
    small: ClassVar[tuple[Mapping[str, Any], ...]] = (
        {"keys": 4, "topm": 3, "sparse": False},
        {"keys": 3, "topm": 2, "pre_dim": 0, "value_dim": 5, "rank": 1, "sparse": False},
        {"keys": 4, "topm": 4, "cores": 2, "expand": 2, "rank": 3, "sparse": False},
    )
    slot_of: Tensor
    direction: Tensor

    def __init__(self, options: UltraMemOptions, values: RowTable | None = None) -> None:
        """`values`: a table to read instead of one of its own, as (slots, pre_dim + value_dim)."""
        super().__init__(options)
        self.options = options
        rank, key_dim, width = options.rank, options.key_size, options.pre_size + options.value_size
        self.query = nn.Linear(options.dim, 2 * rank * key_dim, bias=False)
        self.query_norm = nn.Parameter(torch.ones(key_dim))
        self.keys = nn.Parameter(torch.empty(2, rank, options.axis, key_dim))
        self.key_norm = nn.Parameter(torch.ones(key_dim))
        self.core = nn.Parameter(torch.empty(options.cores, rank, rank))
        self.pre = nn.Linear(options.dim, options.pre_size, bias=False) if options.pre_size else None
        self.out = nn.Linear(options.value_size, options.dim, bias=False)
        own = MemoryRows(options.slots, width, sparse=options.sparse) if values is None else values
        require_table(own, options.slots, width)
        self.values: RowTable = own
        shuffled = torch.randperm(
            options.axis**2, generator=torch.Generator().manual_seed(0), device="cpu", dtype=torch.int64
        )
        self.register_buffer("slot_of", (shuffled % options.slots).int())  # no topology of rows and columns
        self.register_buffer("direction", torch.zeros(2, rank))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Scores of mean 1 and an output of the MLP's variance, for inputs of unit variance. Deterministic
        but for the weights it draws; measures the scores of 1,024 random inputs."""
        small = (GAIN / self.options.dim) ** 0.5
        for part in (self.query, self.pre, self.out):
            if part is not None:
                nn.init.normal_(part.weight, std=small)
        nn.init.normal_(self.keys)  # their length is the norm's
        nn.init.uniform_(self.core, 0.0, 1.0)
        nn.init.ones_(self.query_norm)
        nn.init.ones_(self.key_norm)
        if self.keys.is_meta:
            return
        with torch.no_grad():
            self.direction.copy_(torch.stack(self._leading(torch.ones_like(self.direction))))
            mean, deviation = self.score_statistics()
        scale = max(abs(mean), 1e-12) ** -0.25  # a score has two norms in each of its two factors
        nn.init.constant_(self.query_norm, scale)
        nn.init.constant_(self.key_norm, scale)
        if isinstance(self.values, MemoryRows):
            self.values.reset_parameters(std=self.options.value_deviation(deviation / abs(mean)))

    @torch.no_grad()
    def score_statistics(self, samples: int = SAMPLES) -> tuple[float, float]:
        """Mean and standard deviation of the chosen scores over random inputs of unit variance."""
        draws = torch.randn(samples, self.dim, generator=torch.Generator().manual_seed(0), device="cpu")
        _, scores = self._search(draws.to(self.keys))
        chosen = scores.sum(1)
        return float(chosen.mean()), float(chosen.std())

    def reads_per_token(self) -> int:
        return self.options.topm

    def lookup(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """With two cores the weights are the sums by which slots are chosen."""
        virtual, scores = self._search(x.reshape(-1, self.dim))
        weights, shape = scores.sum(1), (*x.shape[:-1], self.options.topm)
        slots, weights = best_first(self.slot_of[virtual].long(), weights, by=weights)
        return slots.view(shape), weights.view(shape)

    def read(self, x: Tensor) -> Tensor:
        flat = x.reshape(-1, self.dim)
        with full_precision(x.device):
            virtual, scores = self._search(flat)
            require_finite_scores(self.name, scores)
            rows = self.values.get(self.slot_of[virtual].long()).to(scores.dtype)
            pre, value = rows.split([self.options.pre_size, self.options.value_size], -1)
            weights = scores.mT  # (tokens, topm, cores)
            if self.pre is not None:
                asked = self._pre(flat, scores.dtype).unsqueeze(1)
                weights = weights * (pre * asked).sum(-1, keepdim=True)
            # products and sums: thousands of matrix products of one row each are slower, backward above all
            y = (weights.unsqueeze(-1) * value.unflatten(-1, (self.options.cores, -1))).sum(1).flatten(1)
        out: Tensor = self.out(y.to(x.dtype))
        return out.view(*x.shape[:-1], self.dim)

    def read_dense(self, x: Tensor) -> Tensor:
        """Every slot scored, candidates and choice as masks, one sum over the whole (virtual) table."""
        options = self.options
        with full_precision(x.device):
            rows, columns = self._axis_scores(x)
            dense = torch.einsum("tai,kab,tbj->tkij", rows, self.core.to(rows), columns)
            allowed = torch.ones_like(dense[:, 0], dtype=torch.bool)
            for axis, scores, leading in ((1, rows, 0), (2, columns, 1)):
                along = torch.einsum("r,trn->tn", self._directions()[leading], scores)
                kept = torch.zeros_like(along, dtype=torch.bool)
                kept.scatter_(1, along.topk(options.candidates).indices, True)
                allowed &= kept.unsqueeze(3 - axis)
            total = dense.sum(1).masked_fill(~allowed, -torch.inf).flatten(1)
            chosen = torch.zeros_like(total).scatter(1, total.topk(options.topm).indices, 1.0)
            weights = dense.flatten(2) * chosen.unsqueeze(1)
            table = self.values.get(self.slot_of.long()).to(weights.dtype)
            pre, value = table.split([options.pre_size, options.value_size], -1)
            if self.pre is not None:
                weights = weights * (self._pre(x, weights.dtype) @ pre.T).unsqueeze(1)
            value = value.unflatten(-1, (options.cores, -1))
            y = torch.einsum("tks,skd->tkd", weights, value).flatten(1)
        out: Tensor = self.out(y.to(x.dtype))
        return out

    def _pre(self, x: Tensor, precise: torch.dtype) -> Tensor:
        assert self.pre is not None  # noqa: S101
        return linear(x.to(precise), self.pre.weight.to(precise))

    def _search(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """x (tokens, dim) -> virtual slots (tokens, topm) and scores (tokens, cores, topm), in no order."""
        options = self.options
        with full_precision(x.device):
            rows, columns = self._axis_scores(x)
            u, v = self._directions()
            near_u, near_v = u @ rows.detach(), v @ columns.detach()  # (tokens, axis)
            i, j = highest(near_u, options.candidates), highest(near_v, options.candidates)
            a, b = (
                scores.gather(-1, index.unsqueeze(1).expand(-1, options.rank, -1))
                for scores, index in ((rows, i), (columns, j))
            )
            left = torch.einsum("tai,kab->tkib", a, self.core.to(a))
            grid = (left @ b.unsqueeze(1)).flatten(2)  # (tokens, cores, candidates²)
            best = highest(grid.detach().sum(1), options.topm)
            virtual = i.gather(1, best // options.candidates) * options.axis
            virtual = virtual + j.gather(1, best % options.candidates)
            return virtual, grid.gather(2, best.unsqueeze(1).expand(-1, options.cores, -1))

    def _axis_scores(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Of rows and of columns, each (tokens, rank, axis), float32 or better."""
        options = self.options
        precise = self.accumulator_dtype(x.dtype)
        q = linear(x.to(precise), self.query.weight.to(precise)).unflatten(-1, (2, options.rank, -1))
        q = rms_norm(q, (options.key_size,), self.query_norm.to(precise), KEY_EPS)
        k = rms_norm(self.keys.to(precise), (options.key_size,), self.key_norm.to(precise), KEY_EPS)
        rows, columns = torch.einsum("tcrd,crnd->tcrn", q, k).unbind(1)
        return rows, columns

    @torch.no_grad()
    def _directions(self) -> tuple[Tensor, Tensor]:
        """u, v of the core's leading singular value, with the sign nearest to the last one's."""
        u, v = self._leading(self.direction)
        if self.training:
            self.direction.copy_(torch.stack((u, v)))
        return u, v

    @torch.no_grad()
    def _leading(self, near: Tensor) -> tuple[Tensor, Tensor]:
        core = self.core.sum(0).to(self.accumulator_dtype(self.core.dtype))
        require_finite_scores(self.name, core)
        u, _, vt = torch.linalg.svd(core)
        u, v = u[:, 0], vt[0]
        same = (u @ near[0].to(u) + v @ near[1].to(u)) >= 0  # (u, v) and (-u, -v) are one pair
        sign = torch.where(same, 1.0, -1.0).to(u)
        return sign * u, sign * v
