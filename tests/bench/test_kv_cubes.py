"""The KV benchmark on a tiny model: every number is measured, and a demand that is not met says so."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from language_models import needs_torch, tiny_llama
from mnemic.bench.locomo import Dialogue, Turn
from mnemic.cli.app import bench  # where its commands are put together
from mnemic.cube.errors import InvalidOption

pytestmark = needs_torch

WORDS = "Ana moved to Porto in March and Tom is allergic to walnuts".split()  # noqa: SIM905


def dialogue() -> Dialogue:
    turns = [
        Turn(
            id=f"{session}:{number}",
            session=f"s{session}",
            speaker="Ana" if number % 2 else "Tom",
            text=" ".join(WORDS[(number + step) % len(WORDS)] for step in range(9)),
            at=f"2025-03-0{session}T10:{number:02}:00",
        )
        for session in range(1, 6)
        for number in range(40)
    ]
    return Dialogue(id="made-up", turns=tuple(turns), questions=(), dropped=())


def run(out: Path, **more: Any) -> dict[str, Any]:
    from mnemic.bench.kv_cubes import run
    from mnemic.bench.parts import Parts

    parts = Parts(out / "part.json", {"x": 1})
    return run(dialogue(), tiny_llama(), seeds=[0], parts=parts, memories=[256], queries=60, **more)


def test_all_of_it_goes_on_where_it_was_stopped(tmp_path: Path) -> None:
    from mnemic.bench.kv_cubes import markdown
    from mnemic.bench.parts import Parts

    steps: list[str] = []
    found = run(tmp_path, step=lambda name, said: steps.append(f"{name}: {said}"))
    assert len(steps) == 3 + 9 + 4
    (speed,) = found["speed"]
    assert 240 <= speed["tokens"] <= 256
    assert speed["unchanged_after_uses"]
    assert [cell["query"] for cell in speed["cells"]] == [16, 64, 256]
    for cell in speed["cells"]:
        assert cell["max_logit"] < 1e-3
        assert cell["same_tokens"]
        assert len(cell["direct_s"]) == len(cell["kv_s"]) == 3
    assert found["forms"]["storages"]["exact"]["max_logit"] == 0
    assert found["forms"]["storages"]["int4"]["kv"] > found["forms"]["storages"]["int8"]["kv"] > 0
    whole = {one["how"]: one["kv"] for one in found["forms"]["compositions"]}
    assert whole["exact"] == 0
    assert whole["selective 100%"] < 1e-3 < whole["rotated"]
    (moves,) = found["moves"]
    assert moves["promotion"]["memory_tokens"] < moves["text"]["memory_tokens"]
    assert moves["promotion"]["peak_bytes"] < 0.35 * moves["all KV"]["peak_bytes"]
    assert moves["text"]["answers_from_kv"] == 0
    assert moves["all KV"]["answers_from_kv"] == 60
    assert 0 < moves["promotion"]["answers_from_kv"] < 60
    text = markdown(found, "mnemic bench kv-cubes")
    assert "| E1 |" in text
    assert "| promotion, unchecked |" in text

    again = run(tmp_path, step=lambda *_: pytest.fail("it was measured already"))
    assert again["speed"] == found["speed"]
    with pytest.raises(InvalidOption, match="other settings"):
        Parts(tmp_path / "part.json", {"x": 2})


def test_a_demand_that_is_not_met_says_so() -> None:
    from mnemic.bench.kv_moves import SCHEDULERS, demands

    def account(**changed: float) -> dict[str, Any]:
        said = {"memory_tokens": 100, "peak_bytes": 100, "accuracy": 0.9, "stale_answers": 0}
        return {**said, **changed}

    good = {name: account() for name in SCHEDULERS}
    good["promotion"] = account(memory_tokens=50, peak_bytes=20)
    good["promotion, unchecked"] = account(stale_answers=3)
    assert all(one["met"] for one in demands([good]))
    for changed in ({"memory_tokens": 70}, {"peak_bytes": 40}, {"accuracy": 0.8}, {"stale_answers": 1}):
        worse = {**good, "promotion": {**good["promotion"], **changed}}
        assert sum(not one["met"] for one in demands([good, worse])) == 1
    assert not demands([{**good, "promotion, unchecked": account()}])[-1]["met"]


def test_the_command_names_what_it_needs(tmp_path: Path, data: Path) -> None:
    made = tiny_llama()
    made.model.save_pretrained(tmp_path / "tiny")
    made.tokenizer.save_pretrained(tmp_path / "tiny")
    words = ["kv-cubes", "--data", str(data), "--dialogue", "conv-1", "--model", str(tmp_path / "tiny")]
    with pytest.raises(InvalidOption, match="conv-1 is shorter than 3000 tokens"):
        CliRunner().invoke(
            bench.app, [*words, "--memory", "3000", "--out", str(tmp_path)], catch_exceptions=False
        )
    with pytest.raises(InvalidOption, match="no dialogue"):
        CliRunner().invoke(bench.app, ["kv-cubes", "--data", str(data)], catch_exceptions=False)
    assert json.loads((tmp_path / "tiny/config.json").read_text())["model_type"] == "llama"
