"""What docs/kv.md shows is what happens."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

import mnemic
from language_models import needs_torch, tiny_llama

pytestmark = needs_torch
PAGE = Path(__file__).parents[2] / "docs" / "kv.md"


def test_its_programs_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import torch

    monkeypatch.chdir(tmp_path)
    shown: dict[str, Any] = {}
    for code in re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL):
        exec(compile(code, "docs/kv.md", "exec"), shown)  # noqa: S102
    model = tiny_llama()
    shown["chat"](model)
    assert "label='exact'" in capsys.readouterr().out
    with mnemic.open("ana.db") as memory:
        (kept,) = memory.list(user="ana", where={"kind": "activation"})
        with memory.mount(model, kept) as mounted:
            assert shown["ids"](mounted, torch).shape[0] == 1
        shelf = shown["shelf"](memory, model)
        assert shelf.use(memory.list(user="ana")[0]) is None
