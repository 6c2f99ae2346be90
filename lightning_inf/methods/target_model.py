"""How far right targets lie from what is expected of them, and which share of the targets lies further than that."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

#: Degrees of freedom that are tried for the residuals of right targets: from heavy tails to nearly normal ones.
FREEDOM = (3.0, 5.0, 10.0, 30.0)
#: The spread of wrong targets is taken to be at least so many times that of right ones.
APART = 2.0
#: How often that spread is doubled to see whether wrong targets lie further out.
_DOUBLED = 12
#: The most training samples that the share is estimated on, and bootstrap repetitions.
FITTED, REPEATS = 5_000, 200
_ROUNDS = 60


@dataclass(frozen=True)
class TargetModel:
    r"""Residuals as a mixture: Student's t of right targets, Cauchy's distribution of wrong ones.

    .. math:: f(r) = (1 - \pi)\, t_\nu\!\left(\frac{r - m}{s}\right) \frac1s + \pi\, t_1\!\left(\frac{r - m}{S}\right) \frac1S

    m, s and :math:`\nu` are those of the references, whose targets are taken for right. S, at least the spread of the targets
    themselves, for a wrong one may be any, and :math:`\pi` are estimated on the training samples. The further a residual is from
    m, the lower the probability that the target is right.

    Attributes:
        centre: m.
        scale: s.
        freedom: :math:`\nu`.
        spread: S.
        share: :math:`\pi`.
        interval: 95 % interval of the share, by a bootstrap of references and training samples.
    """

    centre: float
    scale: float
    freedom: float
    spread: float
    share: float
    interval: tuple[float, float]

    def right(self, residual: np.ndarray) -> np.ndarray:
        """Compute the probability that a target with this residual is right, shape ``(n,)``; the further, the lower.

        Where none is wrong, the odds are those of one wrong target among as many as the share was estimated on: so that
        there still is an order.
        """
        apart, share = residual - self.centre, max(self.share, 1 / FITTED)
        log_odds = _log_t(apart, self.spread, 1.0) - _log_t(apart, self.scale, self.freedom)
        return np.exp(-np.logaddexp(0.0, log_odds + math.log(share / (1 - share))))


def fit(residual: np.ndarray, reference: np.ndarray, targets: np.ndarray, seed: int = 0) -> TargetModel:
    """Fit the mixture.

    Args:
        residual: Target minus expectation of the training samples, shape ``(n,)``.
        reference: The same of the references, shape ``(m,)``.
        targets: Of the training samples, shape ``(n,)``.
        seed: Of the bootstrap.

    Example:
        >>> draw = np.random.default_rng(0).normal
        >>> residual = np.concatenate([draw(size=950), draw(0, 8, size=50)])
        >>> found = fit(residual, draw(size=300), draw(0, 4, size=1000))
        >>> 0.02 < found.share < 0.06, bool(found.right(np.array([0.0]))[0] > 0.98 > 0.1 > found.right(np.array([6.0]))[0])
        (True, True)
    """
    generator = np.random.default_rng(seed)
    spread = 1.4826 * float(np.median(np.abs(targets - np.median(targets))))
    centre, scale, freedom = _right(reference)
    spreads = [max(spread, APART * scale) * 2.0**power for power in range(_DOUBLED)]
    shares = [_share(residual - centre, scale, freedom, spread) for spread in spreads]
    _, share, spread = max(
        (likelihood, share, spread) for (share, likelihood), spread in zip(shares, spreads, strict=True)
    )
    again = []
    for _ in range(REPEATS):
        ours = residual[generator.integers(len(residual), size=len(residual))]
        theirs = reference[generator.integers(len(reference), size=len(reference))]
        middle, width, _ = _right(theirs, (freedom,))
        again.append(_share(ours - middle, width, freedom, max(spread, APART * width))[0])
    low, high = np.quantile(again, [0.025, 0.975])
    return TargetModel(centre, scale, freedom, spread, share, (min(float(low), share), max(float(high), share)))


def _right(reference: np.ndarray, freedoms: Sequence[float] = FREEDOM) -> tuple[float, float, float]:
    """Fit Student's t to the references' residuals: centre, scale and degrees of freedom."""
    centre = float(np.median(reference))
    apart = np.abs(reference - centre)
    floor = max(1e-6 * float(apart.max()), np.finfo(np.float64).tiny)
    fits = []
    for freedom in freedoms:
        scale = max(1.4826 * float(np.median(apart)), floor)
        for _ in range(_ROUNDS):  # EM: weights from the scale, the scale from the weights
            weights = (freedom + 1) / (freedom + (apart / scale) ** 2)
            scale = max(math.sqrt(float(np.mean(weights * apart**2))), floor)
        fits.append((float(np.sum(_log_t(apart, scale, freedom))), scale, freedom))
    _, scale, freedom = max(fits)
    return centre, scale, freedom


def _share(apart: np.ndarray, scale: float, freedom: float, spread: float) -> tuple[float, float]:
    """Estimate the share of wrong targets by EM; with the logarithm of the likelihood."""
    right = _log_t(apart, scale, freedom)
    odds = np.exp(np.minimum(_log_t(apart, spread, 1.0) - right, 700.0))
    share = 0.05
    for _ in range(_ROUNDS):
        share = float(np.mean(share * odds / (1 - share + share * odds)))
    return share, float(np.sum(right + np.log1p(share * (odds - 1))))


def _log_t(apart: np.ndarray, scale: float, freedom: float) -> np.ndarray:
    """Logarithm of the density of Student's t."""
    height = math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2) - 0.5 * math.log(freedom * math.pi)
    with np.errstate(over="ignore"):  # where the references are predicted exactly, all else is infinitely far
        found: np.ndarray = height - math.log(scale) - (freedom + 1) / 2 * np.log1p((apart / scale) ** 2 / freedom)
    return found
