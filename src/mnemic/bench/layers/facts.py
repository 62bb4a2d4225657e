"""Fact capacity: how many random facts a small model holds after some steps, and what an edit of few damages.

A fact is (entity, relation) -> value at random: nothing to generalise from, so that accuracy on the facts
that were trained is what the memory holds (experiments 3 and 4 of UltraMemV2's specification).
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from mnemic.layers.rows import MemoryRows
from mnemic.layers.slots import SlotMemory, SlotUsage, specific_slots, usage_of
from mnemic.layers.table import make
from mnemic.training.row_adam import RowAdam

ENTITIES, RELATIONS, VALUES = 1000, 8, 128
EMBEDDED, WIDTH, BATCH, RATE, ROWS_RATE = 16, 64, 512, 2e-3, 4.0
STEPS: Final = 900
CHANGED, UNTOUCHED, EDIT_STEPS, EDIT_SHARE, LEARNED = 50, 2000, 60, 0.05, 0.9
SPARSE, FULL = "most specific 5 % of slots", "all parameters"
EDIT_RATES: Final = {
    True: [(SPARSE, rate) for rate in (2e-3, 5e-3, 1e-2, 2e-2)],
    False: [(FULL, rate) for rate in (1e-4, 2e-4, 5e-4, 1e-3)],
}
TABLE: Final = {"keys": 64, "topm": 16, "key_dim": 16}
ARMS: Final[Mapping[str, tuple[int, Mapping[str, Any] | None]]] = {
    "MLP 224": (224, None),
    "MLP 96": (96, None),
    "MLP 96 + UltraMemV2": (96, {"layer": "ultramem", **TABLE, "pre_dim": 24, "value_dim": 24}),
    "MLP 96 + plain values": (96, {"layer": "ultramem", **TABLE, "pre_dim": 0, "value_dim": 48}),
    "MLP 96 + product keys": (96, {"layer": "product-keys", **TABLE}),
    "MLP 96 + PEER": (96, {"layer": "peer", "keys": 45, "topm": 4, "heads": 4, "key_dim": 16}),
}
DENSE, ULTRAMEM, PLAIN = "MLP 224", "MLP 96 + UltraMemV2", "MLP 96 + plain values"
Step = Callable[[str, str], None]


@dataclass(frozen=True)
class Held:
    """Accuracy on all facts by step; `used` share of slots read by them; bytes of the table a fact reads."""

    arm: str
    seed: int
    accuracy: dict[str, float]
    total: int
    active: int
    used: float | None
    evenness: float | None
    bytes_per_fact: int
    cpu_s: float


@dataclass(frozen=True)
class Edited:
    """After learning changed facts: accuracy on them, and on others before and after."""

    arm: str
    seed: int
    rate: float
    moved: int
    new: float
    before: float
    after: float

    @property
    def damage(self) -> float:
        return self.before - self.after


class Reader(nn.Module):
    """Embeddings of entity and relation, one residual block, a linear read-out."""

    def __init__(self, hidden: int, memory: Mapping[str, Any] | None) -> None:
        super().__init__()
        self.entity, self.relation = nn.Embedding(ENTITIES, EMBEDDED), nn.Embedding(RELATIONS, EMBEDDED)
        self.enter = nn.Linear(2 * EMBEDDED, WIDTH)
        self.norm = nn.LayerNorm(WIDTH)
        self.mlp = nn.Sequential(nn.Linear(WIDTH, hidden), nn.GELU(), nn.Linear(hidden, WIDTH))
        self.memory: SlotMemory | None = None
        if memory is not None:
            options = dict(memory)
            if options["layer"] == "ultramem":
                options["mlp_ratio"] = hidden / WIDTH
            made = make(options.pop("layer"), dim=WIDTH, **options)
            assert isinstance(made, SlotMemory)  # noqa: S101
            self.memory = made
        self.leave = nn.Linear(WIDTH, VALUES)

    def inside(self, facts: Tensor) -> tuple[Tensor, Tensor]:
        """facts int (n, 2) -> the residual stream and what the block reads, both (n, WIDTH)."""
        x = self.enter(torch.cat([self.entity(facts[:, 0]), self.relation(facts[:, 1])], 1))
        return x, self.norm(x)

    def forward(self, facts: Tensor) -> Tensor:
        x, read = self.inside(facts)
        y = x + self.mlp(read)
        logits: Tensor = self.leave(y if self.memory is None else y + self.memory.read(read))
        return logits

    def rows(self) -> list[Tensor]:
        """The table, if there is one."""
        values = None if self.memory is None else self.memory.values
        return [values.weight] if isinstance(values, MemoryRows) else []


def facts(seed: int) -> tuple[Tensor, Tensor]:
    """(8000, 2) entities and relations, and a value for each."""
    every = torch.cartesian_prod(torch.arange(ENTITIES), torch.arange(RELATIONS))
    values = torch.randint(VALUES, (every.shape[0],), generator=torch.Generator().manual_seed(seed))
    return every, values


def learn(arm: str, seed: int, steps: int = STEPS) -> tuple[Reader, Held]:
    """Adam 2e-3, tables four times that, batches of 512 facts."""
    torch.manual_seed(seed)
    hidden, memory = ARMS[arm]
    model, (every, values) = Reader(hidden, memory), facts(seed)
    optimisers = _optimisers(model, RATE)
    draws, accuracy, clock = torch.Generator().manual_seed(1_000 + seed), {}, time.process_time()
    for step in range(1, steps + 1):
        chosen = torch.randint(every.shape[0], (BATCH,), generator=draws)
        _move(model, optimisers, every[chosen], values[chosen])
        if step % max(steps // 3, 1) == 0:
            accuracy[str(step)] = right(model, every, values)
    seconds, usage = time.process_time() - clock, usage_by(model, every)
    idle = 0 if model.memory is None else model.memory.idle_parameters()
    total = sum(p.numel() for p in model.parameters())
    read = _embedded_idle()
    return model, Held(
        arm=arm, seed=seed, accuracy=accuracy, total=total, active=total - idle - read,
        used=None if usage is None else usage.share, evenness=None if usage is None else usage.evenness,
        bytes_per_fact=0 if model.memory is None else model.memory.bytes_per_token(),
        cpu_s=round(seconds, 1),
    )  # fmt: skip


def edit(model: Reader, seed: int, *, sparse: bool) -> Edited:
    """Change 50 facts; train all parameters, or the rows of the 5 % most specific slots alone.

    Both take the same steps, each at that of `EDIT_RATES` which damages least while nine of ten changed facts
    are learned. The model is left as it was.
    """
    found = [_edit(model, seed, rate) for rate in EDIT_RATES[sparse]]
    learned = [one for one in found if one.new >= LEARNED] or found
    return min(learned, key=lambda one: one.damage)


def _edit(model: Reader, seed: int, rate: tuple[str, float]) -> Edited:
    before_edit = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    every, values = facts(seed)
    order = torch.randperm(every.shape[0], generator=torch.Generator().manual_seed(2_000 + seed))
    changed, others = order[:CHANGED], order[CHANGED : CHANGED + UNTOUCHED]
    new = (values[changed] + 1 + changed % (VALUES - 1)) % VALUES  # never the old one
    before = right(model, every[others], values[others])
    arm, step = rate
    if arm == SPARSE:
        slots = _specific(model, every, changed, order[CHANGED:])
        optimisers: list[torch.optim.Optimizer] = [RowAdam(model.rows(), lr=step, only=slots)]
        moved = slots.numel() * model.rows()[0].shape[1]
    else:
        optimisers = _optimisers(model, step)
        moved = sum(p.numel() for p in model.parameters())
    for _ in range(EDIT_STEPS):
        _move(model, optimisers, every[changed], new)
    found = Edited(
        arm=arm, seed=seed, rate=step, moved=moved, new=right(model, every[changed], new), before=before,
        after=right(model, every[others], values[others]),
    )  # fmt: skip
    model.load_state_dict(before_edit)
    return found


@torch.no_grad()
def right(model: Reader, asked: Tensor, values: Tensor) -> float:
    """Share answered right."""
    return float((model(asked).argmax(1) == values).float().mean())


@torch.no_grad()
def usage_by(model: Reader, asked: Tensor) -> SlotUsage | None:
    """How these facts use the table; None without one."""
    return None if model.memory is None else usage_of(model.memory.slot_usage(model.inside(asked)[1]))


def _specific(model: Reader, every: Tensor, changed: Tensor, others: Tensor) -> Tensor:
    memory = model.memory
    assert memory is not None  # noqa: S101
    with torch.no_grad():
        counts = memory.slot_usage(model.inside(every[changed])[1])
        batches = others.split(CHANGED)
        background = torch.stack([memory.slot_usage(model.inside(every[one])[1]) for one in batches])
    return specific_slots(counts, background, share=EDIT_SHARE)


def _optimisers(model: Reader, rate: float) -> list[torch.optim.Optimizer]:
    table = model.rows()
    held = {id(one) for one in table}
    rest = [p for p in model.parameters() if id(p) not in held]
    found: list[torch.optim.Optimizer] = [torch.optim.Adam(rest, lr=rate)]
    return [*found, RowAdam(table, lr=ROWS_RATE * rate)] if table else found


def _move(model: Reader, optimisers: Sequence[torch.optim.Optimizer], asked: Tensor, values: Tensor) -> None:
    model.zero_grad(set_to_none=True)
    cross_entropy(model(asked), values).backward()
    for optimiser in optimisers:
        optimiser.step()


def _embedded_idle() -> int:
    """Parameters of the embeddings that one fact does not read."""
    return (ENTITIES + RELATIONS - 2) * EMBEDDED


def measure(
    arms: Sequence[str], seeds: int, path: Path, *, steps: int = STEPS, report: Step = lambda *_: None
) -> dict[str, Any]:
    """Every arm and seed, and the edits of the UltraMemV2 arm; kept in `path` as soon as each ends."""
    kept: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    for seed, arm in _planned(arms, seeds):
        key = f"{arm}/{steps}/{seed}"
        if key not in kept:
            model, held = learn(arm, seed, steps)
            kept[key] = asdict(held)
            if arm == ULTRAMEM:
                for sparse in (True, False):
                    edited = edit(model, seed, sparse=sparse)
                    kept[f"edit {edited.arm}/{steps}/{seed}"] = asdict(edited)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(kept, indent=1) + "\n")
        report(f"{arm}, seed {seed}", f"{list(kept[key]['accuracy'].values())[-1]:.3f}")
    return kept


def _planned(arms: Sequence[str], seeds: int) -> Iterator[tuple[int, str]]:
    return ((seed, arm) for seed in range(seeds) for arm in arms)
