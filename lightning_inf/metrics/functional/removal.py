"""Removal curves: the outcome after removing the samples a method names, against removing random ones."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_inf.metrics.functional.checks import as_float64, require_finite, require_shape


def area_between(removed: Tensor, method: Tensor, random: Tensor) -> Tensor:
    r"""Signed area between two removal curves, by the trapezoid rule.

    .. math::
        A = \sum_j \frac{g_j + g_{j+1}}{2} (x_{j+1} - x_j), \qquad g = \mathrm{method} - \mathrm{random}

    Args:
        removed: how much was removed (a count or a fraction), strictly ascending, shape ``(C,)``.
        method: outcome after removing what the method names, shape ``(C,)``.
        random: outcome after removing as many random samples, shape ``(C,)``.

    Returns:
        Scalar float64, in units of outcome times ``removed``; NaN for fewer than two points, which span no area.

    Raises:
        ValueError: a shape differs, a value is not finite, or ``removed`` does not ascend.

    Example:
        >>> area_between(torch.tensor([0.0, 10.0]), torch.tensor([1.0, 0.0]), torch.tensor([1.0, 0.8]))
        tensor(-4.0000, dtype=torch.float64)
    """
    require_shape(removed, (None,), "removed")
    require_shape(method, tuple(removed.shape), "method")
    require_shape(random, tuple(removed.shape), "random")
    for name, values in (("removed", removed), ("method", method), ("random", random)):
        require_finite(values, name)
    removed = as_float64(removed)
    if bool((removed.diff() <= 0).any()):
        raise ValueError(
            f"Expected `removed` to be strictly ascending, found {removed.tolist()}. "
            "Sort the points and average those that share one amount."
        )
    if removed.numel() < 2:
        return torch.tensor(float("nan"), dtype=torch.float64)
    return torch.trapezoid(as_float64(method) - as_float64(random), removed)


def mean_by_amount(removed: Tensor, values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Average values that share one removed amount.

    Args:
        removed: amount each value belongs to, shape ``(b,)``.
        values: outcomes, shape ``(b,)``.

    Returns:
        Distinct amounts in ascending order, their means, float64, and how many values each mean is over, long;
        shape ``(C,)`` each.

    Raises:
        ValueError: a shape differs, or a value is not finite.

    Example:
        >>> mean_by_amount(torch.tensor([5.0, 1.0, 5.0]), torch.tensor([2.0, 7.0, 4.0]))
        (tensor([1., 5.], dtype=torch.float64), tensor([7., 3.], dtype=torch.float64), tensor([1, 2]))
    """
    require_shape(removed, (None,), "removed")
    require_shape(values, tuple(removed.shape), "values")
    require_finite(removed, "removed")
    require_finite(values, "values")
    amounts, group, counts = torch.unique(as_float64(removed), return_inverse=True, return_counts=True)
    sums = torch.zeros_like(amounts).index_add_(0, group, as_float64(values))
    return amounts, sums / counts, counts
