"""The benchmark of coarse-to-fine search: what it reads, what it counts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from mnemic.bench.chunked import ARMS, TOGETHER, sentences
from mnemic.bench.locomo import load
from mnemic.bench.systems import make
from mnemic.cli.app import app
from mnemic.cube.errors import InvalidFile

SENTENCE = "The {} of house {} has a {} roof. "
NAMES = ("door", "garden", "cellar", "tower", "bridge")


@pytest.fixture
def book(tmp_path: Path) -> Path:
    path = tmp_path / "book.txt"
    paragraphs = [
        "".join(SENTENCE.format(name, f"n{p}x", f"colour{p * 7 + place}") for place, name in enumerate(NAMES))
        for p in range(310)
    ]
    path.write_text("\n\n".join(["A heading.", *paragraphs]))
    return path


def test_paragraphs_are_cut_into_sentences(book: Path, tmp_path: Path) -> None:
    found = sentences(book)
    assert len(found) == 310
    assert found[2][1] == "The garden of house n2x has a colour15 roof."
    assert all(len(paragraph) == 5 for paragraph in found)
    short = tmp_path / "short.txt"
    short.write_text("One line.")
    for path in (short, tmp_path / "nowhere.txt"):
        with pytest.raises(InvalidFile):
            sentences(path)


def test_the_command_writes_a_table_of_both(data: Path, book: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    arguments = ["bench", "chunks", "--data", str(data), "--text", str(book), "--out", str(out)]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    written = json.loads((out / "chunks.json").read_text())
    assert written["locomo"]["apart"].keys() == ARMS.keys()
    assert written["locomo"]["together"].keys() == set(TOGETHER)
    default = written["locomo"]["apart"]["every signal, every turn (the default)"]
    assert default["recall@20"] == 1.0  # six turns in all
    assert default["compared"] == 1.0
    assert written["locomo"]["apart"]["cosine, every turn"]["compared"] > 1  # the summaries too
    for run in written["text"]["runs"]:
        assert run["of_all_chunks"] == 1
        assert 0.2 < run["compared"] < 0.3
    assert (
        "| top-1 agreement, all paragraphs looked into | 1 | 1.000 [1.000, 1.000] | 3 | yes |" in done.stdout
    )
    nothing = CliRunner().invoke(app, ["bench", "chunks"])
    assert nothing.exit_code != 0


def test_the_system_finds_and_packs(data: Path, tmp_path: Path) -> None:
    system = make("mnemic-chunks")
    dialogue = load(data)[0]
    system.open(tmp_path)
    try:
        system.add(dialogue.turns)
        assert system.search("What is the kitten called?", 3)[0] == "D1:1"
        assert "Biscuit" in system.context("What is the kitten called?", 60)
        assert "ChunkOptions" in system.describe()
    finally:
        system.close()
