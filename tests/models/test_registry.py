"""Names to embedders, and the checks on what goes in and comes out."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from mnemic.cube.errors import InvalidOption, InvalidVector
from mnemic.models.openai_embedder import OpenAIEmbedder
from mnemic.models.registry import EMBEDDERS, load_embedder
from mnemic.models.static import StaticEmbedder
from mnemic.models.vectors import check_vectors


class Toy:
    name = "toy"
    dim: Any = 2
    inline: Any = True

    def embed(self, texts: Sequence[str]) -> Any:
        return np.tile(np.float32([1, 0]), (len(texts), 1))


@pytest.mark.parametrize("target", EMBEDDERS.values())
def test_each_row_of_the_table_resolves(target: str) -> None:
    module, _, attribute = target.partition(":")
    assert isinstance(getattr(importlib.import_module(module), attribute), type)


def test_names_load() -> None:
    assert isinstance(load_embedder(), StaticEmbedder)
    assert load_embedder("minilm").dim == 384
    remote = load_embedder("openai:nomic-embed-text:v1.5", base_url="http://localhost:11434/v1")
    assert isinstance(remote, OpenAIEmbedder)
    assert remote.name == "openai:nomic-embed-text:v1.5"
    toy = Toy()
    assert load_embedder(toy) is toy


@pytest.mark.parametrize(
    "spec", ["", "Static", "openai", "openai:", "openai: ", "static:x", "sentence-transformers"]
)
def test_an_unknown_name_lists_what_there_is(spec: str) -> None:
    with pytest.raises(InvalidOption, match=r'"static", "minilm", "openai:<model>"'):
        load_embedder(spec)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"dim": 0}, "dim"),
        ({"dim": True}, "dim"),
        ({"dim": "2"}, "dim"),
        ({"name": ""}, "name"),
        ({"name": 3}, "name"),
        ({"inline": None}, "inline"),
        ({"embed": 3}, "embed"),
    ],
)
def test_an_object_is_checked(change: dict[str, Any], told: str) -> None:
    with pytest.raises(InvalidOption, match=told):
        load_embedder(type("Odd", (Toy,), change)())


@pytest.mark.parametrize("spec", [None, 3, [], object(), Toy])
def test_what_is_no_embedder_is_told_what_it_lacks(spec: Any) -> None:
    with pytest.raises(InvalidOption):
        load_embedder(spec)


@pytest.mark.parametrize("spec", ["static", "minilm", Toy()])
def test_an_endpoint_is_refused_where_it_would_be_ignored(spec: Any) -> None:
    with pytest.raises(InvalidOption, match="openai:<model>"):
        load_embedder(spec, base_url="http://localhost:1/v1")


def test_vectors_are_normalised_and_copied() -> None:
    given = np.array([[3, 4], [0, -2]], np.float32)
    checked = check_vectors(given, 2, 2, "toy")
    np.testing.assert_allclose(checked, [[0.6, 0.8], [0, -1]], atol=1e-7)
    assert checked.dtype == np.float32
    assert given[0, 0] == 3
    extreme = check_vectors([[1e200, 1e200], [1e-300, 0.0]], 2, 2, "toy")
    np.testing.assert_allclose(extreme, [[2**-0.5] * 2, [1, 0]], atol=1e-7)
    assert check_vectors([], 0, 2, "toy").shape == (0, 2)
    assert check_vectors(np.float16([[1, 0]]), 1, 2, "toy").shape == (1, 2)


@pytest.mark.parametrize(
    "vectors",
    [
        None,
        [],
        [[1.0]],
        [[1.0, 2.0, 3.0]],
        [[1, 2], [3, 4]],
        [1.0, 2.0],
        [[1, None]],
        [["a", "b"]],
        [[1], [1, 2]],
        [[np.nan, 1]],
        [[np.inf, 1]],
        [[0.0, 0.0]],
        [[1j, 1]],
        [[True, False]],
        "ab",
    ],
)
def test_bad_vectors_are_refused_by_name(vectors: Any) -> None:
    with pytest.raises(InvalidVector, match="toy"):
        check_vectors(vectors, 1, 2, "toy")
