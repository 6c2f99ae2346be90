import json

import pytest
import torch
from scipy import integrate

from lightning_inf.metrics import RemovalCurve


def case(queries=8):
    generator = torch.Generator().manual_seed(0)
    amounts = torch.tensor([0, 10, 30, 100])
    random = torch.randn(queries, 4, generator=generator)
    return amounts, random - amounts / 50 + 0.1 * torch.randn(queries, 4, generator=generator), random


def whole(removed, method, random, **kwargs):
    metric = RemovalCurve(**kwargs)
    metric.update(removed, method, random)
    return metric.compute()


def test_curves_and_area_are_scipys():
    amounts, method, random = case()
    result = whole(amounts, method, random)
    expected_method, expected_random = method.double().mean(0).numpy(), random.double().mean(0).numpy()
    area = integrate.trapezoid(expected_method - expected_random, amounts.numpy())
    assert result["removed"] == [0, 10, 30, 100]
    assert result["method"] == pytest.approx(expected_method)
    assert result["random"] == pytest.approx(expected_random)
    assert result["gap"] == pytest.approx(expected_method - expected_random)
    assert result["area_between"] == pytest.approx(area)
    assert result["mean_gap"] == pytest.approx(area / 100)
    assert result["queries"] == [8] * 4
    assert all(low < gap < high for gap, (low, high) in zip(result["gap"], result["interval"], strict=True))


def test_interval_is_of_the_paired_difference():
    # outcomes differ widely between queries, the gap does not: pairing must keep the interval narrow
    random = torch.linspace(-100, 100, 20)
    (low, high) = whole(5, random - 1, random)["interval"][0]
    assert low == pytest.approx(-1, abs=1e-4)
    assert high == pytest.approx(-1, abs=1e-4)


def test_chunks_by_query_by_amount_and_flat_give_the_whole():
    amounts, method, random = case()
    expected = whole(amounts, method, random)
    by_query, by_amount, flat = RemovalCurve(), RemovalCurve(), RemovalCurve()
    for q in reversed(range(8)):
        by_query.update(amounts, method[q], random[q])
    for c in (2, 0, 3, 1):
        by_amount.update(int(amounts[c]), method[:, c], random[:, c])
    order = torch.randperm(32)
    flat.update(amounts.repeat(8)[order], method.flatten()[order], random.flatten()[order])
    for metric in (by_query, by_amount, flat):
        result = metric.compute()
        assert result["interval"] == [pytest.approx(interval, abs=1e-12) for interval in expected["interval"]]
        for key in ("removed", "method", "random", "gap", "queries", "area_between", "mean_gap"):
            assert result[key] == pytest.approx(expected[key], abs=1e-12)


def test_fractions_of_either_precision_are_one_point():
    metric = RemovalCurve()
    metric.update(0.1, torch.ones(1), torch.zeros(1))
    metric.update(torch.tensor(0.1), torch.ones(2) * 3, torch.zeros(2))
    result = metric.compute()
    assert result["removed"] == [0.1]
    assert result["queries"] == [3]
    assert result["gap"] == [pytest.approx(7 / 3)]


def test_sign_follows_the_outcome():
    assert whole(torch.tensor([0, 1]), torch.tensor([[0.0, -1.0]]), torch.zeros(1, 2))["area_between"] == -0.5
    assert whole(torch.tensor([0, 1]), torch.tensor([[0.0, 1.0]]), torch.zeros(1, 2))["mean_gap"] == 0.5


def test_mean_gap_divides_by_the_range_not_by_the_last_amount():
    result = whole(torch.tensor([10, 30]), torch.full((1, 2), 2.0), torch.zeros(1, 2))
    assert result["area_between"] == 40
    assert result["mean_gap"] == 2


def test_undefined_results_are_none_and_json():
    one = whole(5, torch.ones(1), torch.zeros(1))
    assert one["area_between"] is one["mean_gap"] is one["interval"][0] is None
    none = whole(5, torch.zeros(0), torch.zeros(0))
    assert none["removed"] == none["gap"] == none["interval"] == []
    json.dumps([one, none], allow_nan=False)


def test_refuses_bad_input():
    metric = RemovalCurve()
    with pytest.raises(ValueError, match="`removed` of at least 0, found -1"):
        metric.update(-1, torch.ones(1), torch.ones(1))
    with pytest.raises(ValueError, match=r"broadcast to `method` of shape \(2, 3\), found \(2,\)"):
        metric.update(torch.ones(2), torch.ones(2, 3), torch.ones(2, 3))
    with pytest.raises(ValueError, match=r"`random` of shape \(2, 3\), found \(3,\)"):
        metric.update(1, torch.ones(2, 3), torch.ones(3))
    for bad in ("removed", "method", "random"):
        values = {name: torch.ones(2) for name in ("removed", "method", "random")}
        values[bad][0] = float("nan")
        with pytest.raises(ValueError, match=f"`{bad}` to be finite, found 1 of 2"):
            metric.update(**values)
    with pytest.raises(ValueError, match="at least one resample"):
        RemovalCurve(resamples=0)
