"""The residuals of a regression as a mixture, against SciPy's densities and a search over the share."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import optimize, stats

from lightning_inf.methods.target_model import fit


def draw(wrong: int, right: int = 950, seed: int = 0, heavy: float | None = None) -> tuple[np.ndarray, ...]:
    """Residuals of training samples and of references, and targets, whose spread is four times the noise."""
    generator = np.random.default_rng(seed)
    noise = generator.normal if heavy is None else lambda size: generator.standard_t(heavy, size=size)
    residual = np.concatenate([noise(size=right), generator.normal(0, 8, wrong)])
    return residual, noise(size=300), generator.normal(0, 4, right + wrong)


def test_the_share_is_the_likeliest_one() -> None:
    residual, reference, targets = draw(50)
    found = fit(residual, reference, targets)
    right = stats.t.pdf(residual - found.centre, found.freedom, scale=found.scale)
    wrong = stats.cauchy.pdf(residual - found.centre, scale=found.spread)
    best = optimize.minimize_scalar(
        lambda share: -np.log((1 - share) * right + share * wrong).sum(), bounds=(0, 1), method="bounded"
    )
    assert found.share == pytest.approx(best.x, abs=1e-3)
    expected = (1 - found.share) * right / ((1 - found.share) * right + found.share * wrong)
    np.testing.assert_allclose(found.right(residual), expected, rtol=1e-6)


def test_the_references_residuals_are_those_of_the_likeliest_scale() -> None:
    residual, reference, targets = draw(50, heavy=3.0)
    found = fit(residual, reference, targets)
    assert found.freedom == 3.0
    best = optimize.minimize_scalar(
        lambda log: -stats.t.logpdf(reference - np.median(reference), 3.0, scale=np.exp(log)).sum()
    )
    assert found.scale == pytest.approx(np.exp(best.x), rel=1e-3)


@pytest.mark.parametrize("seed", range(3))
def test_none_is_wrong_where_residuals_are_those_of_references(seed: int) -> None:
    found = fit(*draw(0, seed=seed))
    assert found.share < 0.005
    assert found.interval[0] == pytest.approx(0, abs=1e-3)
    assert found.interval[1] < 0.03


@pytest.mark.parametrize("times", [10, 1e6])
def test_mistakes_of_any_size_are_counted(times: float) -> None:
    residual, reference, targets = draw(0)
    residual[:40] = times * np.abs(np.random.default_rng(1).normal(4, 1, 40))
    found = fit(residual, reference, targets)
    assert 0.03 < found.share < 0.06
    assert found.interval[0] < 40 / 950 < found.interval[1]


def test_the_further_the_less_likely_right() -> None:
    far = np.concatenate([np.linspace(0, 20, 200), np.geomspace(21, 1e9, 50)])
    for wrong in (0, 50):
        found = fit(*draw(wrong))
        chances = found.right(found.centre + far)
        assert (np.diff(chances) < 0).all()
        np.testing.assert_allclose(found.right(found.centre - far), chances, rtol=1e-6)


def test_references_that_are_all_predicted_exactly() -> None:
    found = fit(np.array([0.0, 0.0, 5.0, 0.0]), np.zeros(40), np.array([1.0, 2.0, 3.0, 4.0]))
    assert np.isfinite(found.right(np.array([0.0, 5.0]))).all()
    assert found.right(np.array([0.0]))[0] > 0.9 > 0.1 > found.right(np.array([5.0]))[0]
