"""What samples do by being in the training set, estimated from models of many subsets."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_inf.metrics.functional.checks import as_float64, require_bool, require_finite, require_shape


def subset_effects(subsets: Tensor, outcomes: Tensor) -> Tensor:
    r"""Estimate memorisation and influence from a bank of models (Feldman and Zhang, NeurIPS 2020, Eq. 1 and 2).

    .. math:: \mathrm{infl}(i, j) = \mathbb{E}[o_j \mid i \in S] - \mathbb{E}[o_j \mid i \notin S]

    :math:`o_j` is what a model that was trained on the subset S says of sample j, 1 where it is right. Of a training sample
    on itself it is its memorisation. The standard error of an entry is at most :math:`\tfrac12 \sqrt{1/m + 1/(M - m)}`, m
    being in how many subsets i is.

    Args:
        subsets: Which samples each of M models saw, bool of shape ``(M, n)``.
        outcomes: What each says of q samples, shape ``(M, q)``.

    Returns:
        Shape ``(n, q)`` in fp64; NaN for a sample that is in all subsets or in none.

    Raises:
        TypeError: ``subsets`` is not bool.
        ValueError: a shape is wrong, or a value is not finite.

    Example:
        >>> subsets = torch.tensor([[True, False], [True, True], [False, True], [False, False]])
        >>> subset_effects(subsets, torch.tensor([[1.0], [1.0], [0.0], [1.0]])).tolist()
        [[0.5], [-0.5]]
    """
    require_shape(subsets, (None, None), "subsets")
    require_bool(subsets, "subsets")
    require_shape(outcomes, (subsets.shape[0], None), "outcomes")
    require_finite(outcomes, "outcomes")
    values, seen = as_float64(outcomes), subsets.double()
    within, without = seen.T @ values, (1 - seen).T @ values
    inside = seen.sum(dim=0, keepdim=True).T
    outside = len(seen) - inside
    known = (inside > 0) & (outside > 0)
    return torch.where(known, within / inside.clamp(min=1) - without / outside.clamp(min=1), torch.nan)
