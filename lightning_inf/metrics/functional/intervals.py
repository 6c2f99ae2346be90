"""95 % intervals: Wilson's for a rate, Student's or a seeded bootstrap for a mean."""

from __future__ import annotations

import math
from statistics import NormalDist

import torch
from torch import Tensor

from lightning_inf.metrics.functional.checks import as_float64, require_finite, require_shape

_BLOCK = 2_000_000  # resampled values held at once: 16 MB of float64


def wilson_interval(successes: int, trials: int, confidence: float = 0.95) -> tuple[float, float]:
    r"""Wilson's score interval for a success rate.

    .. math::
        \frac{\hat p + z^2 / 2n \pm z \sqrt{\hat p (1 - \hat p) / n + z^2 / 4n^2}}{1 + z^2 / n}

    Source: E. B. Wilson, *Probable inference, the law of succession, and statistical inference*, JASA 22 (1927).
    Unlike the normal approximation it stays inside [0, 1] and does not collapse to a point at a rate of 0 or 1.

    Args:
        successes: how many trials succeeded.
        trials: how many independent trials there were, at least 1.
        confidence: two-sided coverage, between 0 and 1.

    Returns:
        Lower and upper bound of the rate.

    Raises:
        ValueError: there are no trials, more successes than trials, or ``confidence`` is outside (0, 1).

    Example:
        >>> low, high = wilson_interval(8, 10)
        >>> round(low, 4), round(high, 4)
        (0.4902, 0.9433)
    """
    if trials < 1 or not 0 <= successes <= trials:
        raise ValueError(
            f"Expected 0 <= successes <= trials with at least one trial, found {successes} of {trials}. "
            "Report no interval when nothing was tried."
        )
    _check_confidence(confidence)
    z2 = NormalDist().inv_cdf((1 + confidence) / 2) ** 2
    rate = successes / trials
    center = rate + z2 / (2 * trials)
    half = math.sqrt(z2 * rate * (1 - rate) / trials + (z2 / (2 * trials)) ** 2)
    scale = 1 + z2 / trials
    low = max(0.0, (center - half) / scale)
    # At a rate of 1 the bound is 1 on paper; rounding can put it a hair below the rate itself.
    high = 1.0 if successes == trials else min(1.0, (center + half) / scale)
    return low, high


def t_quantile(probability: float, degrees: int) -> float:
    r"""Quantile of Student's t distribution, to 0.2 % of itself between 0.025 and 0.975, and 1 % between 0.005 and 0.995.

    Closed forms for one and two degrees of freedom, else the Cornish-Fisher expansion in :math:`1/\nu` to the fourth order.
    Source: M. Abramowitz and I. A. Stegun, *Handbook of Mathematical Functions* (1964), 26.7.5.

    Args:
        probability: of being below it, between 0 and 1.
        degrees: degrees of freedom, at least 1.

    Returns:
        The quantile.

    Raises:
        ValueError: an argument is out of range.

    Example:
        >>> round(t_quantile(0.975, 1), 3), round(t_quantile(0.975, 10), 3)
        (12.706, 2.228)
    """
    _check_confidence(probability)
    if degrees < 1:
        raise ValueError(f"Expected at least one degree of freedom, found {degrees}. One value has no interval.")
    if degrees == 1:
        return math.tan(math.pi * (probability - 0.5))
    if degrees == 2:
        return (2 * probability - 1) / math.sqrt(2 * probability * (1 - probability))
    z = NormalDist().inv_cdf(probability)
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return z + sum(term / degrees**power for power, term in enumerate(terms, start=1))


def bootstrap_mean_interval(
    values: Tensor, resamples: int = 1000, seed: int = 0, confidence: float = 0.95
) -> tuple[float, float] | None:
    """Percentile bootstrap interval of a mean.

    Source: B. Efron, *Bootstrap methods: another look at the jackknife*, Annals of Statistics 7 (1979). The values
    are sorted first, so that the same values in another order (other chunks, other workers) give the same interval.

    Args:
        values: one finite value per independent unit, shape ``(q,)``.
        resamples: how many times to draw q values with replacement.
        seed: seed of the draws; a private CPU generator is used, the global one is left alone.
        confidence: two-sided coverage, between 0 and 1.

    Returns:
        Lower and upper bound, or ``None`` for fewer than two values: one value says nothing about spread.

    Raises:
        ValueError: ``values`` is not one-dimensional or not finite, or ``resamples`` or ``confidence`` is invalid.

    Example:
        >>> low, high = bootstrap_mean_interval(torch.arange(10.0))
        >>> low < 4.5 < high
        True
    """
    require_shape(values, (None,), "values")
    require_finite(values, "values")
    _check_confidence(confidence)
    if resamples < 1:
        raise ValueError(f"Expected at least one resample, found {resamples}. Pass for instance resamples=1000.")
    count = values.numel()
    if count < 2:
        return None
    ordered = as_float64(values).cpu().sort().values
    generator = torch.Generator().manual_seed(seed)
    block = max(1, _BLOCK // count)
    means = torch.cat(
        [
            ordered[torch.randint(count, (min(block, resamples - start), count), generator=generator)].mean(dim=1)
            for start in range(0, resamples, block)
        ]
    )
    tail = (1 - confidence) / 2
    low, high = torch.quantile(means, torch.tensor([tail, 1 - tail], dtype=torch.float64)).tolist()
    return low, high


def _check_confidence(confidence: float) -> None:
    if not 0 < confidence < 1:
        raise ValueError(f"Expected `confidence` between 0 and 1, found {confidence}. Pass 0.95 for 95 %.")
