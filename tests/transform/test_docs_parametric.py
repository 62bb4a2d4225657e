"""What docs/parametric.md shows is what happens."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from learners import gate, learner, recipe

from language_models import needs_torch

pytestmark = needs_torch
pytest.importorskip("peft")
PAGE = Path(__file__).parents[2] / "docs" / "parametric.md"


def test_its_programs_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from mnemic.parametric.nearest import Search
    from mnemic.transform.text_to_memory import Options

    monkeypatch.chdir(tmp_path)
    shown: dict[str, Any] = {}
    for code in re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL):
        exec(compile(code, "docs/parametric.md", "exec"), shown)  # noqa: S102
    local = learner()
    shown["learn"](local, recipe=recipe(), gate=gate(learned=0.2))
    said = capsys.readouterr().out
    assert said.startswith("2839\n")
    assert "text: 6053 weights:" in said
    options = Options(form="exact", search=Search(k=4, temperature=0.1), lam=0.9)
    shown["remember"](local, options)
    assert capsys.readouterr().out == "6053\n"
    texts = ["The code of Tom is 6053. Ana likes tea.", "The code of Ida is 2839. Tom likes nuts."]
    assert isinstance(shown["why"](local, texts, options), str)
    assert "Evidence(text=" in capsys.readouterr().out
