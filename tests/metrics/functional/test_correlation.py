import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from lightning_inf.metrics.functional import agreement, pearson, rank_average, spearman

# few distinct values, so that ties are the rule
TIED = st.lists(st.tuples(st.integers(-3, 3), st.integers(-3, 3)), min_size=2, max_size=30)


def columns(pairs):
    x, y = torch.tensor(pairs, dtype=torch.float64).T
    return x, y


@given(TIED)
@settings(max_examples=60)
def test_rank_average_is_scipy_rankdata(pairs):
    x, _ = columns(pairs)
    np.testing.assert_array_equal(rank_average(x).numpy(), stats.rankdata(x.numpy()))


def test_ranks_survive_a_hundred_thousand_ties():
    # int32 rank sums, as in torchmetrics, overflow here
    ranks = rank_average(torch.cat([torch.zeros(100_000), torch.ones(1)]))
    assert ranks[0].item() == 50_000.5
    assert ranks[-1].item() == 100_001


@given(TIED)
@settings(max_examples=60)
@pytest.mark.filterwarnings("ignore::scipy.stats.ConstantInputWarning")
def test_both_correlations_are_scipys_under_ties(pairs):
    x, y = columns(pairs)
    for ours, theirs in ((pearson, stats.pearsonr), (spearman, stats.spearmanr)):
        np.testing.assert_allclose(float(ours(x, y)), theirs(x.numpy(), y.numpy()).statistic, atol=1e-12)


def test_rows_are_independent():
    x, y = torch.randn(5, 17, dtype=torch.float64), torch.randn(5, 17, dtype=torch.float64)
    expected = [stats.spearmanr(a, b).statistic for a, b in zip(x.numpy(), y.numpy(), strict=True)]
    np.testing.assert_allclose(spearman(x, y).numpy(), expected, atol=1e-12)


@given(st.permutations(range(12)))
@settings(max_examples=30)
def test_spearman_sees_only_the_order(order):
    x, y = torch.tensor(order, dtype=torch.float64), torch.arange(12, dtype=torch.float64).sin()
    value = spearman(x, y)
    assert spearman(x.div(4).exp(), y**3) == value
    shuffle = torch.randperm(12)
    assert spearman(x[shuffle], y[shuffle]).item() == pytest.approx(value.item(), abs=1e-12)


def test_pearson_holds_for_scores_too_small_to_square():
    x = torch.tensor([1.0, 2.0, 4.0], dtype=torch.float64)
    assert pearson(x * 1e-200, x * 1e200).item() == pytest.approx(1.0, abs=1e-12)


def test_constant_input_is_undefined_even_when_its_mean_rounds():
    constant = torch.full((3,), 0.1, dtype=torch.float64)
    assert pearson(constant, torch.arange(3.0)).isnan()
    assert spearman(torch.arange(3.0), constant).isnan()
    assert pearson(torch.zeros(2, 0), torch.zeros(2, 0)).isnan().all()


def test_results_carry_no_graph():
    x = torch.randn(4, dtype=torch.float64, requires_grad=True)
    assert not pearson(x, torch.randn(4)).requires_grad


def test_agreement_blames_the_constant_side():
    varied, constant = torch.tensor([1.0, 2.0, 4.0]), torch.full((3,), 0.1)
    assert agreement(constant, varied) == 0
    assert agreement(constant, varied, "pearson") == 0
    assert agreement(varied, constant).isnan()
    assert agreement(constant, constant).isnan()
    assert agreement(varied, -(varied**3), "pearson").item() == pytest.approx(
        stats.pearsonr([1, 2, 4], [-1, -8, -64]).statistic
    )
    with pytest.raises(ValueError, match="found 'kendall'"):
        agreement(varied, varied, "kendall")  # type: ignore[arg-type]


@pytest.mark.parametrize("function", [pearson, spearman])
def test_refuses_mismatched_and_non_finite(function):
    with pytest.raises(ValueError, match=r"found \(3,\) and \(2,\)"):
        function(torch.zeros(3), torch.zeros(2))
    with pytest.raises(ValueError, match="found 1 of 2 that are NaN or infinite"):
        function(torch.zeros(2), torch.tensor([0.0, float("inf")]))
