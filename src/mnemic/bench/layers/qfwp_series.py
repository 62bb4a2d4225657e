"""Series to forecast with fast weights in a circuit, all generated, and what they must beat. Needs torch."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mnemic.bench.kept import Record
from mnemic.layers.qfwp import QFWPOptions, QuantumFastWeightMemory

Array = NDArray[np.float64]
WINDOW, TRAIN_SHARE, BATCH, RATE = 4, 0.67, 10, 0.01


@dataclass(frozen=True, kw_only=True)
class Series:
    """Windows and what follows: `draw(seed)` gives x (windows, WINDOW) and y (windows,). `seeds` at most."""

    about: str
    epochs: int
    seeds: int
    draw: Callable[[int], tuple[Array, Array]]


def damped_pendulum(samples: int = 240, *, damping: float = 0.15, gravity: float = 9.81) -> Array:
    """Velocity of θ'' = -b θ' - g sin θ from θ = 0, θ' = 3, on [0, 20]; Runge-Kutta, 50 steps a sample."""

    def slope(at: Array) -> Array:
        return np.array([at[1], -damping * at[1] - gravity * math.sin(at[0])])

    at, step, found = np.array([0.0, 3.0]), 20 / (samples - 1) / 50, [3.0]
    for n in range(1, 50 * (samples - 1) + 1):
        a = slope(at)
        b = slope(at + step / 2 * a)
        c = slope(at + step / 2 * b)
        at = at + step / 6 * (a + 2 * b + 2 * c + slope(at + step * c))
        if n % 50 == 0:
            found.append(float(at[1]))
    return np.array(found)


def bessel(samples: int = 240, order: int = 2) -> Array:
    """J_order on a uniform grid on [0, 20]: (1/π) ∫ cos(order τ - x sin τ) dτ over [0, π]."""
    tau = (np.arange(512) + 0.5) * np.pi / 512
    x = np.linspace(0, 20, samples)[:, None]
    values: Array = np.cos(order * tau - x * np.sin(tau)).mean(1)
    return values


def narma(order: int, seed: int, samples: int = 240) -> Array:
    """y_{t+1} = 0.3 y_t + 0.05 y_t Σ y + 1.5 u_{t-n+1} u_t + 0.1 over the last n, u uniform on [0, 0.5]."""
    u, y = np.random.default_rng(seed).uniform(0, 0.5, samples + order), np.zeros(samples + order)
    for t in range(order - 1, samples + order - 1):
        past = y[t - order + 1 : t + 1].sum()
        y[t + 1] = 0.3 * y[t] + 0.05 * y[t] * past + 1.5 * u[t - order + 1] * u[t] + 0.1
    return y[order:]


def windowed(values: Array) -> tuple[Array, Array]:
    """Scaled to [-1, 1] over all of it, as published, then every window of 4 and the value after it."""
    scaled = 2 * (values - values.min()) / (values.max() - values.min()) - 1
    count = len(scaled) - WINDOW - 1
    x = np.stack([scaled[i : i + WINDOW] for i in range(count)])
    return x, scaled[WINDOW : WINDOW + count]


def noise(seed: int, *, weights: tuple[float, ...], windows: int = 400) -> tuple[Array, Array]:
    """Windows of uniform noise on [-1, 1]; what follows is their weighted sum."""
    x = np.random.default_rng(seed).uniform(-1, 1, (windows, WINDOW))
    return x, x @ np.array(weights)


SERIES: Final[Mapping[str, Series]] = {
    "mean": Series(
        about="the mean of four numbers: an unordered memory suffices",
        epochs=30, seeds=3, draw=partial(noise, weights=(0.25, 0.25, 0.25, 0.25)),
    ),
    "weighted": Series(
        about="0.1, 0.2, 0.3, 0.4 times the four numbers: order matters",
        epochs=40, seeds=3, draw=partial(noise, weights=(0.1, 0.2, 0.3, 0.4)),
    ),
    "three-ago": Series(
        about="the number three steps before the last: nothing but order matters",
        epochs=40, seeds=3, draw=partial(noise, weights=(1.0, 0.0, 0.0, 0.0)),
    ),
    "pendulum": Series(
        about="damped simple harmonic motion, velocity", epochs=100, seeds=5,
        draw=lambda _: windowed(damped_pendulum()),
    ),
    "bessel": Series(about="the Bessel function J_2", epochs=30, seeds=3, draw=lambda _: windowed(bessel())),
    "narma5": Series(about="NARMA5", epochs=30, seeds=3, draw=lambda seed: windowed(narma(5, seed))),
    "narma10": Series(about="NARMA10", epochs=30, seeds=3, draw=lambda seed: windowed(narma(10, seed))),
}  # fmt: skip


class Circuits(nn.Module):
    """The memory, one circuit at the end of the window, a linear read-out."""

    def __init__(self, mode: str) -> None:
        super().__init__()
        self.memory = QuantumFastWeightMemory(QFWPOptions.read({"dim": 1, "mode": mode}))
        self.out = nn.Linear(self.memory.options.outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        said: Tensor = self.out(self.memory(x, last=True)[0][:, 0])
        return said


class Recurrent(nn.Module):
    """A classical LSTM of five units."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.out = nn.LSTM(1, 5, batch_first=True), nn.Linear(5, 1)

    def forward(self, x: Tensor) -> Tensor:
        said: Tensor = self.out(self.lstm(x)[0][:, -1])
        return said


MODELS: Final[Mapping[str, Callable[[], nn.Module]]] = {
    "additive": partial(Circuits, "additive"),
    "gated": partial(Circuits, "gated"),
    "overwrite": partial(Circuits, "overwrite"),
    "LSTM": Recurrent,
}


def train(series: str, model: str, epochs: int, seed: int) -> Record:
    """RMSprop 0.01, batches of 10 in order, float64; the first 67 % are trained on, the rest is tested."""
    torch.manual_seed(seed)
    made = MODELS[model]().double()
    x, y = (torch.from_numpy(part) for part in SERIES[series].draw(seed))
    x, cut = x.unsqueeze(-1), int(TRAIN_SHARE * len(x))
    optimiser = torch.optim.RMSprop(made.parameters(), lr=RATE, alpha=0.99, eps=1e-8)
    begun, curve = time.process_time(), {}
    for epoch in range(1, epochs + 1):
        for part in torch.arange(cut).split(BATCH):
            loss = (made(x[part]).squeeze(-1) - y[part]).square().mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        if epoch % 10 == 0 or epoch == epochs:
            curve[str(epoch)] = _error(made, x[cut:], y[cut:])
    return {
        "series": series,
        "model": model,
        "seed": seed,
        "epochs": epochs,
        "test_mse": curve[str(epochs)],
        "train_mse": _error(made, x[:cut], y[:cut]),
        "persistence_mse": float((x[cut:, -1, 0] - y[cut:]).square().mean()),
        "variance": float(y[cut:].var(correction=0)),
        "curve": curve,
        "parameters": sum(p.numel() for p in made.parameters()),
        "cpu_s": round(time.process_time() - begun, 1),
    }


@torch.no_grad()
def _error(model: nn.Module, x: Tensor, y: Tensor) -> float:
    return float((model(x).squeeze(-1) - y).square().mean())
