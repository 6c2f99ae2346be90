"""Agreement of rankings, against SciPy and by counting."""

import numpy as np
import pytest
from scipy.stats import spearmanr

from lightning_inf.audit.agreement import agreement
from lightning_inf.audit.ranks import rank


def compare(scores, issues):
    return agreement(scores, {name: rank(values, "highest") for name, values in scores.items()}, issues)


def test_correlations_are_scipys_and_overlaps_are_counted():
    generator = np.random.default_rng(0)
    scores = {"a": generator.normal(size=300), "b": generator.integers(0, 5, 300).astype(float)}
    scores["c"] = scores["a"] + 0.3 * generator.normal(size=300)
    scores["c"][:40] = np.nan
    scores["a"][20:50] = np.inf  # not finite: neither in the correlation nor among the first
    found = compare(scores, issues=25)
    assert (found["k"], found["samples"], found["random_overlap"]) == (25, 300, 25 / 300)
    assert [pair["scores"] for pair in found["pairs"]] == [["a", "b"], ["a", "c"], ["b", "c"]]
    for pair in found["pairs"]:
        left, right = (scores[name] for name in pair["scores"])
        both = np.isfinite(left) & np.isfinite(right)
        assert pair["samples"] == both.sum()
        assert pair["spearman"] == pytest.approx(spearmanr(left[both], right[both]).statistic, abs=1e-12)
        heads = []
        for values in (left, right):
            known = np.flatnonzero(np.isfinite(values))
            heads.append(set(known[np.argsort(-values[known], kind="stable")][:25].tolist()))
        assert pair["overlap"] == len(heads[0] & heads[1]) / 25


def test_rankings_that_have_nothing_to_do_with_each_other_share_the_random_part():
    generator = np.random.default_rng(1)
    found = [compare({n: generator.normal(size=200) for n in "ab"}, issues=40) for _ in range(100)]
    assert found[0]["random_overlap"] == 0.2
    assert np.mean([one["pairs"][0]["overlap"] for one in found]) == pytest.approx(0.2, abs=0.02)


def test_k_is_at_least_one_per_cent():
    scores = {n: np.arange(250.0) for n in "ab"}
    assert compare(scores, issues=0)["k"] == 3
    assert compare(scores, issues=1000)["k"] == 250
    assert compare(scores, issues=0)["pairs"][0]["overlap"] == 1.0


def test_what_is_not_known_is_none():
    constant = compare({"a": np.zeros(10), "b": np.arange(10.0)}, issues=1)
    assert constant["pairs"][0]["spearman"] is None
    absent = compare({"a": np.full(10, np.nan), "b": np.arange(10.0)}, issues=1)
    assert absent["pairs"][0] == {"scores": ["a", "b"], "samples": 0, "spearman": None, "overlap": None}
    assert compare({"a": np.arange(10.0)}, issues=1)["pairs"] == []
    assert compare({}, issues=0) == {"k": 0, "samples": 0, "random_overlap": None, "pairs": []}
