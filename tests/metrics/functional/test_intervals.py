import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from lightning_inf.metrics.functional import bootstrap_mean_interval, intervals, t_quantile, wilson_interval


@given(st.integers(1, 500), st.floats(0, 1), st.sampled_from([0.5, 0.9, 0.95]))
@settings(max_examples=80)
def test_wilson_is_scipys(trials, share, confidence):
    successes = round(share * trials)
    expected = stats.binomtest(successes, trials).proportion_ci(confidence, method="wilson")
    np.testing.assert_allclose(
        wilson_interval(successes, trials, confidence), (expected.low, expected.high), atol=1e-12
    )


def test_wilson_is_exact_at_the_ends():
    for trials in range(1, 200):
        assert wilson_interval(0, trials)[0] == 0
        assert wilson_interval(trials, trials)[1] == 1


@pytest.mark.parametrize(("successes", "trials"), [(0, 0), (3, 2), (-1, 2)])
def test_wilson_refuses_impossible_counts(successes, trials):
    with pytest.raises(ValueError, match=f"found {successes} of {trials}"):
        wilson_interval(successes, trials)


def test_bootstrap_agrees_with_scipys():
    values = torch.randn(60, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    ours = bootstrap_mean_interval(values, resamples=20_000)
    theirs = stats.bootstrap((values.numpy(),), np.mean, n_resamples=20_000, method="percentile").confidence_interval
    np.testing.assert_allclose(ours, (theirs.low, theirs.high), atol=0.02)


def test_bootstrap_covers_the_mean_about_as_often_as_it_says():
    generator = torch.Generator().manual_seed(1)
    intervals = [
        bootstrap_mean_interval(torch.randn(50, generator=generator), resamples=300, seed=run) for run in range(200)
    ]
    covered = sum(interval[0] <= 0 <= interval[1] for interval in intervals if interval) / 200
    assert 0.88 <= covered <= 0.99


def test_bootstrap_does_not_depend_on_order_or_on_the_global_seed():
    values = torch.randn(30)
    first = bootstrap_mean_interval(values, seed=3)
    before = torch.get_rng_state()
    assert bootstrap_mean_interval(values.flip(0), seed=3) == first
    assert torch.equal(torch.get_rng_state(), before)
    assert bootstrap_mean_interval(values, seed=4) != first


def test_bootstrap_in_blocks_is_the_same_draw(monkeypatch):
    values = torch.randn(20)
    whole = bootstrap_mean_interval(values, resamples=100)
    monkeypatch.setattr(intervals, "_BLOCK", 20 * 33)
    assert bootstrap_mean_interval(values, resamples=100) == whole


def test_bootstrap_says_nothing_about_one_value():
    assert bootstrap_mean_interval(torch.tensor([1.0])) is None
    assert bootstrap_mean_interval(torch.tensor([])) is None


def test_refuses_odd_confidence_and_resamples():
    for confidence in (0.0, 1.0, 95.0):
        with pytest.raises(ValueError, match="between 0 and 1"):
            bootstrap_mean_interval(torch.zeros(2), confidence=confidence)
        with pytest.raises(ValueError, match="between 0 and 1"):
            wilson_interval(1, 2, confidence)
    with pytest.raises(ValueError, match="at least one resample"):
        bootstrap_mean_interval(torch.zeros(2), resamples=0)


@pytest.mark.parametrize("degrees", [1, 2, 3, 4, 7, 30, 1000])
@pytest.mark.parametrize("probability", [0.005, 0.025, 0.3, 0.5, 0.9, 0.975, 0.995])
def test_t_quantile_is_scipys(probability, degrees):
    error = 2e-3 if 0.025 <= probability <= 0.975 else 1e-2
    assert t_quantile(probability, degrees) == pytest.approx(stats.t.ppf(probability, degrees), rel=error, abs=1e-12)


def test_t_quantile_needs_a_degree_of_freedom():
    with pytest.raises(ValueError, match="at least one degree of freedom, found 0"):
        t_quantile(0.9, 0)
