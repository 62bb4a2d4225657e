"""A memory made again takes the place of the old one: never before it is stored, never unasked for another
model."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from learners import STATEMENTS, learner

import mnemic
from language_models import needs_torch, tiny_llama
from mnemic.cube.errors import IncompatibleMemory, InvalidFile, NotFound
from mnemic.parametric.keeping import listing

pytestmark = needs_torch
pytest.importorskip("peft")


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[mnemic.Memory]:
    with mnemic.open(tmp_path / "ana.db") as made:
        for text in STATEMENTS:
            made.add(text, user="ana")
        yield made


def searched(memory: mnemic.Memory, count: int = 4) -> Any:
    from mnemic.parametric.nearest import Search
    from mnemic.transform.text_to_memory import Options

    options = Options(form="exact", search=Search(k=4, temperature=0.1))
    return memory.as_memory(memory.list(user="ana")[:count], learner(), options=options)


def kept(memory: mnemic.Memory) -> list[str]:
    return [one.cube.id for one in listing(memory._parts.vault, user="ana")]


def test_another_model_takes_it_over_only_when_that_is_said(memory: mnemic.Memory) -> None:
    old, other = searched(memory), tiny_llama(seed=1)
    with pytest.raises(IncompatibleMemory, match=r"tiny-0 would lose it.*for_another_model") as refused:
        memory.retrain(old, other)
    assert refused.value.part == "weights"
    assert kept(memory) == [old.id]
    made = memory.retrain(old, other, for_another_model=True)
    assert kept(memory) == [made.id]
    with memory.mount(other, made) as mounted:
        mounted.answer("What is the code of Ida?", max_tokens=2)
    assert memory.retrain(made, other).id != made.id  # the same model needs no word


def test_one_that_another_process_has_dropped_meanwhile_is_no_loss(
    memory: mnemic.Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mnemic.transform import retraining

    old, made = searched(memory), retraining.as_memory

    def and_dropped(vault: Any, *given: Any, **told: Any) -> Any:
        new = made(vault, *given, **told)
        retraining.drop(vault, old.id)
        return new

    monkeypatch.setattr(retraining, "as_memory", and_dropped)
    new = memory.retrain(old, learner())
    assert kept(memory) == [new.id]
    with pytest.raises(NotFound, match="dropped"):
        memory.retrain(old, learner())


@pytest.mark.parametrize("damage", ["cut", "empty", "flipped", "gone", "another"])
def test_a_damaged_file_is_refused_and_a_new_one_made_from_the_texts(
    memory: mnemic.Memory, damage: str
) -> None:
    old, other = searched(memory), searched(memory, 3)
    folder = memory._parts.vault.blobs.folder
    assert folder is not None
    assert old.blob is not None
    assert other.blob is not None
    path = folder / old.blob.id
    content = bytearray(path.read_bytes())
    if damage == "gone":
        path.unlink()
    elif damage == "another":
        path.write_bytes((folder / other.blob.id).read_bytes())
    else:
        content[len(content) // 2] ^= 4
        path.write_bytes(content[: {"cut": -100, "empty": 0}.get(damage, len(content))])
    with pytest.raises((InvalidFile, NotFound), match=r"compile|again"), memory.mount(learner(), old):
        pass
    made = memory.retrain(old, learner())
    assert old.id not in kept(memory)
    with memory.mount(learner(), made) as mounted:
        mounted.answer("What is the code of Ida?", max_tokens=2)
