"""Agreement of rankings, against SciPy and by counting."""

import numpy as np
import pytest
from scipy.stats import spearmanr

from lightning_inf.audit.agreement import agreement, disagreement, most_different, overlap_curve
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


def test_the_overlap_curve_by_sets() -> None:
    make = np.random.default_rng(0)
    first, second = make.permutation(40) + 1, make.permutation(40) + 1
    found = overlap_curve(first, second, points=200)
    assert found["k"] == list(range(1, 41))
    for k, overlap in zip(found["k"], found["overlap"], strict=True):
        heads = [set(np.flatnonzero(rank <= k)) for rank in (first, second)]
        assert overlap == pytest.approx(len(heads[0] & heads[1]) / k)
    assert found["random"] == pytest.approx(np.arange(1, 41) / 40)


def test_the_random_baseline_is_what_unrelated_rankings_share() -> None:
    make = np.random.default_rng(1)
    curves = [overlap_curve(make.permutation(50) + 1, make.permutation(50) + 1) for _ in range(400)]
    means = np.mean([found["overlap"] for found in curves], axis=0)
    assert means == pytest.approx(np.array(curves[0]["random"]), abs=0.06)


def test_samples_that_one_ranking_lacks_are_left_out_of_the_curve() -> None:
    found = overlap_curve(np.array([1, 0, 3, 2]), np.array([4, 1, 3, 0]))
    assert found["k"] == [1, 2]
    assert found["overlap"] == [0.0, 1.0]
    assert overlap_curve(np.zeros(3, int), np.array([1, 2, 3]))["k"] == []


def test_disagreement_is_high_here_and_low_there() -> None:
    make = np.random.default_rng(2)
    first, second = make.permutation(100) + 1, make.permutation(100) + 1
    found = disagreement(first, second, 5)
    head = np.flatnonzero(first <= 10)
    assert found == sorted(head[second[head] > first[head]].tolist(), key=lambda i: -second[i])[:5]
    assert disagreement(first, first, 5) == []
    assert disagreement(np.zeros(3, int), np.zeros(3, int), 5) == []


def test_the_pair_that_is_shown_is_of_two_kinds_where_there_are() -> None:
    pairs = [
        {"scores": ["a", "b"], "spearman": -0.9},
        {"scores": ["a", "c"], "spearman": 0.4},
        {"scores": ["b", "c"], "spearman": None},
    ]
    assert most_different({"a": "self", "b": "self", "c": "references"}, pairs) == ("a", "c")
    assert most_different({"a": "self", "b": "self"}, pairs[:1]) == ("a", "b")
    assert most_different({}, []) is None
