"""The profile of a data set: where the evidence lies, and how scattered it is."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from mnemic.bench.locomo import load
from mnemic.bench.profile import expected_ndcg, profile, scatter


def test_evidence_on_top_is_not_hidden_and_ties_are_averaged() -> None:
    assert expected_ndcg(np.array([3.0, 2.0, 1.0]), [0, 1]) == 1
    assert expected_ndcg(np.array([3.0, 2.0, 1.0]), [2]) == pytest.approx(1 / math.log2(4))
    every_order = (1 + 1 / math.log2(3) + 1 / math.log2(4)) / 3
    assert expected_ndcg(np.zeros(3), [1]) == pytest.approx(every_order)


def test_scatter_is_0_when_adjacent_and_1_when_alone_and_everywhere() -> None:
    assert scatter([4], 10) == 0
    assert scatter([3, 4, 5], 10) == 0
    assert scatter([0, 9], 10) == 1
    assert scatter([0, 1, 9], 10) == pytest.approx(0.5)


def test_a_profile_covers_each_category_and_all(data: Path) -> None:
    found = profile(load(data))
    assert set(found) == {"multi-hop", "temporal", "single-hop", "all"}
    assert found["all"]["questions"] == 6
    assert found["multi-hop"]["units"] == 2
    assert found["multi-hop"]["scattered"] == pytest.approx(3 / 5)  # places 0 and 3 of six
    assert 0 < found["all"]["share"] < 1
