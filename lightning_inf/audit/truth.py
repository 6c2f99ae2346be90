"""How well each ranking finds issues that are known."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from lightning_inf.metrics import MislabelDetection


def against_truth(known: np.ndarray, ranks: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Judge rankings by the issues that the user knows of.

    Args:
        known: Whether each scored sample is an issue, shape ``(n,)``.
        ranks: Ranks by name, 1 = most suspicious, 0 = none; a sample without a rank counts as the least suspicious.

    Returns:
        ``count``, ``prevalence`` and, by name, average precision, AUROC, precision and recall at k.
    """
    methods = {}
    for name, rank in ranks.items():
        metric = MislabelDetection()
        # In [0, 1]: torchmetrics squashes other values, and many would become ties.
        suspicion = np.where(rank > 0, 1.0 - rank / (len(rank) + 1), 0.0)
        metric.update(torch.from_numpy(suspicion), torch.from_numpy(known))
        found = metric.compute()
        methods[name] = {
            "average_precision": _number(found["average_precision"]),
            "auroc": _number(found["auroc"]),
            "precision_at_k": {str(k): _number(v) for k, v in found["precision_at_k"].items()},
            "recall_at_k": {str(k): _number(v) for k, v in found["recall_at_k"].items()},
        }
    return {"count": int(known.sum()), "prevalence": float(known.mean()) if len(known) else 0.0, "methods": methods}


def _number(value: Any) -> float | None:
    return None if value is None else float(value)
