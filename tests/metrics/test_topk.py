import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import top_k_accuracy_score

from lightning_inf.metrics import TopKDetection


def test_against_scikit_learn_and_scipy():
    generator = torch.Generator().manual_seed(0)
    target = torch.randint(0, 20, (60,), generator=generator)
    scores = torch.randn(60, 20, generator=generator) + torch.nn.functional.one_hot(target, 20)
    metric = TopKDetection()
    metric.update(scores, target)
    result = metric.compute()
    assert result["count"] == 60
    for k in (1, 5, 10):
        expected = top_k_accuracy_score(target, scores, k=k, labels=range(20))
        assert result["hit_rate"][k] == pytest.approx(expected)
        interval = stats.binomtest(round(expected * 60), 60).proportion_ci(method="wilson")
        assert result["interval"][k] == pytest.approx([interval.low, interval.high])


@given(st.lists(st.integers(1, 12), min_size=1, max_size=30), st.integers(0, 30))
@settings(max_examples=50)
def test_ranks_in_chunks_in_any_order(ranks, cut):
    metric = TopKDetection(k=(10, 1))
    metric.update(rank=torch.tensor(ranks[cut:], dtype=torch.long))
    metric.update(rank=torch.tensor(ranks[:cut], dtype=torch.long))
    result = metric.compute()
    assert list(result["hit_rate"]) == [1, 10]
    for k in (1, 10):
        assert result["hit_rate"][k] == pytest.approx(sum(rank <= k for rank in ranks) / len(ranks))


def test_scores_and_their_ranks_agree():
    scores, target = torch.tensor([[3.0, 1.0, 2.0], [1.0, 2.0, 3.0]]), torch.tensor([2, 2])
    by_scores, by_rank = TopKDetection(k=[1, 2]), TopKDetection(k=[1, 2])
    by_scores.update(scores, target)
    by_rank.update(rank=torch.tensor([2, 1]))
    assert by_scores.compute() == by_rank.compute()
    assert by_scores.compute()["hit_rate"] == {1: 0.5, 2: 1.0}


def test_constant_scores_earn_no_hit():
    metric = TopKDetection(k=[1, 5])
    metric.update(torch.zeros(4, 10), torch.zeros(4, dtype=torch.long))
    assert metric.compute()["hit_rate"] == {1: 0.0, 5: 0.0}


def test_no_queries_is_none_and_json():
    metric = TopKDetection()
    metric.update(rank=torch.zeros(0, dtype=torch.long))
    result = metric.compute()
    assert result == {
        "hit_rate": dict.fromkeys((1, 5, 10)),
        "interval": dict.fromkeys((1, 5, 10)),
        "count": 0,
    }
    json.dumps(result, allow_nan=False)


def test_refuses_bad_input():
    metric = TopKDetection(k=[1, 5])
    with pytest.raises(ValueError, match="incomplete pair"):
        metric.update(torch.zeros(2, 9))
    with pytest.raises(ValueError, match="found both"):
        metric.update(torch.zeros(2, 9), torch.zeros(2, dtype=torch.long), rank=torch.ones(2, dtype=torch.long))
    with pytest.raises(ValueError, match="at least 5 samples for hits at k=5, found 4"):
        metric.update(torch.zeros(2, 4), torch.zeros(2, dtype=torch.long))
    with pytest.raises(ValueError, match="ranks from 1, the top, found 0"):
        metric.update(rank=torch.tensor([0, 3]))
    with pytest.raises(TypeError, match="`rank` to be an integer"):
        metric.update(rank=torch.tensor([1.0]))
    with pytest.raises(ValueError, match="`scores` to be finite, found 1 of 9"):
        metric.update(torch.tensor([[float("nan")] + [0.0] * 8]), torch.tensor([0]))
    assert int(metric.count) == 0
