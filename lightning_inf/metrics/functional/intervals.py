"""95 % intervals: Wilson's for a rate, a seeded bootstrap for a mean."""

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
