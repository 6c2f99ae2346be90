"""What whole groups of training samples did: the sum and the mean of their samples' scores."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lightning_inf.data.groups import Groups
from lightning_inf.metrics.functional import t_quantile


@dataclass(frozen=True)
class GroupScores:
    """One score by group; all arrays have shape ``(groups,)``.

    Attributes:
        scored: How many of the group's samples have a finite score.
        total: Their sum; 0 where there is none.
        mean: Their mean; NaN where there is none.
        low: Lower end of the mean's 95 % interval; NaN with fewer than two.
        high: Upper end.
    """

    scored: np.ndarray
    total: np.ndarray
    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray


def by_group(groups: Groups, values: np.ndarray) -> GroupScores:
    r"""Sum and average a score over each group.

    To first order, influences add up: leaving a whole group out changes the references' loss by the sum of its samples'
    influences (Koh et al., NeurIPS 2019, find that the sum ranks groups well and is too small in size where the group is
    large). The mean compares groups of unlike size; its interval, :math:`\bar s \pm t_{n-1} s / \sqrt{n}`, takes the samples
    for independent draws from what the group might have supplied.

    Args:
        groups: Of the training samples.
        values: A score, shape ``(samples,)``; what is not finite is left out.

    Returns:
        By group.

    Example:
        >>> groups = Groups.of(["a", "a", "b"], 3, "groups=")
        >>> found = by_group(groups, np.array([1.0, 3.0, 5.0]))
        >>> found.total.tolist(), found.mean.tolist(), found.low.round(2).tolist()
        ([4.0, 5.0], [2.0, 5.0], [-10.71, nan])
    """
    size = len(groups.names)
    kept = np.flatnonzero((groups.codes >= 0) & np.isfinite(values))
    codes, scores = groups.codes[kept], values[kept]
    scored = np.bincount(codes, minlength=size)
    total = np.bincount(codes, weights=scores, minlength=size)
    with np.errstate(divide="ignore", invalid="ignore"):  # a group without scores, or with a single one
        mean = total / np.where(scored, scored, np.nan)
        # In two steps: a difference of large sums of squares would lose the spread of scores that are alike.
        squares = np.bincount(codes, weights=np.square(scores - mean[codes]), minlength=size)
        error = np.sqrt(squares / np.where(scored > 1, scored - 1, np.nan) / scored)
    half = np.array([t_quantile(0.975, n - 1) if n > 1 else np.nan for n in scored.tolist()]) * error
    return GroupScores(scored, total, mean, mean - half, mean + half)


def counted(groups: Groups, flags: np.ndarray | None) -> np.ndarray:
    """Count the samples of each group, or those of them with a flag; shape ``(groups,)``."""
    inside = groups.codes >= 0
    codes = groups.codes[inside if flags is None else inside & flags]
    return np.bincount(codes, minlength=len(groups.names))
