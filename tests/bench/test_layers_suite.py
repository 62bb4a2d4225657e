"""The recall suite: tasks ask what they say they ask, runs resume, tables hold every arm and baseline."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from mnemic.bench.layers.acceptance import Demand, demands, trained
from mnemic.bench.layers.claims import claims
from mnemic.bench.layers.plot import svg
from mnemic.bench.layers.suite import (
    BASELINES,
    Arm,
    Experiment,
    Run,
    arm,
    experiments,
    perform_all,
    runs,
)
from mnemic.bench.layers.tables import curve, markdown
from mnemic.bench.layers.tasks import (
    ASK_NOTHING,
    MQAR,
    TASKS,
    BeyondWindow,
    Forgetting,
    Needle,
    OrderedRecall,
    RapidNaming,
    Rebinding,
    smaller,
)
from mnemic.bench.layers.training import Recipe, accuracy, build, needle, parameters, train
from mnemic.cube.errors import InvalidOption
from mnemic.layers.table import LAYERS, layer_class

Pairs = list[tuple[list[int], dict[int, int]]]


def rows_of(task: Any, rows: int = 40, seed: int = 0) -> Pairs:
    """Tokens of each row, and its labels by position."""
    tokens, labels = task.batch(rows, torch.Generator().manual_seed(seed))
    assert 0 <= int(tokens.min()) <= int(tokens.max()) < task.vocabulary
    found = []
    for row, wanted in zip(tokens.tolist(), labels.tolist(), strict=True):
        found.append((row, {at: label for at, label in enumerate(wanted) if label != ASK_NOTHING}))
    return found


def test_mqar_asks_each_key_once_for_the_value_it_was_given() -> None:
    task = MQAR(vocabulary=64, length=48, pairs=8)
    gaps = []
    for tokens, wanted in rows_of(task, 300):
        told = dict(zip(tokens[:16:2], tokens[1:16:2], strict=True))
        assert len(told) == 8
        assert set(told) <= set(range(1, 32))
        assert len(set(told.values())) == 8
        assert set(told.values()) <= set(range(32, 64))
        assert {tokens[at]: label for at, label in wanted.items()} == told
        assert all(at >= 16 and at % 2 == 0 for at in wanted)
        gaps += [(at - 16) // 2 for at in wanted]
    shares = torch.bincount(torch.tensor(gaps), minlength=16).double() / len(gaps)
    assert shares[0] > 2.5 * shares[15], "near gaps are likelier: a power law of exponent -0.99"
    for wrong in ({"pairs": 13}, {"length": 47}, {"vocabulary": 63}, {"vocabulary": 16, "pairs": 8}):
        with pytest.raises(InvalidOption):
            replace(task, **wrong)


def test_fillers_of_mqar_are_random_and_change_with_the_seed() -> None:
    task = MQAR(length=64)
    (first, wanted), (other, _) = rows_of(task, 1)[0], rows_of(task, 1, seed=1)[0]
    assert first != other
    free = [token for at, token in enumerate(first) if at >= 16 and at not in wanted]
    assert len(set(free)) > len(free) // 2


def test_the_other_tasks_ask_what_can_be_known() -> None:
    changed = 0
    for tokens, wanted in rows_of(Rebinding()):
        first, told = (dict(zip(tokens[:n:2], tokens[1:n:2], strict=True)) for n in (12, 18))
        assert len(wanted) == len(first) == 6
        assert len(set(tokens[12:18:2])) == 3
        assert {tokens[at]: label for at, label in wanted.items()} == told  # later pairs win
        changed += sum(told[key] != value for key, value in first.items())
    assert changed > 80
    for tokens, wanted in rows_of(BeyondWindow()):
        told = dict(zip(tokens[:8:2], tokens[1:8:2], strict=True))
        assert {tokens[at]: label for at, label in wanted.items()} == told
        assert set(tokens[8:32]) == {24}
        assert min(wanted) - 7 > 24
    for tokens, wanted in rows_of(Forgetting()):
        told = list(zip(tokens[:32:2], tokens[1:32:2], strict=True))
        assert {tokens[at]: label for at, label in wanted.items()} == dict(told[-4:])
    for tokens, wanted in rows_of(OrderedRecall()):
        assert len(wanted) == 4
        assert all(tokens[tokens[at] - 16] == label for at, label in wanted.items())
    task = RapidNaming()
    for tokens, wanted in rows_of(task):
        for at, label in wanted.items():
            name, kind = tokens[at - 1], tokens[at] - (task.vocabulary - task.types)
            chunk = next(tokens[c : c + 5] for c in range(0, 20, 5) if tokens[c] == name)
            low = task.names + kind * task.values
            assert [t for t in chunk if low <= t < low + task.values] == [label]


def test_a_needle_is_the_same_task_in_parts() -> None:
    task = Needle()
    for tokens, wanted in rows_of(task):
        start = next(at for at, token in enumerate(tokens) if token < task.keys + task.values)
        told = dict(zip(tokens[start : start + 4 : 2], tokens[start + 1 : start + 4 : 2], strict=True))
        assert {tokens[at]: label for at, label in wanted.items()} == told
    generator = torch.Generator().manual_seed(0)
    told_rows = task.told(5, generator)
    questions, labels = task.asked_for(told_rows, generator)
    for row in range(5):
        pairs = dict(zip(told_rows[row, ::2].tolist(), told_rows[row, 1::2].tolist(), strict=True))
        assert {int(questions[row, at]): int(labels[row, at]) for at in (0, 2)} == pairs
    assert int(task.haystack(5, 9, generator).min()) >= task.keys + task.values


def test_training_learns_and_is_the_same_each_time() -> None:
    task, recipe = MQAR(vocabulary=16, length=8, pairs=2), Recipe(dim=32, steps=120, batch=32, tested=128)
    found = []
    for _ in range(2):
        model = build(task, {"layer": "attention"}, recipe, 0)
        found.append((train(model, task, recipe, 0), accuracy(model, task, 128, 0)))
    assert found[0] == found[1]
    assert found[0][1] > 3 * task.chance
    assert len(found[0][0]) == 4


def test_a_stream_is_read_in_pieces_through_a_state_of_constant_size() -> None:
    task = Needle()
    model = build(task, {"layer": "taylor", "key_dim": 4}, Recipe(dim=16), 0)
    short, long = (needle(model, task, 500, 0, rows=3, piece=piece) for piece in (500, 70))
    assert short["accuracy"] == long["accuracy"]
    assert short["first_bytes"] == short["last_bytes"] == model.config.state_bytes(10_000)
    growing = build(task, {"layer": "attention"}, Recipe(dim=16), 0)
    found = needle(growing, task, 300, 0, rows=2, piece=100)
    assert found["last_bytes"] == growing.config.state_bytes(308)


def test_active_parameters_leave_out_the_memories_a_token_does_not_visit() -> None:
    task = MQAR()
    mixed = build(task, {"layer": "mom", "key_dim": 8, "memories": 4, "topk": 2}, Recipe(), 0)
    counted = parameters(mixed)
    assert counted["total"] == sum(p.numel() for p in mixed.parameters())
    assert 0 < counted["active"] < counted["total"]
    plain = parameters(build(task, {"layer": "linear", "key_dim": 8}, Recipe(), 0))
    assert plain["total"] == plain["active"]


def tiny() -> Experiment:
    return Experiment(
        name="tiny",
        about="Two pairs.",
        task=MQAR(vocabulary=16, length=8, pairs=2),
        arms=(arm("linear", key_dim=4), arm("mom", key_dim=4), Arm(label="lstm", layer="lstm")),
        recipe=Recipe(dim=8, steps=8, batch=4, tested=16),
    )


def test_a_run_that_is_stopped_goes_on_where_it_ended(tmp_path: Path) -> None:
    path, seen = tmp_path / "runs.json", []

    class Stopped(Exception):
        pass

    def stop(key: str, message: str) -> None:
        seen.append((key, message))
        if len(seen) == 4:
            raise Stopped

    planned = runs([tiny()], 2)
    assert [run.key for run in planned[:3]] == ["tiny/linear key 4/0", "tiny/mom key 4/0", "tiny/lstm/0"]
    with pytest.raises(Stopped):
        perform_all(planned, path, report=stop)
    assert len(json.loads(path.read_text())) == 4
    messages: list[str] = []
    records = perform_all(planned, path, report=lambda _, message: messages.append(message))
    assert messages[:4] == ["kept"] * 4
    assert messages[4] != "kept"
    assert len(records) == 6
    assert set(records["tiny/mom key 4/0"]["parameters"]) == {"total", "active"}
    assert len(records["tiny/mom key 4/0"]["shares"]) == 2

    other = replace(tiny(), recipe=Recipe(dim=8, steps=9, batch=4, tested=16))
    with pytest.raises(InvalidOption, match="--fresh"):
        perform_all([Run(other, other.arms[0], 0)], path)
    assert perform_all([Run(other, other.arms[0], 0)], path, fresh=True).keys() == {"tiny/linear key 4/0"}

    text = markdown(
        [tiny()], records, [], "the command", {"machine": {"processor": "p", "cores": 1}, "versions": {}}
    )
    assert "| lstm (baseline) |" in text
    assert "| mom key 4 |" in text
    assert text.count("[") >= 3
    root = ET.fromstring(curve(records, tiny()))  # noqa: S314 - made above
    assert root.tag.endswith("svg")
    assert "linear" in "".join(root.itertext())


def test_a_memory_that_diverges_is_a_row_and_not_the_end(tmp_path: Path) -> None:
    """A step far too large: the guard raises while it is trained, and the suite goes on."""
    wild = arm("titans-lmm", depth=2, hidden=16, chunk=8, limit=0.5)
    experiment = replace(tiny(), name="needle", task=Needle(noise=8), arms=(wild,), stream=20)
    records = perform_all(runs([experiment], 1), tmp_path / "runs.json")
    (found,) = records.values()
    assert "norm of the memory" in found["diverged"]
    assert found["accuracy"] == 0.0
    about = {"machine": {"processor": "p", "cores": 1}, "versions": {}}
    assert "1 diverged" in markdown([experiment], records, [], "the command", about)


def test_all_layers_and_always_the_baselines_are_in_the_plan() -> None:
    every = experiments()
    assert {one.layer for one in every["curve"].arms} == {one for one in LAYERS if layer_class(one).dials}
    assert set(TASKS) - {"mqar"} | {"small", "dial", "curve"} == set(every)
    for experiment in experiments(["taylor"]).values():
        if experiment.name != "dial":
            assert {one.layer for one in experiment.arms} == {"taylor", *BASELINES}
    with pytest.raises(InvalidOption, match="tayler"):
        experiments(["tayler"])


def record(accuracy: float, shares: list[list[float]] | None = None) -> dict[str, Any]:
    return {"accuracy": accuracy, "shares": shares or []}


def test_a_demand_is_met_or_not_by_the_records_alone() -> None:
    records = {f"small/taylor key 8/{seed}": record(value) for seed, value in enumerate((0.8, 0.9))}
    records |= {f"small/linear key 8/{seed}": record(value) for seed, value in enumerate((0.7, 0.7))}
    records |= {"dial/taylor key 4/0": record(0.5), "dial/taylor key 8/0": record(0.45)}
    records |= {"dial/taylor key 16/0": record(0.6)}
    mom = "small/mom key 4 value 48 update linear conv 0 gated False"
    records |= {f"{mom}/0": record(0.5, [[0.3, 0.3, 0.3, 0.1]])}
    found: dict[str, Demand] = {demand.what: demand for demand in trained(records)}
    gap = found["Taylor over elu + 1 at equal key size (8 pairs)"]
    assert (gap.met, gap.seeds) == (True, 2)
    assert "+15.0 points" in gap.measured
    assert found["accuracy does not fall with key_dim 4, 8, 16"].met is False
    assert found["window 64 near full attention"].met is None
    health = [demand for demand in found.values() if "share of tokens" in demand.what]
    assert health[0].met is False
    assert "0.100" in health[0].measured


def test_a_claim_is_an_ordering_of_means_that_says_when_ranges_overlap() -> None:
    records = {f"curve/taylor key 8/{seed}": record(value) for seed, value in enumerate((0.9, 0.8))}
    records |= {f"curve/linear key 8/{seed}": record(value) for seed, value in enumerate((0.7, 0.85))}
    records |= {"re-binding/delta key 16/0": record(0.2), "re-binding/hebbian key 16/0": record(0.3)}
    found = {claim.what: claim for claim in claims(records)}
    ours = found["Taylor over elu + 1, equal key size (curve)"]
    assert (ours.met, ours.seeds) == (True, 2)
    assert "+7.5 points, ranges overlap" in ours.measured
    other = found["overwriting over adding, keys bound twice (re-binding)"]
    assert other.met is False
    assert other.demanded == "delta key 16 > hebbian key 16"
    assert "overlap" not in other.measured
    assert sum(claim.met is None for claim in found.values()) == len(found) - 2


def test_every_claim_names_arms_that_are_run() -> None:
    planned = {run.key: record(0.5) for run in runs(list(experiments().values()), 1)}
    assert [claim.what for claim in claims(planned) if claim.met is None] == []


def test_a_curriculum_grows_the_task_and_not_what_its_tokens_mean() -> None:
    recipe = Recipe(steps=8, curriculum=True)
    assert [recipe.size_at(step) for step in range(8)] == [0.25, 0.25, 0.5, 0.5, 1, 1, 1, 1]
    assert {Recipe(steps=8).size_at(step) for step in range(8)} == {1.0}
    for task in TASKS.values():
        whole, _ = task.batch(50, torch.Generator().manual_seed(0))
        half, labels = smaller(task, 0.5).batch(50, torch.Generator().manual_seed(0))
        quarter, _ = smaller(task, 0.25).batch(50, torch.Generator().manual_seed(0))
        assert quarter.shape[1] < half.shape[1] < whole.shape[1]
        assert max(int(half.max()), int(labels.max())) < task.vocabulary
        assert smaller(task, 1.0) is task


def test_a_plot_places_points_where_they_belong() -> None:
    text = svg("T", "x", "y", {"a & b": [(100.0, 0.5, 0.4, 0.6), (10_000.0, 1.0, 1.0, 1.0)]})
    circles = [e for e in ET.fromstring(text).iter() if e.tag.endswith("circle") and len(e)]  # noqa: S314
    (x1, y1), (x2, y2) = ((float(c.get("cx", 0)), float(c.get("cy", 0))) for c in circles)
    assert x1 == 64
    assert x2 == 900 - 190
    assert y1 - y2 == pytest.approx((520 - 40 - 56) / 2, abs=0.2)


def test_the_command_runs_keeps_and_writes(tmp_path: Path) -> None:
    from mnemic.cli.app import app

    command = [
        "bench",
        "layers",
        "--experiment",
        "small",
        "--layer",
        "hebbian",
        "--seeds",
        "1",
        "--steps",
        "8",
    ]
    done = CliRunner().invoke(app, [*command, "--out", str(tmp_path)])
    assert done.exit_code == 0, done.output
    assert "| hebbian key 8 (baseline) |" in done.output
    assert "mnemic bench layers --layer hebbian --experiment small --seeds 1 --steps 8" in done.output
    assert (tmp_path / "layers.md").exists()
    again = CliRunner().invoke(app, [*command, "--out", str(tmp_path), "--json"])
    assert again.exit_code == 0
    assert set(json.loads(again.stdout)) == {"runs", "demands"}
    more = [
        "bench",
        "layers",
        "--experiment",
        "small",
        "--report-only",
        "--steps",
        "8",
        "--out",
        str(tmp_path),
    ]
    so_far = CliRunner().invoke(app, more)
    assert so_far.exit_code == 0, so_far.output
    assert "| hebbian key 8 (baseline) |" in so_far.output
    assert "| taylor key 8 |" not in so_far.output
    assert CliRunner().invoke(app, [*more[:-1], str(tmp_path / "nothing")]).exit_code != 0
    refused = CliRunner().invoke(app, ["bench", "layers", "--experiment", "nothing", "--out", str(tmp_path)])
    assert refused.exit_code != 0


def test_the_mechanisms_are_measured_as_demanded() -> None:
    found = demands({})
    measured = [demand for demand in found if demand.met is not None]
    assert len(measured) >= 23
    assert [one.what for one in measured if not one.met and "time of a step" not in one.what] == []
