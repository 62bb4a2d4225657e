"""What a token costs: counted while a step runs, and equal to what can be counted by hand."""

from __future__ import annotations

from pathlib import Path

import pytest

from mnemic.bench.layers.costs import DIM, HEADS, cost, costs, pages
from mnemic.bench.layers.pages import page_of
from mnemic.layers.table import LAYERS

SIZE = DIM // HEADS
DOCS = Path(__file__).parents[2] / "docs"


def test_products_with_weights_are_told_from_those_with_the_state() -> None:
    found = cost("linear")
    assert found.maps == 2 * 4 * DIM * DIM  # q, k, v and out
    assert found.weights == 4 * 4 * DIM * DIM
    written_and_read = 4 * HEADS * SIZE * (SIZE + 1)
    assert written_and_read < found.beyond < 1.1 * written_and_read
    assert found.state == 4 * HEADS * SIZE * (SIZE + 1) + 4
    assert found.moved > 3 * found.state


def test_attention_pays_for_what_it_has_read_and_a_memory_does_not() -> None:
    short, long = (cost("attention", before=before) for before in (100, 400))
    assert long.beyond > 3.5 * short.beyond
    assert long.state == pytest.approx(4 * short.state, rel=1e-3)
    assert cost("hebbian", before=100) == cost("hebbian", before=400)


def test_an_lstm_has_nothing_but_its_maps() -> None:
    found = cost("lstm")
    assert found.maps == 2 * (4 + 4 + 1) * DIM * DIM
    assert found.beyond < 20 * DIM


def test_the_pages_are_what_the_command_writes() -> None:
    found = costs()
    assert set(found) == set(LAYERS)
    for path, text in pages(DOCS, found).items():
        assert path.read_text(encoding="utf-8") == text, "run: python -m mnemic.bench.layers.costs docs"
    for name, one in found.items():
        page = (DOCS / page_of(name)).read_text(encoding="utf-8")
        assert f"{one.beyond:,}" in page
        assert f"{one.moved:,}" in page
