"""What the pages about policies show is what happens: their blocks run, each page in one namespace."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest

from activation.tiny import llama, text
from mnemic.activation.registry import POLICIES, policy_class

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "docs/policies.md", *sorted((ROOT / "docs/policies").glob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_blocks_run(page: Path) -> None:
    space: dict[str, object] = {"model": llama(), "ids": text(1, 80)}
    blocks = re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    assert blocks
    for number, code in enumerate(blocks):
        exec(compile(code, f"{page.name}, block {number}", "exec"), space)  # noqa: S102


@pytest.mark.parametrize("name", POLICIES)
def test_every_policy_has_a_page_that_names_its_options(name: str) -> None:
    page = (ROOT / "docs" / "policies" / f"{name}.md").read_text(encoding="utf-8")
    made = policy_class(name)
    assert page.startswith(f"# {made.__name__}\n")
    for option in fields(made):
        named = f"`{option.name}`" in page or option.name == "seed"
        assert named, f"docs/policies/{name}.md does not name {option.name}"
