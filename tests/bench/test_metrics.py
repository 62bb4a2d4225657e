"""Every value here was worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from mnemic.bench.bootstrap import interval, paired_difference, rank_ranges
from mnemic.bench.metrics import (
    abstains,
    answer_f1,
    evidence_in,
    exact_match,
    ndcg_at_k,
    normalise,
    percentile,
    recall_all_at_k,
    recall_at_k,
    token_f1,
)

RANKING = ["a", "b", "c", "d", "e", "f"]


def test_recall_is_the_share_of_evidence_found() -> None:
    assert recall_at_k(RANKING, ["b", "f", "z"], 5) == pytest.approx(1 / 3)
    assert recall_at_k(RANKING, ["b", "f", "z"], 10) == pytest.approx(2 / 3)
    assert recall_all_at_k(RANKING, ["b", "f"], 5) == 0
    assert recall_all_at_k(RANKING, ["b", "f"], 6) == 1


def test_repeats_in_a_ranking_gain_nothing() -> None:
    assert ndcg_at_k(["a", "a", "b"], ["a", "b"], 10) == pytest.approx(1)
    assert recall_at_k(["a", "a", "b"], ["b"], 2) == 1


def test_ndcg_discounts_by_rank() -> None:
    # found at ranks 2 and 4 of two: (1/log2(3) + 1/log2(5)) / (1/log2(2) + 1/log2(3))
    expected = (1 / math.log2(3) + 1 / math.log2(5)) / (1 + 1 / math.log2(3))
    assert ndcg_at_k(RANKING, ["b", "d"], 10) == pytest.approx(expected) == pytest.approx(0.65092, abs=1e-5)
    assert ndcg_at_k(RANKING, ["a", "b"], 10) == 1
    assert ndcg_at_k(RANKING, ["z"], 10) == 0
    assert ndcg_at_k(["a"], [f"g{i}" for i in range(20)] + ["a"], 1) == 1  # one place can hold no more


def test_evidence_must_stand_in_the_context_but_for_white_space() -> None:
    assert evidence_in("Ana: I   live\nin Porto.", ["I live in Porto.", "I live in Rome."]) == 0.5


def test_normalisation_is_locomos() -> None:
    assert normalise("The 7th, of May; and a Cat!") == "7th of may cat"


def test_f1_counts_stemmed_tokens() -> None:
    # said: paint, sunris; wanted: she, paint, sunris -> 2·2/(2+3)
    assert token_f1("painting the sunrise", "She painted a sunrise") == pytest.approx(0.8)
    assert token_f1("nothing", "She painted") == 0
    assert token_f1("", "x") == 0
    assert token_f1("run run", "run") == pytest.approx(2 / 3)


def test_f1_follows_the_rule_of_each_category() -> None:
    # two gold parts: "red car" found (1), "blue bike" half (2·1/(2+1) = 2/3)
    assert answer_f1("bike, red car", "red car, blue bike", 1) == pytest.approx((1 + 2 / 3) / 2)
    assert answer_f1("yes", "Yes; she said so", 3) == 1
    assert answer_f1("yes", "Yes; she said so", 4) == pytest.approx(2 / 5)


def test_exact_match_forgives_what_normalisation_removes() -> None:
    assert exact_match("the Cat.", "cat") == 1
    assert exact_match("cats", "cat") == 0


@pytest.mark.parametrize(
    "said", ["", "No information available.", "It is not mentioned", "I don't know", "Unknown"]
)
def test_an_answer_that_refuses_abstains(said: str) -> None:
    assert abstains(said)


@pytest.mark.parametrize("said", ["Biscuit", "She does not like it", "7 May 2023", "no"])
def test_an_answer_that_answers_does_not(said: str) -> None:
    assert not abstains(said)


def test_percentiles_are_nearest_rank() -> None:
    assert percentile([4, 1, 3, 2], 0.5) == 2
    assert percentile([4, 1, 3, 2], 0.95) == 4
    assert percentile([7], 0.0) == 7


def test_an_interval_of_coin_flips_is_that_of_the_normal_approximation() -> None:
    flips = np.array([0.0, 1.0] * 200)
    found = interval(flips)
    half = 1.96 * 0.5 / math.sqrt(400)
    assert found.mean == 0.5
    assert (found.low, found.high) == (
        pytest.approx(0.5 - half, abs=0.006),
        pytest.approx(0.5 + half, abs=0.006),
    )
    assert interval(flips) == found  # seeded


def test_pairing_sees_a_difference_that_separate_intervals_hide() -> None:
    base = np.random.default_rng(1).random(300)
    better = base + 0.02
    assert interval(base).high > interval(better).low
    found = paired_difference(better, base)
    assert found.excludes_zero()
    assert found.low == pytest.approx(0.02) == pytest.approx(found.high)
    with pytest.raises(ValueError, match="same questions"):
        paired_difference(better, base[1:])


def test_places_are_shared_where_the_order_is_open() -> None:
    noise = np.random.default_rng(2).random((2, 300))
    places = rank_ranges({"low": noise[0] - 1, "one": noise[0], "other": noise[1]})
    assert places == {"one": (1, 2), "other": (1, 2), "low": (3, 3)}
