"""Documents that are made from code say what the code says, and what they point to is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from mnemic.cli.reference import reference

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    [ROOT / "README.md", ROOT / "CHANGELOG.md", *ROOT.glob("docs/**/*.md"), *ROOT.glob("speed/*.md")]
)


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def heads(page: Path) -> set[str]:
    """The anchors of a page, as GitHub makes them."""
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    titles = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def test_the_reference_is_what_the_commands_say() -> None:
    written = (ROOT / "docs/cli.md").read_text(encoding="utf-8")
    assert written == reference(), "docs/cli.md is behind the commands: run `make docs`"


def test_every_command_is_in_the_reference() -> None:
    page = reference()
    for command in ("add", "import", "search", "context", "ask", "chat", "show", "stats", "export-jsonl"):
        assert f"## mnemic {command}\n" in page
    assert "## mnemic reembed\n" in page
    assert "## mnemic doctor\n" in page
    assert "## mnemic bench locomo\n" in page
    for command in (
        "changes",
        "undo",
        "restore",
        "freeze",
        "thaw",
        "pin",
        "fuse",
        "facts",
        "explain",
        "jobs",
    ):
        assert f"## mnemic {command}\n" in page


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?://|mailto:)([^)\s]+)\)", page.read_text(encoding="utf-8")):
        path, _, anchor = target.partition("#")
        there = (page.parent / path).resolve() if path else page
        assert there.exists(), f"{name(page)} points to {target}, which is not there"
        if anchor and there.suffix == ".md":
            assert anchor in heads(there), f"{name(page)} points to {target}, which has no such heading"


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_python_in_documents_is_python(page: Path) -> None:
    for number, code in enumerate(
        re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    ):
        compile(code, f"{name(page)}, block {number}", "exec")
