"""The acceptance experiments of QFWP, and the series it is asked about."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from mnemic.bench.layers import qfwp
from mnemic.bench.layers.qfwp_series import (
    MODELS,
    SERIES,
    bessel,
    damped_pendulum,
    narma,
    train,
    windowed,
)
from mnemic.cli.app import app


def test_what_trains_nothing_is_met() -> None:
    lines = qfwp.untrained()
    assert len(lines) >= 11
    assert [line.what for line in lines if line.met is False] == []
    assert sum(line.met is None for line in lines) <= 1  # PennyLane, where it is not installed


def test_the_pendulum_swings_and_comes_to_rest() -> None:
    velocity = damped_pendulum()
    assert velocity.shape == (240,)
    assert velocity[0] == 3.0
    assert abs(velocity[-20:]).max() < abs(velocity[:20]).max() / 2
    finer = damped_pendulum(479)  # twice as fine, every other sample the same
    np.testing.assert_allclose(finer[::2], velocity, atol=1e-8)
    energy = 9.81 * (1 - np.cos(0.0)) + velocity[0] ** 2 / 2
    assert (velocity**2 / 2 <= energy + 1e-9).all()  # friction only takes


def test_the_bessel_function_is_the_one_in_tables() -> None:
    values = bessel(21)  # whole numbers, Abramowitz & Stegun, table 9.1
    np.testing.assert_allclose(
        values[[0, 1, 2, 5, 10]], [0, 0.1149035, 0.3528340, 0.0465651, 0.2546303], atol=1e-7
    )


def test_narma_follows_its_recurrence() -> None:
    u = np.random.default_rng(3).uniform(0, 0.5, 245)
    values = narma(5, 3)
    assert values.shape == (240,)
    assert values[0] == pytest.approx(1.5 * u[0] * u[4] + 0.1)
    t = 30
    past = values[t - 4 : t + 1].sum()  # value t is y_{t+5}
    expected = 0.3 * values[t] + 0.05 * values[t] * past + 1.5 * u[t + 1] * u[t + 5] + 0.1
    assert values[t + 1] == pytest.approx(expected)


def test_windows_are_scaled_and_followed_by_the_next_value() -> None:
    x, y = windowed(np.arange(240.0))
    assert x.shape == (235, 4)
    np.testing.assert_allclose(x[1:, :-1], x[:-1, 1:])
    np.testing.assert_allclose(y[:-1], x[1:, -1])
    assert x.min() == -1
    weighted, target = SERIES["weighted"].draw(0)
    np.testing.assert_allclose(target, weighted @ [0.1, 0.2, 0.3, 0.4])
    assert not np.array_equal(SERIES["mean"].draw(0)[0], SERIES["mean"].draw(1)[0])


def test_what_is_carried_is_what_remembers() -> None:
    """A third of the training: the full experiment is the command."""
    carried, alone = (train("mean", mode, 10, 0) for mode in ("gated", "overwrite"))
    assert carried["test_mse"] < alone["test_mse"] / 5
    assert (carried["parameters"], alone["parameters"]) == (120, 111)
    assert train("mean", "LSTM", 1, 0)["parameters"] == 166


def test_demands_are_judged_by_medians_and_failures_are_counted() -> None:
    def record(series: str, model: str, error: float) -> dict[str, Any]:
        return {"series": series, "model": model, "test_mse": error, "persistence_mse": 1e-3}

    runs = [record("mean", "additive", e) for e in (1e-3, 2e-3, 1e-1)]
    runs += [record("mean", "overwrite", 5e-2)] * 3
    runs += [record("pendulum", "additive", e) for e in (5e-5, 1e-2, 2e-4)]
    ratio, best, failures = qfwp.trained({str(n): one for n, one in enumerate(runs)})
    assert ratio.met
    assert ratio.measured.startswith("25 ")
    assert best.met
    assert "2 of 3 seeds failed" in failures.measured
    runs[0] = record("mean", "additive", 2e-2)
    assert qfwp.trained({str(n): one for n, one in enumerate(runs)})[0].met is False
    del runs[1:3]
    assert qfwp.trained({str(n): one for n, one in enumerate(runs)})[0].met is None  # too few seeds to say
    assert qfwp.trained({}) == []


def test_the_command_writes_a_table(tmp_path: Path) -> None:
    arguments = [
        "bench",
        "qfwp",
        "--series",
        "bessel",
        "--seeds",
        "1",
        "--epochs",
        "1",
        "--out",
        str(tmp_path),
    ]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    assert "| bessel | additive |" in done.stdout
    assert json.loads((tmp_path / "qfwp-runs.json").read_text()).keys() == {f"bessel/{m}/1/0" for m in MODELS}
    again = CliRunner().invoke(app, ["bench", "qfwp", "--series", "none", "--out", str(tmp_path)])
    assert "| bessel | LSTM |" in again.stdout
    assert CliRunner().invoke(app, ["bench", "qfwp", "--series", "tides"]).exit_code != 0
