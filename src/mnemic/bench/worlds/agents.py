"""A small agent with a memory of any layer, taught by an expert or by reward. Needs torch.

What is watched is read in one forward, as actions do nothing there; the choice is walked step by step on the
carried state.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from mnemic.bench.kept import Record
from mnemic.bench.worlds.ballet import FEATURES, MOVES, Ballet
from mnemic.layers.layer import MemoryLayer, Writable
from mnemic.layers.state import LayerState
from mnemic.layers.table import make

WIDTH, BATCH, RATE = 64, 64, 2e-3
PATIENCE: Final = 8  # steps of the choice that an agent may take: the way is three
WAY: Final = 3
TESTED: Final = 512
DISCOUNT, OF_VALUE, OF_ENTROPY = 0.95, 0.5, 0.02
Entry = tuple[str, Mapping[str, Any]]
CONV: Final[Entry] = ("base-conv", {"kernel": 3})
ARMS: Final[Mapping[str, tuple[Entry, ...]]] = {
    "HCAM": (CONV, ("hcam", {"heads": 2, "chunk": 32})),
    "HCAM, no convolution": (("hcam", {"heads": 2, "chunk": 32}),),
    "flat attention": (CONV, ("attention", {"heads": 2})),
    "LSTM": (CONV, ("lstm", {})),
    "no memory": (CONV,),
}
"""Layers of each arm. The convolution sees three steps, so that moves in a row can be told apart; the chunk
is a dance and the delay of 16 after it."""


class Choice(NamedTuple):
    """`actions` (batch, 8) logits, `value` (batch,), the state of every layer after."""

    actions: Tensor
    value: Tensor
    states: list[LayerState]


class Agent(nn.Module):
    """Layers behind norms on residuals, an MLP, two heads. The last layer only writes what is watched."""

    def __init__(self, layers: Sequence[Entry]) -> None:
        super().__init__()
        self.embed = nn.Linear(FEATURES, WIDTH)
        self.layers = nn.ModuleList(make(name, dim=WIDTH, **options) for name, options in layers)
        self.norms = nn.ModuleList(nn.RMSNorm(WIDTH) for _ in layers)
        self.mlp = nn.Sequential(
            nn.RMSNorm(WIDTH), nn.Linear(WIDTH, 4 * WIDTH), nn.GELU(), nn.Linear(4 * WIDTH, WIDTH)
        )
        self.act, self.value = nn.Linear(WIDTH, MOVES), nn.Linear(WIDTH, 1)

    def mixers(self) -> list[MemoryLayer[Any]]:
        """The layers, as what they are."""
        return [layer for layer in self.layers if isinstance(layer, MemoryLayer)]

    def watch(self, seen: Tensor) -> list[LayerState]:
        """seen (batch, time, FEATURES): the states after it."""
        x, states = self.embed(seen), []
        for n, (layer, norm) in enumerate(zip(self.mixers(), self.norms, strict=True)):
            if n == len(self.layers) - 1 and isinstance(layer, Writable):
                states.append(layer.write(layer.init_state(seen.shape[0]), norm(x)))
            else:
                y, state = layer(norm(x))
                x = x + y
                states.append(state)
        return states

    def choose(self, seen: Tensor, states: Sequence[LayerState]) -> Choice:
        """seen (batch, FEATURES): one step."""
        x, after = self.embed(seen), []
        for layer, norm, state in zip(self.mixers(), self.norms, states, strict=True):
            y, state = layer.step(norm(x), state)
            x = x + y
            after.append(state)
        x = x + self.mlp(x)
        return Choice(self.act(x), self.value(x).squeeze(-1), after)


class Step(NamedTuple):
    """One step of a batch of episodes, (batch,) each but `logits`; `active` where the episode went on."""

    logits: Tensor
    value: Tensor
    action: Tensor
    reward: Tensor
    active: Tensor


def episodes(rows: int, dancers: int, delay: int, draws: np.random.Generator) -> list[Ballet]:
    return [Ballet(dancers=dancers, delay=delay, draws=draws) for _ in range(rows)]


def walk(agent: Agent, played: Sequence[Ballet], draws: torch.Generator | None = None) -> list[Step]:
    """Watch, then choose until all are at an end or out of patience; the likeliest action, or one drawn."""
    states = agent.watch(_stacked([one.watched() for one in played]))
    active = torch.ones(len(played), dtype=torch.bool)
    steps: list[Step] = []
    while bool(active.any()) and len(steps) < PATIENCE:
        said = agent.choose(_stacked([one.symbolic() for one in played]), states)
        states, logits = said.states, said.actions
        action = logits.argmax(-1)
        if draws is not None:
            action = torch.multinomial(logits.detach().softmax(-1), 1, generator=draws).squeeze(1)
        rewards = [
            0.0 if one.done else one.act(way) for one, way in zip(played, action.tolist(), strict=True)
        ]
        steps.append(Step(logits, said.value, action, torch.tensor(rewards), active))
        active = torch.tensor([not one.done for one in played])
    return steps


def imitation_loss(agent: Agent, played: Sequence[Ballet]) -> Tensor:
    """Cross-entropy with the expert's actions along the expert's way."""
    states, losses = agent.watch(_stacked([one.watched() for one in played])), []
    for _ in range(WAY):
        said = agent.choose(_stacked([one.symbolic() for one in played]), states)
        states, right = said.states, [one.right_action() for one in played]
        losses.append(cross_entropy(said.actions, torch.tensor(right)))
        for one, action in zip(played, right, strict=True):
            one.act(action)
    return torch.stack(losses).mean()


def actor_critic_loss(agent: Agent, played: Sequence[Ballet], draws: torch.Generator) -> Tensor:
    """Advantage actor-critic (Mnih et al. 2016, §4) on drawn walks, over their whole, short length."""
    steps = walk(agent, played, draws)
    following, total = torch.zeros(len(played)), torch.zeros(())
    for step in reversed(steps):
        following = step.reward + DISCOUNT * following
        ahead = following - step.value
        logs = step.logits.log_softmax(-1)
        chosen = logs.gather(1, step.action.unsqueeze(1)).squeeze(1)
        entropy = -(logs.exp() * logs).sum(-1)
        loss = -chosen * ahead.detach() + OF_VALUE * ahead.square() - OF_ENTROPY * entropy
        total = total + (loss * step.active).sum()
    return total / len(played)


@torch.no_grad()
def success(agent: Agent, dancers: int, delay: int, rows: int | None = None) -> dict[str, float]:
    """Share of unseen episodes that end at the right dancer, and at any."""
    draws, right, reached = np.random.default_rng(1_000_000), 0.0, 0
    rows = rows or TESTED
    for start in range(0, rows, 128):
        played = episodes(min(128, rows - start), dancers, delay, draws)
        right += sum(float(step.reward.sum()) for step in walk(agent, played))
        reached += sum(one.done for one in played)
    return {"success": right / rows, "reached": reached / rows}


def train(arm: str, how: str, dancers: int, seed: int, steps: int, *, delay: int = 16) -> Record:
    """AdamW 2e-3 in one cycle, batches of 64 fresh episodes; `how`: "imitation" or "reward"."""
    torch.manual_seed(seed)
    agent, draws, chance = Agent(ARMS[arm]), np.random.default_rng(seed), torch.Generator().manual_seed(seed)
    optimiser = torch.optim.AdamW(agent.parameters(), lr=RATE, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=RATE, total_steps=steps)
    begun, curve = time.process_time(), {}
    for step in range(1, steps + 1):
        played = episodes(BATCH, dancers, delay, draws)
        loss = (
            imitation_loss(agent, played) if how == "imitation" else actor_critic_loss(agent, played, chance)
        )
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(agent.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        if step % max(steps // 4, 1) == 0:
            curve[str(step)] = success(agent, dancers, delay, 128)["success"]
    return {
        "arm": arm,
        "how": how,
        "dancers": dancers,
        "delay": delay,
        "seed": seed,
        "steps": steps,
        **success(agent, dancers, delay),
        "curve": curve,
        "parameters": sum(p.numel() for p in agent.parameters()),
        "cpu_s": round(time.process_time() - begun, 1),
    }


def _stacked(parts: Sequence[Any]) -> Tensor:
    return torch.from_numpy(np.stack(parts))
