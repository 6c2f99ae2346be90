"""Which samples the model knows by heart."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

#: Tukey's outer fence: as many interquartile ranges above the upper quartile.
FENCE = 3.0
#: A label is learnt where the model gives it more than this probability.
LEARNT = 0.5
RULE = "self-influence above Q3 + 3 (Q3 - Q1), and the model gives the label more than half of the probability"
RULE_OF_TARGETS = (
    "self-influence above Q3 + 3 (Q3 - Q1), and the prediction is nearer to the given than to the expected target"
)
RULE_ALONE = "self-influence above Q3 + 3 (Q3 - Q1); whether the label was learnt is not known"


@dataclass(frozen=True)
class Memorized:
    r"""Findings about memorisation; arrays of shape ``(n,)`` over all samples.

    Feldman ("Does Learning Require Memorization?", STOC 2020) calls a sample memorised where the model gets it right
    because it was trained on it, and not otherwise. Retraining without each sample tells; two things that cost nothing
    must hold of it: the model gets the label right in the end, and it took an effort of its own to get there, which is
    what self-influence sums up. Of an effort is spoken beyond Tukey's outer fence, :math:`Q_3 + 3 (Q_3 - Q_1)`
    (*Exploratory Data Analysis*, 1977), which an even distribution has nobody beyond. A sample beyond it that was not
    learnt is one that the model still resists.

    Attributes:
        known: Whether the sample has a self-influence.
        high: Whether it lies beyond the fence.
        is_memorized: Whether it does and the label was learnt, where that is known.
        threshold: The fence, None where nothing has a self-influence.
        rule: How the samples were told.
    """

    known: np.ndarray
    high: np.ndarray
    is_memorized: np.ndarray
    threshold: float | None
    rule: str

    @property
    def count(self) -> int:
        """The one count of memorised samples."""
        return int(self.is_memorized.sum())


def memorized(self_influence: np.ndarray, probability: np.ndarray | None, learnt_by: str = RULE) -> Memorized:
    """Find samples that the model knows by heart.

    Args:
        self_influence: High where a sample moves the model for its own sake, NaN or infinite where it is not known;
            shape ``(n,)``.
        probability: Of the given label under the analysed weights, or how far a prediction has moved to the given target
            (:func:`moved`); None where there are neither. Shape ``(n,)``.
        learnt_by: The rule, where it is known what was learnt.

    Example:
        >>> effort = np.array([1.0, 2.0] * 6 + [90.0, 95.0])
        >>> found = memorized(effort, np.array([0.9] * 12 + [0.8, 0.1]))
        >>> np.flatnonzero(found.high).tolist(), np.flatnonzero(found.is_memorized).tolist()
        ([12, 13], [12])
    """
    known = np.isfinite(self_influence)
    tells = probability is not None and bool(np.isfinite(probability[known]).any())
    rule = learnt_by if tells else RULE_ALONE
    nobody = np.zeros(len(known), dtype=bool)
    if not known.any():
        return Memorized(known, nobody, nobody, None, rule)
    lower, upper = np.quantile(self_influence[known], [0.25, 0.75])
    threshold = float(upper + FENCE * (upper - lower))
    high = known & (self_influence > threshold)  # NaN is above nothing
    learnt = probability > LEARNT if tells and probability is not None else known
    return Memorized(known, high, high & learnt, threshold, rule)


def moved(prediction: np.ndarray, expected: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Tell how far predictions have moved from what was expected to what was given, in parts of the way.

    Args:
        prediction: Under the analysed weights, shape ``(n,)``.
        expected: What is expected of each sample's target, shape ``(n,)``.
        target: As given, shape ``(n,)``.

    Returns:
        0 at the expected, 1 at the given target; 1 where the two are equal.

    Example:
        >>> moved(np.array([3.0, 1.0]), np.array([1.0, 1.0]), np.array([5.0, 1.0])).tolist()
        [0.5, 1.0]
    """
    way = target - expected
    return np.divide(prediction - expected, way, out=np.ones(len(way)), where=way != 0)


def ends(rank: np.ndarray, is_issue: np.ndarray, limit: int) -> tuple[list[int], list[int]]:
    """Split the samples of the highest self-influence into those whose labels are no issue and those whose are.

    Args:
        rank: By self-influence, 1 = highest, 0 = none; shape ``(n,)``.
        is_issue: Whether the label is an issue; shape ``(n,)``.
        limit: The most samples of each.

    Returns:
        Indices of rare samples that are probably right, and of wrong ones, highest self-influence first.

    Example:
        >>> ends(np.array([2, 1, 3, 0]), np.array([False, True, False, False]), limit=5)
        ([0, 2], [1])
    """
    order = np.argsort(np.where(rank > 0, rank, len(rank) + 1), kind="stable")[: int((rank > 0).sum())]
    flagged = is_issue[order]
    return order[~flagged][:limit].tolist(), order[flagged][:limit].tolist()
