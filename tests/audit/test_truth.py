"""Rankings judged by known issues, against scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score

from lightning_inf.audit.ranks import rank
from lightning_inf.audit.truth import against_truth, average_precision_interval, curve


@pytest.mark.parametrize("seed", range(3))
def test_against_scikit_learn(seed: int) -> None:
    make = np.random.default_rng(seed)
    known = make.random(200) < 0.15
    score = make.normal(size=200) - 1.2 * known
    ranks = rank(score, "lowest")
    found = against_truth(known, {"score": ranks, "other": rank(make.normal(size=200), "highest")})
    assert found["count"] == known.sum()
    assert found["prevalence"] == pytest.approx(known.mean())
    assert set(found["methods"]) == {"score", "other"}
    entry = found["methods"]["score"]
    assert entry["average_precision"] == pytest.approx(average_precision_score(known, -ranks.astype(float)), abs=1e-5)
    assert entry["auroc"] == pytest.approx(roc_auc_score(known, -ranks.astype(float)), abs=1e-5)
    assert entry["precision_at_k"]
    for k, value in entry["precision_at_k"].items():
        first = known[np.argsort(ranks)[: int(k)]]
        assert value == pytest.approx(first.mean(), abs=1e-6)
        assert entry["recall_at_k"][k] == pytest.approx(first.sum() / known.sum(), abs=1e-6)


def test_a_sample_without_a_rank_is_the_least_suspicious() -> None:
    known = np.array([True, False, True, False])
    found = against_truth(known, {"x": np.array([1, 2, 0, 3])})["methods"]["x"]
    assert found["average_precision"] == pytest.approx(average_precision_score(known, [3, 2, 0, 1]))


@pytest.mark.parametrize("known", [[False] * 3, [True] * 3])
def test_where_nothing_can_be_said_there_is_none(known: list[bool]) -> None:
    found = against_truth(np.array(known), {"x": np.array([1, 2, 3])})
    entry = found["methods"]["x"]
    assert entry["auroc"] is None
    assert entry["average_precision"] in (None, 1.0)
    assert found["count"] == sum(known)
    assert all(v is None or 0 <= v <= 1 for v in (*entry["precision_at_k"].values(), *entry["recall_at_k"].values()))


def test_many_samples_do_not_become_ties() -> None:
    """A rank over n must stay distinct in the metric's precision."""
    known = np.zeros(100_000, dtype=bool)
    known[:50_000:2] = True
    found = against_truth(known, {"x": np.arange(1, 100_001)})["methods"]["x"]
    expected = average_precision_score(known, -np.arange(100_000.0))
    assert found["average_precision"] == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("seed", range(3))
def test_the_curve_against_scikit_learn(seed: int) -> None:
    make = np.random.default_rng(seed)
    known = make.random(150) < 0.2
    ranks = rank(make.normal(size=150) - 1.5 * known, "lowest")
    found = curve(known, ranks, points=1_000)
    precision, recall, _ = precision_recall_curve(known, -ranks.astype(float))
    # Scikit-learn has a point for every rank, by rising precision; ours are those at which an issue is found.
    theirs = {round(float(r), 5): round(float(p), 5) for p, r in zip(precision[:-1], recall[:-1], strict=True)}
    highest: dict[float, float] = {}
    for p, r in zip(precision[:-1], recall[:-1], strict=True):
        highest[round(float(r), 5)] = max(highest.get(round(float(r), 5), 0.0), round(float(p), 5))
    assert len(found["k"]) == known.sum()
    assert dict(zip(found["recall"], found["precision"], strict=True)) == {r: highest[r] for r in theirs if r > 0}


def test_the_band_is_wilsons_of_scipy() -> None:
    known = np.array([True, False, True, True, False, False, True])
    found = curve(known, np.arange(1, 8))
    for k, recall, low, high in zip(found["k"], found["recall"], found["low"], found["high"], strict=True):
        expected = binomtest(round(recall * 4), k).proportion_ci(method="wilson")
        assert (low, high) == (pytest.approx(expected.low, abs=1e-5), pytest.approx(expected.high, abs=1e-5))


def test_a_long_curve_is_cut_and_keeps_its_ends() -> None:
    known = np.random.default_rng(0).random(5_000) < 0.3
    found = curve(known, np.arange(1, 5_001), points=100)
    assert len(found["k"]) == 100
    assert found["k"][0] == np.flatnonzero(known)[0] + 1
    assert found["recall"][-1] == 1.0


def test_the_interval_is_that_of_weighted_average_precision() -> None:
    """The same draws, judged by scikit-learn, where the unranked samples, issues among them, are tied."""
    make = np.random.default_rng(5)
    known = make.random(80) < 0.3
    ranks = rank(make.normal(size=80) - known, "lowest")
    ranks[ranks > 50] = 0
    assert known[ranks == 0].any()
    score = np.where(ranks > 0, -ranks, -1_000).astype(float)
    order = np.argsort(-score, kind="stable")
    draws = np.random.default_rng(0)
    values = []
    for _ in range(50):
        weights = np.bincount(draws.integers(0, 80, 80), minlength=80)
        values.append(average_precision_score(known[order], score[order], sample_weight=weights))
    low, high = average_precision_interval(known, ranks, resamples=50)
    assert [low, high] == pytest.approx(np.quantile(values, [0.025, 0.975]), abs=1e-5)


def test_without_issues_or_with_nothing_else_there_is_no_interval() -> None:
    assert average_precision_interval(np.zeros(4, bool), np.arange(1, 5)) is None
    assert average_precision_interval(np.ones(4, bool), np.arange(1, 5)) is None
    assert curve(np.zeros(4, bool), np.arange(1, 5))["k"] == []
    assert against_truth(np.zeros(0, bool), {"x": np.zeros(0, int)})["methods"]["x"]["interval"] is None
