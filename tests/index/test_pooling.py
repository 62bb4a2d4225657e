"""Tokens to vectors: the fast form gives the same bits however texts are grouped."""

from __future__ import annotations

from unittest.mock import patch

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mnemic.index import pooling
from mnemic.index.pooling import pool, token_weights

TABLE = np.random.default_rng(3).standard_normal((50, 16)).astype(np.float16)
WEIGHTS = token_weights(np.arange(40, dtype=np.uint16) % 7, 50)


@given(st.lists(st.lists(st.integers(0, 49), max_size=40), max_size=40), st.integers(1, 8))
def test_alone_or_together_gives_the_same_bits(ids: list[list[int]], block: int) -> None:
    lengths = np.array([len(one) for one in ids], np.int64)
    flat = np.array([token for one in ids for token in one], np.uint16)
    with patch.object(pooling, "BLOCK", block):
        together = pool(flat, lengths, TABLE, WEIGHTS)
    for one, row in zip(ids, together, strict=True):
        alone = pool(np.array(one, np.uint16), np.array([len(one)], np.int64), TABLE, WEIGHTS)
        assert alone.tobytes() == row.tobytes()
    assert together.shape == (len(ids), 16)


def test_a_long_text_is_pooled_as_its_definition_says() -> None:
    ids = (np.arange(3 * pooling.LONG) % 50).astype(np.uint16)
    found = pool(ids, np.array([len(ids)], np.int64), TABLE, WEIGHTS)[0]
    wanted = (TABLE[ids].astype(float) * WEIGHTS[ids, None]).sum(axis=0)
    np.testing.assert_allclose(found, wanted / np.linalg.norm(wanted), atol=1e-4)


def test_long_and_short_texts_are_summed_in_the_same_order() -> None:
    ids = (np.arange(pooling.LONG + 1) * 7 % 50).astype(np.uint16)
    short = pool(ids[:-1], np.array([pooling.LONG], np.int64), TABLE, WEIGHTS)
    both = pool(np.concatenate([ids, ids[:-1]]), np.array([len(ids), len(ids) - 1], np.int64), TABLE, WEIGHTS)
    assert both[1].tobytes() == short[0].tobytes()


def test_frequent_tokens_weigh_less_and_unseen_ones_one() -> None:
    weights = token_weights(np.array([1, 1, 1, 2], np.uint16), 4)
    assert weights[1] < weights[2] < weights[3] == weights[0] == 1
    np.testing.assert_allclose(weights[1], 1e-3 / (1e-3 + 0.75), rtol=1e-5)
