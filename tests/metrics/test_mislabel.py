import json
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score

from lightning_inf.metrics import MislabelDetection


def whole(suspicion, is_issue, **kwargs):
    metric = MislabelDetection(**kwargs)
    metric.update(suspicion, is_issue)
    return metric.compute()


@given(
    st.lists(st.tuples(st.integers(-5, 5), st.booleans()), min_size=1, max_size=50),
    st.lists(st.integers(0, 50), max_size=4),
)
@settings(max_examples=60)
def test_chunks_give_the_whole(samples, cuts):
    suspicion = torch.tensor([float(score) for score, _ in samples])
    is_issue = torch.tensor([flag for _, flag in samples])
    chunked = MislabelDetection(k=[1, 3])
    edges = [0, *sorted(min(cut, len(samples)) for cut in cuts), len(samples)]
    for start, stop in pairwise(edges):
        chunked.update(suspicion[start:stop], is_issue[start:stop])
    assert chunked.compute() == whole(suspicion, is_issue, k=[1, 3])


def test_against_scikit_learn_and_plain_counting():
    generator = torch.Generator().manual_seed(0)
    is_issue = torch.rand(400, generator=generator) < 0.1
    suspicion = torch.randn(400, generator=generator) + is_issue
    result = whole(suspicion, is_issue)
    issues = int(is_issue.sum())
    ranked = is_issue[suspicion.argsort(descending=True)]
    assert result["average_precision"] == pytest.approx(average_precision_score(is_issue, suspicion), abs=1e-6)
    assert result["auroc"] == pytest.approx(roc_auc_score(is_issue, suspicion), abs=1e-6)
    assert list(result["precision_at_k"]) == sorted({10, 50, 100, issues})
    for k in (10, 50, 100, issues):
        assert result["precision_at_k"][k] == pytest.approx(int(ranked[:k].sum()) / k)
        assert result["recall_at_k"][k] == pytest.approx(int(ranked[:k].sum()) / issues)
    for percent, inspected in ((1, 4), (5, 20), (10, 40), (20, 80), (50, 200)):
        assert result["found_after"][percent] == pytest.approx(int(ranked[:inspected].sum()) / issues)
    assert result["prevalence"] == issues / 400
    assert result["count"] == 400


def test_perfect_and_reversed_rankings():
    is_issue = torch.arange(200) >= 190
    best = whole(torch.arange(200.0), is_issue)
    assert best["average_precision"] == best["auroc"] == best["precision_at_k"][10] == best["recall_at_k"][10] == 1
    assert best["found_after"] == {1: 0.2, 5: 1.0, 10: 1.0, 20: 1.0, 50: 1.0}
    worst = whole(-torch.arange(200.0), is_issue)
    assert worst["auroc"] == worst["found_after"][50] == 0


@given(st.permutations(range(30)))
@settings(max_examples=30)
def test_order_of_distinct_scores_and_monotone_transforms_do_not_matter(order):
    is_issue = torch.arange(30) % 4 == 0
    suspicion = torch.arange(30.0).sin()
    result = whole(suspicion, is_issue, k=[5])
    assert whole(suspicion[list(order)], is_issue[list(order)], k=[5]) == result
    assert whole(suspicion.double().mul(3).exp() - 7, is_issue, k=[5]) == result


def test_default_k_drops_what_exceeds_the_samples():
    assert list(whole(torch.arange(20.0), torch.arange(20) < 3)["recall_at_k"]) == [3, 10]
    assert list(whole(torch.arange(4.0), torch.zeros(4, dtype=torch.bool))["recall_at_k"]) == []


def test_undefined_values_are_none_and_the_result_is_json():
    clean = whole(torch.arange(20.0), torch.zeros(20, dtype=torch.bool))
    assert clean["average_precision"] is clean["auroc"] is clean["recall_at_k"][10] is clean["found_after"][1] is None
    assert clean["precision_at_k"][10] == clean["prevalence"] == 0
    everything = whole(torch.arange(20.0), torch.ones(20, dtype=torch.bool), k=[20, 21])
    assert everything["average_precision"] is everything["auroc"] is everything["precision_at_k"][21] is None
    assert everything["recall_at_k"] == {20: 1.0, 21: None}
    empty = whole(torch.zeros(0), torch.zeros(0, dtype=torch.bool))
    assert (empty["count"], empty["prevalence"], empty["average_precision"]) == (0, None, None)
    for result in (clean, everything, empty):
        json.dumps(result, allow_nan=False)


def test_refuses_bad_input_and_keeps_what_it_had():
    metric = MislabelDetection()
    metric.update(torch.tensor([1.0, 0.0]), torch.tensor([True, False]))
    with pytest.raises(ValueError, match="`suspicion` to be finite, found 2 of 3"):
        metric.update(torch.tensor([float("nan"), 0.0, float("-inf")]), torch.tensor([True, False, True]))
    with pytest.raises(TypeError, match=r"`is_issue` to be a bool tensor, found torch\.int64"):
        metric.update(torch.tensor([1.0, 0.0]), torch.tensor([1, 0]))
    with pytest.raises(ValueError, match=r"`is_issue` of shape \(2\), found \(3,\)"):
        metric.update(torch.zeros(2), torch.zeros(3, dtype=torch.bool))
    with pytest.raises(ValueError, match=r"`suspicion` of shape \(any\)"):
        metric.update(torch.zeros(2, 1), torch.zeros(2, dtype=torch.bool))
    assert metric.compute()["count"] == 2
    with pytest.raises(ValueError, match="positive whole numbers"):
        MislabelDetection(k=[0])


def test_does_not_hold_on_to_the_graph():
    metric = MislabelDetection()
    metric.update(torch.ones(2, requires_grad=True, dtype=torch.float64) * 2, torch.tensor([True, False]))
    assert not metric.suspicion[0].requires_grad
