"""How well each ranking finds issues that are known."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from lightning_inf.metrics import MislabelDetection
from lightning_inf.metrics.functional import wilson_interval

#: The most points of a precision-recall curve that the summary holds.
POINTS = 100
#: Resamples of the bootstrap of average precision.
RESAMPLES = 200


def against_truth(known: np.ndarray, ranks: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Judge rankings by the issues that the user knows of.

    Args:
        known: Whether each scored sample is an issue, shape ``(n,)``.
        ranks: Ranks by name, 1 = most suspicious, 0 = none; a sample without a rank counts as the least suspicious.

    Returns:
        ``count``, ``prevalence`` and, by name, average precision with its 95 % interval, AUROC, precision and recall at k,
        and the precision-recall curve.
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
            "interval": average_precision_interval(known, rank),
            "auroc": _number(found["auroc"]),
            "precision_at_k": {str(k): _number(v) for k, v in found["precision_at_k"].items()},
            "recall_at_k": {str(k): _number(v) for k, v in found["recall_at_k"].items()},
            "curve": curve(known, rank),
        }
    return {"count": int(known.sum()), "prevalence": float(known.mean()) if len(known) else 0.0, "methods": methods}


def curve(known: np.ndarray, rank: np.ndarray, points: int = POINTS) -> dict[str, list[Any]]:
    """Trace precision and recall down a ranking.

    Args:
        known: Whether each sample is an issue, shape ``(n,)``.
        rank: 1 = most suspicious, 0 = none; samples without a rank come last.
        points: The most points to keep: those at which recall has grown by equal steps.

    Returns:
        Lists of one length: ``k``, ``recall``, ``precision`` and its 95 % interval ``low``, ``high`` (Wilson's, of k
        samples of which so many are issues). Empty without any issue.

    Example:
        >>> found = curve(np.array([True, False, True]), np.array([1, 2, 3]))
        >>> found["k"], found["recall"], found["precision"]
        ([1, 3], [0.5, 1.0], [1.0, 0.66667])
    """
    ordered = known[_order(rank)]
    hits = np.flatnonzero(ordered) + 1  # k at which another issue is found
    if not len(hits):
        return {name: [] for name in ("k", "recall", "precision", "low", "high")}
    chosen = np.unique(np.linspace(0, len(hits) - 1, min(points, len(hits))).round().astype(int))
    ks, counts = hits[chosen].tolist(), (chosen + 1).tolist()
    bounds = [wilson_interval(count, k) for count, k in zip(counts, ks, strict=True)]
    return {
        "k": ks,
        "recall": [round(count / len(hits), 5) for count in counts],
        "precision": [round(count / k, 5) for count, k in zip(counts, ks, strict=True)],
        "low": [round(low, 5) for low, _ in bounds],
        "high": [round(high, 5) for _, high in bounds],
    }


def average_precision_interval(
    known: np.ndarray, rank: np.ndarray, resamples: int = RESAMPLES, seed: int = 0
) -> list[float] | None:
    """Bound average precision by a percentile bootstrap over the samples.

    Every resample draws n samples with replacement, which is to give each sample a weight; the ranking stays.

    Args:
        known: Whether each sample is an issue, shape ``(n,)``.
        rank: 1 = most suspicious, 0 = none; samples without a rank are tied behind all others.
        resamples: How many.
        seed: Of the draws.

    Returns:
        Lower and upper end of the 95 % interval; None without issues, or with nothing else.
    """
    if not known.any() or known.all():
        return None
    order = _order(rank)
    ordered, ranked = known[order], int((rank > 0).sum())
    generator, n = np.random.default_rng(seed), len(known)
    drawn = (np.bincount(generator.integers(0, n, n), minlength=n) for _ in range(resamples))
    values = [value for weights in drawn if (value := _weighted(ordered, weights, ranked)) is not None]
    if not values:
        return None
    low, high = np.quantile(values, [0.025, 0.975]).tolist()
    return [round(low, 5), round(high, 5)]


def _weighted(ordered: np.ndarray, weights: np.ndarray, ranked: int) -> float | None:
    """Average precision of weighted samples in order; those from ``ranked`` on are tied."""
    hits, seen = np.cumsum(weights * ordered), np.cumsum(weights)
    if not hits[-1]:
        return None
    precision = hits / np.maximum(seen, 1)
    precision[ranked:] = precision[-1]
    return float((precision * weights * ordered).sum() / hits[-1])


def _order(rank: np.ndarray) -> np.ndarray:
    """Samples from the most to the least suspicious, those without a rank last."""
    return np.argsort(np.where(rank > 0, rank, len(rank) + 1), kind="stable")


def _number(value: Any) -> float | None:
    return None if value is None else float(value)
