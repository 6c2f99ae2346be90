"""What counts as memorised."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import iqr

from lightning_inf.audit.memorized import RULE_ALONE, ends, memorized


def test_the_fence_against_scipy() -> None:
    values = np.random.default_rng(0).lognormal(0, 1.5, 500)
    probability = np.random.default_rng(1).random(500)
    found = memorized(values, probability)
    assert found.threshold == pytest.approx(np.quantile(values, 0.75) + 3 * iqr(values))
    np.testing.assert_array_equal(found.high, values > found.threshold)
    np.testing.assert_array_equal(found.is_memorized, found.high & (probability > 0.5))
    assert 0 < found.count < found.high.sum()


def test_an_even_spread_has_nobody_beyond_the_fence() -> None:
    found = memorized(np.random.default_rng(0).random(200), np.ones(200))
    assert found.count == found.high.sum() == 0


def test_equal_values_and_single_samples_are_not_memorised() -> None:
    for values in (np.ones(50), np.ones(1), np.zeros(0), np.full(4, np.nan)):
        assert memorized(values, np.ones(len(values))).count == 0
    assert memorized(np.full(4, np.nan), None).threshold is None


def test_values_that_are_not_finite_are_unknown_and_move_nothing() -> None:
    values = np.random.default_rng(0).lognormal(0, 1.5, 100)
    spoiled = np.concatenate([values, [np.nan, np.inf, -np.inf]])
    found = memorized(spoiled, np.ones(103))
    assert found.threshold == memorized(values, np.ones(100)).threshold
    assert not found.known[100:].any()
    assert not found.high[100:].any()


@pytest.mark.parametrize("probability", [None, np.full(9, np.nan)])
def test_without_labels_the_effort_alone_counts(probability: np.ndarray | None) -> None:
    found = memorized(np.array([1.0] * 4 + [2.0] * 4 + [99.0]), probability)
    assert found.rule == RULE_ALONE
    assert np.flatnonzero(found.is_memorized).tolist() == [8]


def test_a_probability_that_is_unknown_is_not_learnt() -> None:
    found = memorized(np.array([1.0] * 4 + [2.0] * 4 + [99.0]), np.array([0.9] * 8 + [np.nan]))
    assert found.high.sum() == 1
    assert found.count == 0


def test_the_ends_are_cut_and_in_order() -> None:
    rank = np.array([3, 1, 0, 2, 4, 5])
    issue = np.array([True, False, True, True, False, False])
    assert ends(rank, issue, 2) == ([1, 4], [3, 0])
    assert ends(np.zeros(3, int), np.zeros(3, bool), 2) == ([], [])
