"""A run's file: typed, and what is unknown is refused by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from mnemic.cube.errors import InvalidFile, InvalidOption, NotFound
from mnemic.training.options import RecallRun, TextRun

TOML = """
[data]
train = "valid.txt"
length = 64

[model]
layers = ["window", {layer = "gated-delta", heads = 2}]
dim = 32
memory = {layer = "ultramem", keys = 8, topm = 4}

[training]
steps = 10
rate = 1e-3
"""


def test_a_file_is_read_into_typed_options_and_back(tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_text(TOML)
    run = TextRun.load(path)
    assert run.data.length == 64
    assert run.data.vocabulary == 2048  # what is left out has its default
    assert run.model.layers == ("window", {"layer": "gated-delta", "heads": 2})
    assert run.training.steps == 10
    assert TextRun.read(run.to_dict()) == run
    (tmp_path / "run.json").write_text('{"task": {"name": "mqar", "options": {"pairs": 4}}}')
    assert RecallRun.load(tmp_path / "run.json").task.options == {"pairs": 4}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[data]\ntrain = "a"\nlenght = 5', "lenght"), ("[model]\ndim = 3", "needs data"),
        ('[data]\ntrain = "a"\n[trainning]\nsteps = 3', "trainning"), ("data = 3", "section"),
        ('[data]\ntrain = "a"\nlength = 2.5', "length"), ("[data]\nlength = 9", "needs train"),
        ('[data]\ntrain = "a"\n[training]\nsteps = true', "steps"),
        ('[data]\ntrain = "a"\n[training]\nstep = 3', r"\[training\] has no step \(did you mean steps\?\)"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(text: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_text(text)
    with pytest.raises(InvalidOption, match=said):
        TextRun.load(path)


def test_files_that_cannot_be_read_are_refused(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        TextRun.load(tmp_path / "none.toml")
    for name, content in (("a.toml", "= 3"), ("a.json", "{"), ("b.json", "[1]")):
        (tmp_path / name).write_text(content)
        with pytest.raises(InvalidFile, match=name):
            TextRun.load(tmp_path / name)
