"""Pearson and Spearman correlation in float64, with ties and constant rows handled explicitly."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from lightning_inf.metrics.functional.checks import as_float64, require_finite


def rank_average(values: Tensor) -> Tensor:
    """Rank the values of the last dimension, smallest first, tied values sharing the mean of their ranks.

    torchmetrics' own ranking sums ranks in int32, which overflows once about 65 000 values are tied; many methods
    give exactly 0 to most samples, so this one counts instead of summing.

    Args:
        values: finite values, shape ``(..., m)``.

    Returns:
        Ranks from 1 to m, float64, shape ``(..., m)``.

    Raises:
        ValueError: a value is not finite.

    Example:
        >>> rank_average(torch.tensor([0.5, 2.0, 0.5])).round(decimals=6)
        tensor([1.5000, 3.0000, 1.5000], dtype=torch.float64)
    """
    require_finite(values, "values")
    values = as_float64(values).contiguous()
    ordered = values.sort(dim=-1).values
    # ranks of a tied group run from (how many are smaller) + 1 to (how many are smaller or equal)
    smaller = torch.searchsorted(ordered, values)
    smaller_or_equal = torch.searchsorted(ordered, values, right=True)
    return (smaller + 1 + smaller_or_equal).to(torch.float64) / 2


def _same_shape(x: Tensor, y: Tensor) -> None:
    if x.shape != y.shape or x.ndim == 0:
        raise ValueError(
            f"Expected two tensors of one shape (..., m), found {tuple(x.shape)} and {tuple(y.shape)}. "
            "Align them so that entry i of both is about the same thing."
        )


def _is_constant(values: Tensor) -> Tensor:
    # Compared by value: after subtracting a mean, rounding leaves a constant row slightly off zero.
    if values.shape[-1] == 0:
        return torch.ones(values.shape[:-1], dtype=torch.bool, device=values.device)
    return values.amax(dim=-1) == values.amin(dim=-1)


def pearson(x: Tensor, y: Tensor) -> Tensor:
    r"""Pearson correlation along the last dimension, in float64.

    .. math::
        r = \frac{\sum_i (x_i - \bar x)(y_i - \bar y)}{\sqrt{\sum_i (x_i - \bar x)^2 \sum_i (y_i - \bar y)^2}}

    Args:
        x: finite values, shape ``(..., m)``.
        y: finite values, same shape.

    Returns:
        Correlations in [-1, 1], float64, shape ``(...)``; NaN where x or y is constant, as the ratio is 0/0 there.

    Raises:
        ValueError: the shapes differ, or a value is not finite.

    Example:
        >>> pearson(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([2.0, 4.0, 6.0])).round(decimals=6)
        tensor(1., dtype=torch.float64)
    """
    _same_shape(x, y)
    require_finite(x, "x")
    require_finite(y, "y")
    x, y = as_float64(x), as_float64(y)
    undefined = _is_constant(x) | _is_constant(y)
    if x.shape[-1] == 0:
        return torch.full(x.shape[:-1], float("nan"), dtype=torch.float64, device=x.device)
    x, y = _center(x), _center(y)
    norms = x.square().sum(-1).sqrt() * y.square().sum(-1).sqrt()
    ratio = ((x * y).sum(-1) / norms).clamp(-1.0, 1.0)
    return torch.where(undefined, float("nan"), ratio)


def _center(values: Tensor) -> Tensor:
    centered = values - values.mean(dim=-1, keepdim=True)
    # Influence scores can be as small as 1e-200; their squares would vanish without this rescaling.
    return centered / centered.abs().amax(dim=-1, keepdim=True)


def spearman(x: Tensor, y: Tensor) -> Tensor:
    r"""Spearman rank correlation along the last dimension, in float64, exact under ties.

    .. math::
        \rho = r(\operatorname{rank}(x), \operatorname{rank}(y))

    with tied values sharing their mean rank (Kendall & Gibbons, *Rank Correlation Methods*). This agrees with
    ``scipy.stats.spearmanr``; torchmetrics adds an epsilon to the denominator, ranks in float32 and returns 0 for a
    constant input.

    Args:
        x: finite values, shape ``(..., m)``.
        y: finite values, same shape.

    Returns:
        Correlations in [-1, 1], float64, shape ``(...)``; NaN where x or y is constant.

    Raises:
        ValueError: the shapes differ, or a value is not finite.

    Example:
        >>> spearman(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([1.0, 8.0, 27.0])).round(decimals=6)
        tensor(1., dtype=torch.float64)
    """
    _same_shape(x, y)
    return pearson(rank_average(x), rank_average(y))


def agreement(scores: Tensor, effect: Tensor, kind: Literal["pearson", "spearman"] = "spearman") -> Tensor:
    """Correlation of predicted scores with measured effects, with a rule for constant rows.

    A constant row makes the correlation 0/0. Whose fault that is decides what happens: constant *scores* carry no
    information and count as 0, otherwise a method would gain by staying silent on the hard queries; a constant
    *effect* gives nothing to predict, so the row is undefined for every method and stays NaN.

    Args:
        scores: predictions, shape ``(..., m)``.
        effect: measurements, same shape.
        kind: which correlation.

    Returns:
        Correlations, float64, shape ``(...)``.

    Raises:
        ValueError: the shapes differ, a value is not finite, or ``kind`` is unknown.

    Example:
        >>> agreement(torch.tensor([[1.0, 1.0, 1.0], [1.0, 2.0, 4.0]]), torch.tensor([[1.0, 2.0, 3.0]] * 2)).round(decimals=6)
        tensor([0., 1.], dtype=torch.float64)
    """
    if kind not in ("pearson", "spearman"):
        raise ValueError(f"Expected `kind` to be 'pearson' or 'spearman', found {kind!r}. Pass one of the two.")
    value = (pearson if kind == "pearson" else spearman)(scores, effect)
    silent = _is_constant(scores) & ~_is_constant(effect)
    return torch.where(silent, 0.0, value)
