"""What docs/flash.md shows is what happens."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from language_models import needs_torch

pytestmark = needs_torch
PAGE = Path(__file__).parents[2] / "docs" / "flash.md"


def test_its_programs_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import torch

    from mnemic.parametric.flash_mlp import Oracle

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
    shown["costs"]()
    assert capsys.readouterr().out.startswith("88.8")
