"""Chunks of vectors: where they are cut, what stands for them, and which are looked into."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mnemic.cube.errors import InvalidOption
from mnemic.index.chunks import SUMMARIES, Chunks, best, cut

DIM = 6
groups = st.lists(st.integers(0, 3), max_size=40).map(lambda found: np.array(sorted(found), np.int64))


def vectors(rows: int, seed: int = 0) -> np.ndarray:
    drawn = np.random.default_rng(seed).standard_normal((rows, DIM)).astype(np.float32)
    return drawn / np.maximum(np.linalg.norm(drawn, axis=1, keepdims=True), 1e-9)


@given(groups, st.integers(1, 7))
def test_a_chunk_is_rows_of_one_group_in_a_row_and_only_the_last_of_a_group_is_short(
    found: np.ndarray, size: int
) -> None:
    start = cut(found, size)
    parts = np.split(np.arange(len(found)), start[1:]) if len(found) else []
    assert [int(part[0]) for part in parts] == start.tolist()
    for part, following in zip(parts, [*parts[1:], None], strict=False):
        assert len(set(found[part])) == 1
        assert len(part) <= size
        if following is not None and found[following[0]] == found[part[0]]:
            assert len(part) == size


@pytest.mark.parametrize("summary", SUMMARIES)
def test_a_summary_is_what_it_says(summary: str) -> None:
    x, start = vectors(10), np.array([0, 3, 4])
    chunks = Chunks(x, start, summary=summary)  # type: ignore[arg-type]
    for n, part in enumerate(np.split(x, start[1:])):
        wanted = {"mean": part.mean(0), "max": part.max(0)}.get(summary)
        if wanted is None:
            wanted = part.mean(0) / np.linalg.norm(part.mean(0))
        np.testing.assert_allclose(chunks.summaries[n], wanted, atol=1e-6)
    assert chunks.nbytes > 0


@given(groups, st.integers(1, 7), st.integers(0, 12), st.data())
def test_the_best_chunks_that_hold_something_allowed_are_looked_into(
    found: np.ndarray, size: int, chunks: int, data: st.DataObject
) -> None:
    x = vectors(len(found))
    made, query = Chunks(x, cut(found, size)), vectors(1, seed=1)[0]
    allowed = np.array(data.draw(st.lists(st.booleans(), min_size=len(x), max_size=len(x))), np.bool_)
    look = made.look(query, chunks=chunks, allowed=allowed)
    parts = np.split(np.arange(len(x)), made.start[1:]) if len(x) else []
    offered = [n for n, part in enumerate(parts) if allowed[part].any()]
    relevance = made.summaries @ query
    expected = sorted(offered, key=lambda n: (-relevance[n], -n))[:chunks]
    assert set(look.chunks) == set(expected)
    assert (np.diff(look.relevance) <= 0).all()
    inside = sorted(row for n in expected for row in parts[n])
    assert look.rows.tolist() == inside
    assert look.compared == len(parts) + len(inside)


@given(groups, st.integers(1, 7))
def test_looking_into_all_chunks_is_looking_at_everything(found: np.ndarray, size: int) -> None:
    x = vectors(len(found))
    look = Chunks(x, cut(found, size)).look(vectors(1, seed=1)[0], chunks=100)
    assert look.rows.tolist() == list(range(len(x)))


def test_ties_go_to_the_later() -> None:
    values = np.array([1, 3, 3, 2, 3], np.float32)
    assert best(values, 2).tolist() == [4, 2]
    assert best(values, 9).tolist() == [4, 2, 1, 3, 0]
    assert best(values, 0).tolist() == best(values[:0], 3).tolist() == []


def test_what_is_no_cut_is_refused() -> None:
    for size in (0, -1, 2.0, True):
        with pytest.raises(InvalidOption, match="at least one row"):
            cut(np.zeros(3, np.int64), size)  # type: ignore[arg-type]
    for start in ([1, 2], [0, 2, 2], [0, 4]):
        with pytest.raises(InvalidOption, match="start"):
            Chunks(vectors(4), np.array(start))
    with pytest.raises(InvalidOption, match="median"):
        Chunks(vectors(4), np.array([0]), summary="median")  # type: ignore[arg-type]
