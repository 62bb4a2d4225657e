"""The pages of the layers: one each, the table made from the code, and Python that runs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from mnemic.bench.layers.pages import page_of, written
from mnemic.layers.table import LAYERS

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "layers.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


def test_the_table_of_layers_is_what_the_code_says() -> None:
    assert written(PAGE) == PAGE, "run: python -m mnemic.bench.layers.pages docs/layers.md"


@pytest.mark.parametrize("name", LAYERS)
def test_every_layer_has_a_page_that_says_what_it_costs_and_when_not_to_use_it(name: str) -> None:
    text = (DOCS / page_of(name)).read_text(encoding="utf-8")
    assert f"`{name}`" in text
    for said in ("remembers", "forgets", "flops a token", "bytes moved a token", "when not to use it"):
        assert said in text.lower(), said
    assert re.search(r"\]\(\.\./results/\S+\.md\)", text)


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_python_on_the_page_runs(number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    exec(compile(BLOCKS[number], f"docs/layers.md, block {number}", "exec"), {})  # noqa: S102
