"""Rankings judged by known issues, against scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from lightning_inf.audit.ranks import rank
from lightning_inf.audit.truth import against_truth


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
