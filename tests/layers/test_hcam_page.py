"""What docs/layers/hcam.md and qfwp.md show is what happens."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs" / "layers"
BLOCKS = [
    pytest.param(block, id=f"{page}-{number}")
    for page in ("hcam.md", "qfwp.md")
    for number, block in enumerate(
        re.findall(r"```python\n(.*?)```", (DOCS / page).read_text(encoding="utf-8"), re.DOTALL)
    )
]


@pytest.mark.parametrize("block", BLOCKS)
def test_python(
    block: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    exec(compile(block, "a block of the page", "exec"), {})  # noqa: S102
    lines = capsys.readouterr().out.strip().splitlines()
    if "layer.recall" in block:
        assert "torch.Size([2, 5, 2, 2, 8])" in lines
        held, said = lines[-1].split()
        assert held == said  # bytes of the state, and what its options say
    elif "flop_counter" in block:
        assert lines == ["114816 1081344"]
    elif "chunks.look" in block:
        assert lines == ["321 120"]
    elif "gymnasium" in block:
        assert lines == ["1.0"]
    elif "memory.forget" in block:
        assert lines[-1] == "20 33"


def test_there_are_blocks() -> None:
    assert len(BLOCKS) == 5
