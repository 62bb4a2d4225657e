"""What the pages on training and on memories of slots show is what happens."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from mnemic.training.options import TextRun

DOCS = Path(__file__).parents[2] / "docs"
BLOCKS = [
    pytest.param(page, code, id=f"{page}-{number}")
    for page in ("training.md", "layers/ultramem.md")
    for number, code in enumerate(
        re.findall(r"```python\n(.*?)```", (DOCS / page).read_text(encoding="utf-8"), re.DOTALL)
    )
]


@pytest.mark.parametrize(("page", "code"), BLOCKS)
def test_python_on_the_page_runs(
    page: str, code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    exec(compile(code, page, "exec"), {})  # noqa: S102


def test_the_file_on_the_page_is_read() -> None:
    text = (DOCS / "training.md").read_text(encoding="utf-8")
    (written,) = re.findall(r"```\n(\[data\].*?)```", text, re.DOTALL)
    run = TextRun.read(tomllib.loads(written))
    assert run.training.micro == 8
    assert run.model.memory == {"layer": "ultramem", "keys": 64, "topm": 16}
