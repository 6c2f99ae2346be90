import json

import numpy as np
import pytest
import torch
from scipy import stats

from lightning_inf.metrics import LeaveOneOutCorrelation


def case(queries=6, samples=25):
    generator = torch.Generator().manual_seed(0)
    effect = torch.randn(queries, samples, generator=generator)
    return effect + torch.randn(queries, samples, generator=generator), effect


def whole(scores, effect, query=None, **kwargs):
    metric = LeaveOneOutCorrelation(**kwargs)
    metric.update(scores, effect, query)
    return metric.compute()


def assert_same(result, expected):
    """Equal up to the last digits, which the order of a sum decides; approx does not look into nested lists."""
    assert result.keys() == expected.keys()
    for key, value in expected.items():
        assert result[key] == pytest.approx(value, abs=1e-9), key


def test_one_query_is_scipy():
    scores, effect = case(queries=1)
    result = whole(scores[0], effect[0])
    assert result["pearson"] == pytest.approx(
        stats.pearsonr(scores[0].double(), effect[0].double()).statistic, abs=1e-9
    )
    assert result["spearman"] == pytest.approx(stats.spearmanr(scores[0], effect[0]).statistic, abs=1e-9)
    assert (result["count"], result["queries"], result["undefined"]) == (25, 1, 0)
    assert result["pearson_interval"] is result["spearman_interval"] is None


def test_many_queries_are_the_mean_over_scipy():
    scores, effect = case()
    result = whole(scores, effect, torch.arange(6))
    for kind, reference in (("pearson", stats.pearsonr), ("spearman", stats.spearmanr)):
        expected = np.mean([reference(s, e).statistic for s, e in zip(scores.double(), effect.double(), strict=True)])
        assert result[kind] == pytest.approx(expected, abs=1e-9)
        assert result[f"{kind}_interval"][0] < expected < result[f"{kind}_interval"][1]
    assert (result["count"], result["queries"]) == (150, 6)


def test_chunks_along_samples_and_along_queries_give_the_whole():
    scores, effect = case()
    ids = torch.tensor([3, 1, 4, 15, 9, 2])
    expected = whole(scores, effect, ids)
    by_samples, by_queries, flat = LeaveOneOutCorrelation(), LeaveOneOutCorrelation(), LeaveOneOutCorrelation()
    for chunk in torch.arange(25).split(7):
        by_samples.update(scores[:, chunk], effect[:, chunk], ids)
    for chunk in torch.arange(6).split(4):
        by_queries.update(scores[chunk], effect[chunk], ids[chunk])
    order = torch.randperm(150)
    for chunk in order.split(40):
        flat.update(scores.flatten()[chunk], effect.flatten()[chunk], ids.repeat_interleave(25)[chunk])
    for metric in (by_samples, by_queries, flat):
        assert_same(metric.compute(), expected)


def test_spearman_ignores_monotone_transforms_and_pearson_does_not():
    scores, effect = case(queries=1)
    plain, curved = whole(scores[0], effect[0]), whole(scores[0].double().exp(), effect[0])
    assert curved["spearman"] == pytest.approx(plain["spearman"], abs=1e-12)
    assert abs(curved["pearson"] - plain["pearson"]) > 1e-3
    assert whole(effect[0] * 3 + 1, effect[0])["pearson"] == pytest.approx(1.0, abs=1e-6)
    assert whole(-effect[0], effect[0])["spearman"] == -1


def test_undefined_queries_are_left_out_and_silent_ones_are_not():
    scores, effect = case(queries=3)
    kept = whole(scores, effect, torch.arange(3))
    metric = LeaveOneOutCorrelation()
    metric.update(scores, effect, torch.arange(3))
    metric.update(torch.arange(5.0), torch.ones(5), torch.full((5,), 7))  # constant effect
    metric.update(torch.arange(2.0), torch.arange(2.0), torch.full((2,), 8))  # too few pairs
    result = metric.compute()
    assert result["pearson"] == pytest.approx(kept["pearson"])
    assert (result["queries"], result["undefined"], result["count"]) == (5, 2, 82)
    metric.update(torch.ones(5), torch.arange(5.0), torch.full((5,), 9))  # constant scores
    result = metric.compute()
    assert result["spearman"] == pytest.approx(kept["spearman"] * 3 / 4)
    assert result["undefined"] == 2


def test_undefined_results_are_none_and_json():
    nothing = whole(torch.zeros(0), torch.zeros(0))
    assert nothing["pearson"] is nothing["spearman"] is None
    assert (nothing["count"], nothing["queries"], nothing["undefined"]) == (0, 0, 0)
    json.dumps(nothing, allow_nan=False)


def test_seed_sets_the_interval():
    scores, effect = case()
    first = whole(scores, effect, torch.arange(6), seed=1)
    assert whole(scores, effect, torch.arange(6), seed=2)["pearson_interval"] != first["pearson_interval"]


def test_refuses_bad_input():
    metric = LeaveOneOutCorrelation()
    with pytest.raises(ValueError, match="one id for each of the 2 rows"):
        metric.update(torch.zeros(2, 4), torch.zeros(2, 4))
    with pytest.raises(ValueError, match=r"`effect` of shape \(4\), found \(3,\)"):
        metric.update(torch.zeros(4), torch.zeros(3))
    with pytest.raises(ValueError, match=r"`query` of shape \(2\), found \(4,\)"):
        metric.update(torch.zeros(2, 4), torch.zeros(2, 4), torch.zeros(4, dtype=torch.long))
    with pytest.raises(TypeError, match="`query` to be an integer"):
        metric.update(torch.zeros(4), torch.zeros(4), torch.zeros(4))
    with pytest.raises(ValueError, match=r"\(B,\) or \(Q, B\)"):
        metric.update(torch.zeros(1, 2, 3), torch.zeros(1, 2, 3))
    with pytest.raises(ValueError, match="`effect` to be finite, found 1 of 2"):
        metric.update(torch.zeros(2), torch.tensor([0.0, float("nan")]))
    with pytest.raises(ValueError, match="`scores` to be finite, found 1 of 2"):
        metric.update(torch.tensor([0.0, float("nan")]), torch.zeros(2))
    with pytest.raises(ValueError, match="at least one resample"):
        LeaveOneOutCorrelation(resamples=0)
