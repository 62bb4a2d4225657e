"""The speed programs run and write what they promise. Nothing here looks at how fast anything was."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

SPEED = Path(__file__).parents[2] / "speed"


def run(out: Path, *stores: str) -> dict[str, object]:
    command = [sys.executable, str(SPEED / "store.py"), "--size", "200", "--repeats", "1", "--out", str(out)]
    for store in stores:
        command += ["--store", store]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=200, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )
    assert done.returncode == 0, done.stderr
    assert (out / "store.md").read_text().rstrip() == done.stdout.rstrip()
    return json.loads((out / "store.json").read_text())  # type: ignore[no-any-return]


def test_a_small_run_yields_every_figure_for_bare_and_mnemic(tmp_path: Path) -> None:
    results = run(tmp_path, "bare", "mnemic")
    for name in ("bare", "mnemic"):
        figures = results["stores"][name]["sizes"]["200"]  # type: ignore[index]
        assert "error" not in figures, figures["error"]
        assert figures["search_found_at_10"] > 0.9
        assert figures["embedder_misses"] == 0
        assert set(figures) >= {
            "add_one_cpu_ms",
            "add_batch_per_s",
            "search_p50_ms",
            "cold_s",
            "rss_mb",
            "disk_mb",
        }
    budgets = {row[0]: row for row in results["budgets"]}  # type: ignore[attr-defined]
    assert len(budgets) == 15
    assert budgets["search p50, one space of 100k"][3] == "not measured"
    assert str(tmp_path) not in json.dumps(results)


def test_a_store_that_is_not_installed_is_listed(tmp_path: Path) -> None:
    if find_spec("chromadb"):
        pytest.skip("chromadb is installed here")
    results = run(tmp_path, "chroma")
    assert results["stores"]["chroma"]["status"] == "not installed: pip install chromadb"  # type: ignore[index]


def test_titans_is_timed_in_every_form(tmp_path: Path) -> None:
    sizes = ["--rounds", "1", "--length", "16", "--batch", "1", "--lengths", "16", "32"]
    done = subprocess.run(
        [sys.executable, str(SPEED / "titans.py"), *sizes, "--out", str(tmp_path)],
        capture_output=True, text=True, timeout=200, check=False, env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "titans-speed.json").read_text())
    for timed in report["timed"].values():
        assert {"mnemic, reads the token's weights", "mnemic, reference loop"} <= timed.keys()
        assert all(seconds > 0 for times in timed.values() for seconds in times)
    assert [length for length, _ in report["lengths"]] == [16, 32]
    assert "## Cost against length" in (tmp_path / "titans-speed.md").read_text()


def test_layers_are_timed_against_their_loops_and_against_length(tmp_path: Path) -> None:
    sizes = ["--rounds", "1", "--steps", "3", "--lengths", "8", "16"]
    done = subprocess.run(
        [sys.executable, str(SPEED / "layers.py"), *sizes, "--out", str(tmp_path / "speed.md")],
        capture_output=True, text=True, timeout=200, check=False, env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "speed.md").read_text()
    assert text.count("| mom |") == 2
    assert "| 8 tokens, ms | 16 tokens, ms | slope |" in text
