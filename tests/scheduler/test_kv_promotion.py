"""What is in use is read once; what is not, or has changed, is not kept."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import mnemic
from language_models import needs_torch, tiny_llama
from mnemic.cube.errors import InvalidOption

pytestmark = needs_torch


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[mnemic.Memory]:
    with mnemic.open(tmp_path / "ana.db") as opened:
        for number in range(4):
            opened.add(f"The locker code of number {number} is 471{number}.", user="ana", id=str(number))
        yield opened


def test_a_text_in_use_is_promoted_and_the_one_used_longest_ago_makes_room(memory: mnemic.Memory) -> None:
    from mnemic.activation.kv_description import Description
    from mnemic.scheduler.kv_promotion import KVShelf, Promotion

    model = tiny_llama()
    cubes = memory.list(user="ana")
    size = Description.of(memory.as_kv([cubes[0]], model)).size
    shelf = KVShelf(memory._parts.vault, model, Promotion(uses=2, window=6, settled=0, bytes=2 * size + 99))
    assert shelf.use(cubes[0]) is None
    first = shelf.use(cubes[0])
    assert first is not None
    assert shelf.tokens_read == Description.of(first).tokens
    assert shelf.use(cubes[0]) == first
    assert [shelf.use(cubes[1]) is None, shelf.use(cubes[1]) is None] == [True, False]
    assert shelf.use(cubes[0]) == first
    assert [shelf.use(cubes[2]) is None, shelf.use(cubes[2]) is None] == [True, False]
    assert shelf.resident_bytes <= 2 * size + 99
    assert shelf.use(cubes[0]) == first  # it was cube 1 that went
    files = list(Path(memory._parts.vault.blobs.folder or "").iterdir())
    assert len(files) == 2  # the file of what was demoted is gone; the first one's is shared with the probe


def test_a_text_has_to_settle_and_one_that_changes_starts_again(memory: mnemic.Memory) -> None:
    from mnemic.scheduler.kv_promotion import KVShelf, Promotion

    model = tiny_llama()
    shelf = KVShelf(memory._parts.vault, model, Promotion(uses=2, window=9, settled=3))
    cube = memory.list(user="ana")[0]
    assert [shelf.use(cube) is None for _ in range(4)] == [True, True, False, False]  # told long ago
    memory.update(cube.id, "The locker code of number 0 is 9000.")
    changed = memory.get(cube.id)
    assert [shelf.use(changed) is None for _ in range(4)] == [True, True, True, False]
    kept = shelf.use(changed)
    assert kept is not None
    with memory.mount(model, kept) as mounted:
        assert "9000" in model.tokenizer.decode(mounted.kv.ids)


def test_what_is_larger_than_the_shelf_is_built_once_and_takes_nobodys_place(memory: mnemic.Memory) -> None:
    from mnemic.activation.kv_description import Description
    from mnemic.scheduler.kv_promotion import KVShelf, Promotion

    model = tiny_llama()
    small = memory.list(user="ana")[0]
    (large,) = memory.add("The locker code of the caretaker is 4711. " * 20, user="ana")
    size = Description.of(memory.as_kv([small], model)).size
    shelf = KVShelf(memory._parts.vault, model, Promotion(uses=1, window=9, settled=0, bytes=2 * size))
    kept = shelf.use(small)
    assert kept is not None
    assert shelf.use(large) is None
    read = shelf.tokens_read
    assert [shelf.use(large) for _ in range(3)] == [None] * 3
    assert shelf.tokens_read == read
    assert shelf.use(small) == kept


def test_the_file_of_the_first_is_not_counted_where_somebody_dropped_it(memory: mnemic.Memory) -> None:
    from mnemic.activation.kv_keeping import drop
    from mnemic.scheduler.kv_promotion import KVShelf, Promotion

    shelf = KVShelf(memory._parts.vault, tiny_llama(), Promotion(uses=1, window=5, settled=0))
    cube = memory.list(user="ana")[0]
    kept = shelf.use(cube)
    assert kept is not None
    drop(memory._parts.vault, kept.id)
    again = shelf.use(cube)
    assert again is not None
    assert again.id != kept.id


@pytest.mark.parametrize("options", [{"uses": 0}, {"window": 2}, {"bytes": 0}, {"settled": -1}])
def test_options_are_checked(options: dict[str, int]) -> None:
    from mnemic.scheduler.kv_promotion import Promotion

    with pytest.raises(InvalidOption):
        Promotion(**options)
