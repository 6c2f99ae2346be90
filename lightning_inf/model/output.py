"""What a model says of samples, and what of it is differentiated: the loss, or the log-odds of the given label."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
from torch import Tensor

#: The ``loss``, or for single-label classifiers the ``margin``: the log-odds of the given label.
Output: TypeAlias = Literal["loss", "margin"]


@dataclass
class Outputs:
    """What a model says of B samples.

    Attributes:
        loss: The loss of each sample, shape ``(B,)``.
        logits: For single-label classifiers, shape ``(B, C)``.
        target: For single-label classifiers, class indices of shape ``(B,)``; outside ``[0, C)`` where ignored.
        prediction: For regressions of one number a sample, shape ``(B,)``.
        value: For these, the given target, shape ``(B,)``.
    """

    loss: Tensor
    logits: Tensor | None = None
    target: Tensor | None = None
    prediction: Tensor | None = None
    value: Tensor | None = None


def mean_outputs(found: Sequence[Outputs]) -> Outputs:
    """Average what a model says of the same samples in several draws."""
    if len(found) == 1:
        return found[0]
    logits = [one.logits for one in found if one.logits is not None]
    predictions = [one.prediction for one in found if one.prediction is not None]
    return Outputs(
        torch.stack([one.loss for one in found]).mean(dim=0),
        torch.stack(logits).mean(dim=0) if len(logits) == len(found) else None,
        found[0].target,
        torch.stack(predictions).mean(dim=0) if len(predictions) == len(found) else None,
        found[0].value,
    )


def log_odds(logits: Tensor, target: Tensor) -> Tensor:
    r"""Compute :math:`z_y - \log \sum_{j \ne y} e^{z_j} = \log \frac{p_y}{1 - p_y}` of B samples.

    No control flow depends on the values, so it passes through ``jvp``, ``grad`` and ``vmap``.

    Args:
        logits: Shape ``(B, C)`` with at least two classes.
        target: Class indices, shape ``(B,)``.

    Returns:
        Shape ``(B,)``; 0 where the target is no class.

    Example:
        >>> log_odds(torch.tensor([[0.0, 2.0], [1.0, 1.0]]), torch.tensor([1, -100])).tolist()
        [2.0, 0.0]
    """
    classes = logits.shape[1]
    valid = (target >= 0) & (target < classes)
    label = torch.where(valid, target, 0).unsqueeze(1)
    given = logits.gather(1, label).squeeze(1)
    is_given = torch.arange(classes, device=logits.device).unsqueeze(0) == label
    others = logits.masked_fill(is_given, float("-inf")).logsumexp(dim=1)
    return torch.where(valid, given - others, torch.zeros_like(given))
