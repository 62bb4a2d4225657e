"""A memory with three texts, and a tiny model that has read them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import mnemic
from language_models import tiny_llama

TEXTS = ("Ana moved to Porto in March.", "Tom is allergic to walnuts.", "The locker code of Ida is 4711.")


class Told(NamedTuple):
    memory: mnemic.Memory
    ids: list[str]
    model: Any
    path: Path


@pytest.fixture
def told(tmp_path: Path) -> Iterator[Told]:
    path = tmp_path / "ana.db"
    with mnemic.open(path) as memory:
        ids = [memory.add(text, user="ana")[0].id for text in TEXTS]
        yield Told(memory, ids, tiny_llama(), path)
