import numpy as np
import pytest
import torch
from scipy import integrate

from lightning_inf.metrics.functional import area_between, mean_by_amount


def test_area_is_scipys_trapezoid():
    x, method, random = torch.tensor([0.0, 1.0, 4.0, 9.0]), torch.randn(4).double(), torch.randn(4).double()
    expected = integrate.trapezoid((method - random).numpy(), x.numpy())
    assert float(area_between(x, method, random)) == pytest.approx(expected, abs=1e-12)
    assert float(area_between(x, random, method)) == pytest.approx(-expected, abs=1e-12)


def test_one_point_spans_no_area():
    assert area_between(torch.ones(1), torch.ones(1), torch.zeros(1)).isnan()


@pytest.mark.parametrize("removed", [[1.0, 1.0], [2.0, 1.0]])
def test_area_refuses_amounts_that_do_not_ascend(removed):
    with pytest.raises(ValueError, match="strictly ascending"):
        area_between(torch.tensor(removed), torch.zeros(2), torch.zeros(2))


def test_means_are_pandas_groupby():
    pd = pytest.importorskip("pandas")
    amounts, values = torch.randint(0, 4, (50,)), torch.randn(50).double()
    expected = pd.Series(values.numpy()).groupby(amounts.numpy()).agg(["mean", "size"])
    distinct, means, counts = mean_by_amount(amounts, values)
    assert distinct.tolist() == expected.index.tolist()
    np.testing.assert_allclose(means.numpy(), expected["mean"], atol=1e-12)
    assert counts.tolist() == expected["size"].tolist()
