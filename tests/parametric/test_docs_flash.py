"""What docs/flash.md shows is what happens."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from language_models import needs_torch, tiny_llama

pytestmark = needs_torch
PAGE = Path(__file__).parents[2] / "docs" / "flash.md"


def test_its_programs_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import torch

    from mnemic.parametric.flash_mlp import LowRank, Oracle

    shown: dict[str, Any] = {}
    for code in re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL):
        exec(compile(code, "docs/flash.md", "exec"), shown)  # noqa: S102
    traffic, resident = shown["table"](tmp_path)
    assert 0 < traffic.hits < traffic.asked
    assert resident <= 1_000_000
    up, down = torch.randn(64, 8), torch.randn(8, 64)
    layer = shown["feed_forward"](tmp_path, up, down, Oracle(up))
    x = torch.randn(3, 8)
    assert torch.allclose(layer(x), torch.relu(x @ up.T) @ down.T, atol=1e-5)
    x, goal = torch.randn(1, 8, 32), torch.randn(1, 8, 32)
    losses = shown["learn"](tmp_path, x, goal)
    assert losses[-1] < losses[0]
    local = tiny_llama(hidden_act="relu", intermediate_size=512)
    predictors = {n: LowRank(32, 512, rank=2) for n in range(4)}
    said, held, read = shown["small"](local, tmp_path / "packed", predictors)
    assert isinstance(said, str)
    assert held.total <= 4_000_000
    assert read.bytes_read > 0
    shown["costs"]()
    assert capsys.readouterr().out.startswith("88.8")
