"""What docs/layers/hcam.md shows is what happens."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "layers" / "hcam.md"
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)


def test_the_state_is_as_large_as_the_page_says(capsys: pytest.CaptureFixture[str]) -> None:
    for number, block in enumerate(BLOCKS):
        exec(compile(block, f"docs/layers/hcam.md, block {number}", "exec"), {})  # noqa: S102
    first, *_, shape, last = capsys.readouterr().out.strip().splitlines()
    assert first.startswith("[")
    assert shape == "torch.Size([2, 5, 2, 2, 8])"
    held, said = last.split()
    assert held == said
