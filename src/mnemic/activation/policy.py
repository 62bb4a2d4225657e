"""What a cache policy is: a frozen dataclass that looks at attention rows and says what to keep.

A policy holds options and no state: state belongs to the cache, one for each layer of each generation, so two
generations from one policy share nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from mnemic.cube.errors import InvalidOption


@dataclass(frozen=True, slots=True)
class Rows:
    """Which attention rows a policy asks for; each costs queries · stored tokens · query heads.

    prompt: every row of the first call; turn: of a later call of several tokens; step: of one token. They are
    shown in blocks of 64 and never held together. looked: as many of the last rows of a call as the policy
    looks at itself, by `layer.apart`.
    """

    prompt: bool = False
    turn: bool = False
    step: bool = False
    looked: int = 0

    NONE: ClassVar[Rows]
    ALL: ClassVar[Rows]

    @staticmethod
    def last(count: int) -> Rows:
        """The last `count` rows of a prompt, none in decoding."""
        return Rows(looked=count)


Rows.NONE = Rows()
Rows.ALL = Rows(prompt=True, turn=True, step=True)


@dataclass(frozen=True, slots=True)
class Keep:
    """The slots that stay: `index` (sum n_r,) ascending within a row; row r's are [splits[r],
    splits[r+1]).
    """

    index: Tensor
    row_splits: Tensor

    @classmethod
    def from_mask(cls, mask: Tensor) -> Keep:
        """mask: (B, H, S) bool, True stays."""
        flat = mask.flatten(0, 1)
        counts = flat.sum(1)
        splits = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
        return cls(flat.nonzero()[:, 1], splits)

    def owner(self) -> Tensor:
        """(sum n_r,) the row of every slot."""
        counts = self.row_splits.diff()
        return torch.arange(len(counts), device=counts.device).repeat_interleave(counts)

    def check(self, valid: Tensor) -> None:
        """Raise InvalidOption unless it names slots of `valid` (R, S), ascending, each once."""
        rows = len(self.row_splits) - 1
        if rows != len(valid) or int(self.row_splits[-1]) != len(self.index):
            raise InvalidOption(
                f"Keep names {rows} rows and {len(self.index)} slots; there are {len(valid)} rows"
            )
        owner = self.owner()
        falling = (self.index.diff() <= 0) & (owner.diff() == 0)
        if bool(falling.any()) or not bool(valid[owner, self.index].all()):
            raise InvalidOption("Keep must name stored slots in ascending order, each once")


@dataclass(slots=True)
class State:
    """A policy's memory of one layer. `slots`: (B, H, S), moved with the tokens; `heads`: (B, H, …)."""

    slots: dict[str, Tensor] = field(default_factory=dict)
    heads: dict[str, Tensor] = field(default_factory=dict)


class LayerView(Protocol):
    """What a policy may read of a layer; slots are those of the body, then the tail, padded to S.

    `slots` are the policy's own tensors, which it may write. B sequences, H rows each, G query heads a row.
    """

    layer_idx: int
    layers: int
    batch: int
    heads: int
    groups: int
    seen: int
    """T: tokens given so far, padding included"""
    prompt: int
    """tokens of the first call, padding included"""
    new: int
    """tokens of this call: the last slots"""
    step: int
    """tokens since the prompt, this call's included: 0 after the prompt"""
    forced: bool
    """the caller asked for a selection now: `PolicyCache.compress`"""
    head_state: dict[str, Tensor]

    @property
    def slots(self) -> dict[str, Tensor]:
        """(B, H, S) each, to be written in place; new slots come as zeros."""
        ...

    def positions(self) -> Tensor:
        """(B, H, S) int32"""
        ...

    def valid(self) -> Tensor:
        """(B, H, S) bool: a stored token of text"""
        ...

    def counts(self) -> Tensor:
        """(B, H) int64: valid slots"""
        ...

    def stored(self) -> int:
        """Slots of the fullest row, without a look at any tensor."""
        ...

    def prompt_tokens(self) -> Tensor:
        """(B,) int64: tokens of the prompt without padding"""
        ...

    def keys(self) -> Tensor:
        """(B, H, S, D), zeros where not valid"""
        ...

    def values(self) -> Tensor: ...

    def apart(self, count: int) -> Tensor:
        """(B, H, G, count, S) float32: this call's last rows, for each query head alone. Costs a matmul."""
        ...


class Policy(Protocol):
    """What a cache asks of a policy; `mnemic.activation.cache.policy_cache` makes the cache."""

    @property
    def needs(self) -> Rows: ...

    @property
    def aggregate(self) -> str:
        """How the rows of the query heads that share a KV head become one: "max" or "mean"."""
        ...

    @property
    def headroom(self) -> int:
        """Tokens that come between two selections: the tail is made for so many."""
        ...

    @property
    def evicts(self) -> bool: ...

    @property
    def retains(self) -> int:
        """Queries of the last call that stay, so that `PolicyCache.compress` may look at them."""
        ...

    def init_state(self, layer: LayerView) -> State: ...

    def observe(self, layer: LayerView, rows: Tensor | None, first: int) -> None:
        """rows: (B, H, q, S) float32, padding zero, of queries [first, first + q) of this call, or None."""
        ...

    def select(self, layer: LayerView) -> Keep | None:
        """What stays, or None for everything; after each call, one layer at a time."""
        ...


def require_aggregate(aggregate: str) -> None:
    if aggregate not in ("max", "mean"):
        raise InvalidOption(f'aggregate must be "max" or "mean", got {aggregate!r:.80}')


def require_budget(budget: int | float, *, window: int | None = None) -> None:
    """A number of tokens, or a share in (0, 1] of the prompt's."""
    if isinstance(budget, bool) or not isinstance(budget, int | float):
        raise InvalidOption(
            f"budget must be tokens (int) or a share of the prompt (float), got {budget!r:.80}"
        )
    if isinstance(budget, float) and not 0 < budget <= 1:
        raise InvalidOption(f"budget as a share of the prompt must lie in (0, 1], got {budget!r:.80}")
    if isinstance(budget, int) and budget < 1:
        raise InvalidOption(f"budget must be at least one token, got {budget!r:.80}")
    if window is not None and isinstance(budget, int) and budget <= window:
        raise InvalidOption(
            f"budget={budget} must be larger than window={window}: the newest {window} tokens always stay. "
            f"Use a budget of {window + 1} or more, or a smaller window"
        )
