"""Conversion: once, whole or not at all, by the content of the file."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from language_models import needs_smollm2
from mnemic.cube.errors import ModelError
from mnemic.models import gguf, smollm2

pytestmark = needs_smollm2


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Converting writes two small files; where it was asked to."""
    asked: list[Path] = []

    def convert(source: Path, folder: Path, mend: object) -> None:  # noqa: ARG001
        asked.append(folder)
        (folder / "config.json").write_text("{}")
        (folder / "model.safetensors").write_bytes(source.read_bytes())

    monkeypatch.setattr(gguf, "_convert", convert)
    return asked


def test_it_is_converted_once_for_each_content(tmp_path: Path, quick: list[Path]) -> None:
    source, cache = tmp_path / "a.gguf", tmp_path / "cache"
    source.write_bytes(b"one")
    first = gguf.as_safetensors(source, name="a", cache=cache)
    assert gguf.as_safetensors(source, name="a", cache=cache) == first
    source.write_bytes(b"two")
    second = gguf.as_safetensors(source, name="a", cache=cache)
    assert second != first
    assert len(quick) == 2
    assert sorted(cache.iterdir()) == sorted([first, second])
    assert (first / "model.safetensors").read_bytes() == b"one"


def test_a_conversion_that_breaks_off_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, cache = tmp_path / "a.gguf", tmp_path / "cache"
    source.write_bytes(b"GGUF, but no more")
    with pytest.raises(ModelError, match=r"a\.gguf cannot be converted"):
        gguf.as_safetensors(source, name="a", cache=cache)
    assert list(cache.iterdir()) == []

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(gguf, "_convert", full)
    with pytest.raises(ModelError, match="No space left"):
        gguf.as_safetensors(source, name="a", cache=cache)
    assert list(cache.iterdir()) == []


@pytest.mark.usefixtures("quick")
def test_of_two_that_convert_at_once_the_second_finds_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, cache = tmp_path / "a.gguf", tmp_path / "cache"
    source.write_bytes(b"one")
    real = gguf._publish

    def late(part: Path, folder: Path) -> None:
        folder.mkdir()
        (folder / "config.json").write_text("theirs")
        real(part, folder)

    monkeypatch.setattr(gguf, "_publish", late)
    folder = gguf.as_safetensors(source, name="a", cache=cache)
    assert (folder / "config.json").read_text() == "theirs"
    assert list(cache.iterdir()) == [folder]


def test_the_real_one_is_in_the_users_cache_and_holds_no_quantisation() -> None:
    folder = smollm2.folder()
    assert folder.parent == gguf.cache_folder()
    assert (folder / "model.safetensors").stat().st_size > 500_000_000
    assert "quantization" not in (folder / "config.json").read_text()
    assert not [name for name in os.listdir(folder.parent) if ".part-" in name]
