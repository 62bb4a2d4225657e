"""E1 and E2 of MemOS on the real model and real sessions: minutes of work, so on demand.

`MNEMIC_LOCOMO=DIR pytest -m slow tests/bench/test_kv_acceptance.py`; `mnemic bench kv-cubes` has the report.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from language_models import needs_smollm2, smollm2

pytestmark = [
    needs_smollm2,
    pytest.mark.slow,
    pytest.mark.timeout(3600),
    pytest.mark.skipif("MNEMIC_LOCOMO" not in os.environ, reason="MNEMIC_LOCOMO names no folder of LoCoMo"),
]


def test_what_is_demanded_of_kv_memory_is_met(tmp_path: Path) -> None:
    from mnemic.bench.kv_cubes import settings
    from mnemic.bench.kv_moves import demands as of_moves
    from mnemic.bench.kv_moves import run as move
    from mnemic.bench.kv_speed import MEMORIES, demands, run
    from mnemic.bench.locomo import load
    from mnemic.bench.parts import Parts

    data = Path(os.environ["MNEMIC_LOCOMO"])
    out = Path(os.environ.get("MNEMIC_OUT", tmp_path))
    dialogue = next(one for one in load(data) if one.id == "conv-26")
    parts = Parts(out / "kv-cubes.part.json", settings(data, dialogue.id, smollm2()))

    speed = [
        parts.keep(f"speed {n}", lambda n=n: run(dialogue, smollm2(), tmp_path, n))
        for n in reversed(MEMORIES)
    ]
    assert [one for one in demands(speed) if not one["met"]] == []
    moves = [parts.keep("moves 0", lambda: move(smollm2(), tmp_path, seed=0))]
    assert [one for one in of_moves(moves) if not one["met"]] == []
