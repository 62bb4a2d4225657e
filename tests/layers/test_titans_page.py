"""What docs/layers/titans.md shows is what happens."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "layers" / "titans.md"
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_python(number: int, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", "import torch; torch.manual_seed(0)\n" + BLOCKS[number]],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    if "AssociativeMemory" in BLOCKS[number]:
        left, surprised = (float(n) for n in re.findall(r"tensor\(([\d.]+)\)", done.stdout))
        assert left < 0.6 < surprised
    elif "size_bytes" in BLOCKS[number]:
        assert "True" in done.stdout


def test_there_are_blocks() -> None:
    assert len(BLOCKS) == 3
