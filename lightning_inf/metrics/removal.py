"""Brittleness: how far does the outcome move when the samples a method names are removed, against random ones?"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lightning_inf.metrics.base import PooledMetric, number_or_none
from lightning_inf.metrics.functional.checks import as_float64, require_finite, require_shape
from lightning_inf.metrics.functional.intervals import bootstrap_mean_interval
from lightning_inf.metrics.functional.removal import area_between, mean_by_amount

_DECIMALS = 7


class RemovalCurve(PooledMetric):
    r"""Mean outcome over queries against the amount removed, by a method and at random, and the area between.

    .. math::
        g(x) = \frac{1}{Q_x} \sum_q \big(y^{\mathrm{method}}_q(x) - y^{\mathrm{random}}_q(x)\big), \qquad
        A = \int g(x)\, dx

    by the trapezoid rule over the amounts given. Source: the brittleness curves of Ilyas et al., *Datamodels* (ICML
    2022), with random removal as the baseline. The sign is the outcome's: with margins a good method
    gives a negative gap, with a misclassification rate a positive one.

    ``compute`` returns a dict of lists, one entry per distinct amount in ascending order: ``removed``, ``method``,
    ``random``, ``gap``, ``interval`` (95 % bootstrap over queries of the gap, ``[low, high]``, ``None`` for a single
    query) and ``queries`` (how many the means are over); and two numbers, ``area_between`` (units of outcome times
    amount) and ``mean_gap`` (the area divided by the range of amounts, units of outcome), both ``None`` for fewer
    than two amounts. Give the same queries at each amount, or the curve mixes populations; include amount 0 to have
    the area start there.

    Args:
        resamples: bootstrap resamples.
        seed: seed of the bootstrap.
        kwargs: passed to ``torchmetrics.Metric``.

    Raises:
        ValueError: ``resamples`` is below 1.

    Example:
        >>> metric = RemovalCurve()
        >>> method = torch.tensor([[1.0, 0.2], [1.0, 0.0]])
        >>> metric.update(torch.tensor([0, 10]), method, torch.tensor([[1.0, 0.9], [1.0, 0.9]]))
        >>> result = metric.compute()
        >>> [round(gap, 4) for gap in result["gap"]], round(result["area_between"], 4), round(result["mean_gap"], 4)
        ([0.0, -0.8], -4.0, -0.4)
    """

    higher_is_better: bool | None = None
    removed: list[Tensor]
    method: list[Tensor]
    random: list[Tensor]

    def __init__(self, resamples: int = 1000, seed: int = 0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if resamples < 1:
            raise ValueError(f"Expected at least one resample, found {resamples}. Pass for instance resamples=1000.")
        self.resamples = resamples
        self.seed = seed
        for name in ("removed", "method", "random"):
            self.add_pool(name, torch.float64)

    def update(self, removed: Tensor | float, method: Tensor, random: Tensor) -> None:
        """Add outcomes of queries at one or more removed amounts.

        Args:
            removed: count or fraction removed (one of the two throughout), not negative, read to 7 decimals; any
                shape that broadcasts to that of ``method``: a number, ``(C,)`` for ``(Q, C)``, or the same shape.
            method: outcome after removing what the method names, any unit, shape ``(B,)`` or ``(Q, C)``.
            random: outcome of the same query after removing as many random samples, averaged over draws if there are
                several, same unit and shape as ``method``.

        Raises:
            ValueError: a shape does not fit, a value is not finite, or an amount is negative.
        """
        require_shape(random, tuple(method.shape), "random")
        require_finite(method, "method")
        require_finite(random, "random")
        amounts = as_float64(removed) if isinstance(removed, Tensor) else torch.tensor(removed, dtype=torch.float64)
        require_finite(amounts, "removed")
        if bool((amounts < 0).any()):
            raise ValueError(
                f"Expected `removed` of at least 0, found {float(amounts.min())}. Pass how much was removed."
            )
        try:
            amounts = amounts.expand(method.shape)
        except RuntimeError as error:
            raise ValueError(
                f"Expected `removed` to broadcast to `method` of shape {tuple(method.shape)}, found "
                f"{tuple(amounts.shape)}. Pass one amount, or one for each entry of the last dimension of `method`."
            ) from error
        kept = as_float64(method)
        # 0.1 as float32 and as float64 differ in the 9th digit and would otherwise become two points of the curve
        self.keep("removed", amounts.to(kept.device).round(decimals=_DECIMALS))
        self.keep("method", kept)
        self.keep("random", as_float64(random).to(kept.device))

    def compute(self) -> dict[str, Any]:
        """Evaluate all outcomes given so far; the class describes the result."""
        removed, method, random = self.pooled("removed"), self.pooled("method"), self.pooled("random")
        amounts, method_curve, counts = mean_by_amount(removed, method)
        random_curve = mean_by_amount(removed, random)[1]
        gaps = method - random
        intervals = [bootstrap_mean_interval(gaps[removed == amount], self.resamples, self.seed) for amount in amounts]
        area = number_or_none(area_between(amounts, method_curve, random_curve))
        return {
            "removed": amounts.tolist(),
            "method": method_curve.tolist(),
            "random": random_curve.tolist(),
            "gap": (method_curve - random_curve).tolist(),
            "interval": [None if interval is None else list(interval) for interval in intervals],
            "queries": counts.tolist(),
            "area_between": area,
            "mean_gap": None if area is None else area / float(amounts[-1] - amounts[0]),
        }
