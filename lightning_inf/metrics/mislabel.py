"""Does a suspicion score bring mislabelled samples to the top of the list a person will inspect?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lightning_inf.metrics.base import PooledMetric, number_or_none
from lightning_inf.metrics.functional.checks import as_float64, normalize_k
from lightning_inf.metrics.functional.detection import (
    auroc,
    average_precision,
    check_detection_inputs,
    found_after,
    precision_recall_at_k,
)

_PERCENT = (1, 5, 10, 20, 50)


class MislabelDetection(PooledMetric):
    r"""Quality of a per-sample suspicion score as a detector of planted issues.

    With the samples sorted by suspicion, most suspect first, and found(k) issues among the first k:

    .. math::
        P@k = \frac{\mathrm{found}(k)}{k}, \quad R@k = \frac{\mathrm{found}(k)}{\mathrm{issues}}, \quad
        F(x) = R@\lceil x n / 100 \rceil, \quad \mathrm{AP} = \sum_t (R_t - R_{t-1}) P_t

    Average precision and AUROC are torchmetrics' own, and do not depend on the order of tied samples. The at-k and
    found-after values do: among equal scores, the sample given first is inspected first (under several workers,
    worker by worker). Shuffle before updating if the issues come first in the data, or a constant score looks good.

    ``compute`` returns a dict:

    - ``average_precision``, ``auroc``: number in [0, 1]; ``None`` without any issue or without any clean sample.
      A random score gets about ``prevalence`` and 0.5.
    - ``precision_at_k``, ``recall_at_k``: ``{k: number in [0, 1]}``; ``None`` where k exceeds the number of samples,
      and for recall without any issue.
    - ``found_after``: ``{x: share of the issues found after inspecting x % of the samples}`` for x in 1, 5, 10, 20,
      50; ``None`` without any issue.
    - ``prevalence``: share of samples that are issues, ``None`` without samples; ``count``: number of samples.

    Args:
        k: cut-offs. Default: 10, 50, 100 and the number of issues, those that do not exceed the number of samples.
        kwargs: passed to ``torchmetrics.Metric``.

    Raises:
        ValueError: a cut-off is not a positive whole number.

    Example:
        >>> metric = MislabelDetection(k=[1, 2])
        >>> metric.update(torch.tensor([0.9, 0.1, 0.8, 0.2]), torch.tensor([True, False, False, True]))
        >>> result = metric.compute()
        >>> result["precision_at_k"], result["recall_at_k"]
        ({1: 1.0, 2: 0.5}, {1: 0.5, 2: 0.5})
        >>> round(result["average_precision"], 4), result["auroc"], result["prevalence"], result["count"]
        (0.8333, 0.75, 0.5, 4)
    """

    higher_is_better: bool = True
    suspicion: list[Tensor]
    is_issue: list[Tensor]

    def __init__(self, k: Sequence[int] | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.k = None if k is None else normalize_k(k)
        self.add_pool("suspicion", torch.float64)
        self.add_pool("is_issue", torch.bool)

    def update(self, suspicion: Tensor, is_issue: Tensor) -> None:
        """Add a chunk of samples.

        Args:
            suspicion: higher = more suspect, any unit, shape ``(B,)``.
            is_issue: which samples are planted issues, bool, shape ``(B,)``.

        Raises:
            TypeError: ``is_issue`` is not bool.
            ValueError: a shape is wrong, or a score is not finite (the message says how many).
        """
        check_detection_inputs(suspicion, is_issue)
        kept = as_float64(suspicion)
        self.keep("suspicion", kept)
        self.keep("is_issue", is_issue.to(kept.device))

    def compute(self) -> dict[str, Any]:
        """Evaluate all samples given so far; the class describes the result."""
        suspicion, is_issue = self.pooled("suspicion"), self.pooled("is_issue")
        samples, issues = suspicion.numel(), int(is_issue.sum())
        cuts = self.k
        if cuts is None:
            cuts = tuple(sorted({k for k in (10, 50, 100, issues) if 1 <= k <= samples}))
        precision, recall = [], []
        if cuts:
            at_k = precision_recall_at_k(suspicion, is_issue, cuts)
            precision, recall = at_k[0].tolist(), at_k[1].tolist()
        found = found_after(suspicion, is_issue, _PERCENT).tolist()
        return {
            "average_precision": number_or_none(average_precision(suspicion, is_issue)),
            "auroc": number_or_none(auroc(suspicion, is_issue)),
            "precision_at_k": {k: number_or_none(value) for k, value in zip(cuts, precision, strict=True)},
            "recall_at_k": {k: number_or_none(value) for k, value in zip(cuts, recall, strict=True)},
            "found_after": {x: number_or_none(value) for x, value in zip(_PERCENT, found, strict=True)},
            "prevalence": issues / samples if samples else None,
            "count": samples,
        }
