"""How far the rankings agree with each other."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from lightning_inf.metrics.functional import spearman

#: The part of the samples that the first k are at least.
LEAST = 0.01
#: Samples that a correlation is taken over, a seeded part where there are more: its standard error is 1 / sqrt of it.
CORRELATED = 200_000


def agreement(suspicion: Mapping[str, np.ndarray], ranks: Mapping[str, np.ndarray], issues: int) -> dict[str, Any]:
    r"""Compare every pair of rankings.

    Of each pair: Spearman's correlation of suspicion over the samples that both score (over 200,000 of them where there
    are more: it is known to 0.002 then), and
    :math:`|A_k \cap B_k| / k`, the part of the first k samples of one ranking that are among the first k of the other. Two
    rankings that have nothing to do with each other share :math:`k / n` of them on average.

    Args:
        suspicion: By score column, the higher the more suspicious, NaN or infinite where there is none; shape ``(n,)``.
        ranks: By the same names, 1 = most suspicious, 0 = none; shape ``(n,)``.
        issues: The number of label issues; k is that, but at least 1 % of the samples.

    Returns:
        ``k``, ``samples``, ``random_overlap`` and ``pairs``; a correlation is None where a score is constant.

    Example:
        >>> scores = {"a": np.array([3.0, 2.0, 1.0, 0.0]), "b": np.array([2.0, 3.0, 1.0, 0.0])}
        >>> ranks = {"a": np.array([1, 2, 3, 4]), "b": np.array([2, 1, 3, 4])}
        >>> found = agreement(scores, ranks, issues=2)
        >>> found["k"], found["random_overlap"], round(found["pairs"][0]["spearman"], 3), found["pairs"][0]["overlap"]
        (2, 0.5, 0.8, 1.0)
    """
    samples = next((len(values) for values in suspicion.values()), 0)
    k = min(max(issues, math.ceil(LEAST * samples)), samples)
    pairs = []
    for first, second in itertools.combinations(suspicion, 2):
        left, right = suspicion[first], suspicion[second]
        both = np.isfinite(left)
        both &= np.isfinite(right)
        count = int(np.count_nonzero(both))
        if count > CORRELATED:
            both = _part(both)
        left, right = left[both], right[both]
        heads = [_heads(ranks[name], k) for name in (first, second)]
        known = bool(k) and all(head.any() for head in heads)
        pairs.append(
            {
                "scores": [first, second],
                "samples": count,
                "spearman": _spearman(left, right),
                "overlap": int((heads[0] & heads[1]).sum()) / k if known else None,
            }
        )
    return {"k": k, "samples": samples, "random_overlap": k / samples if samples else None, "pairs": pairs}


def _heads(rank: np.ndarray, k: int) -> np.ndarray:
    """Tell which samples are among the first k."""
    head = rank > 0
    head &= rank <= k
    return head


def _part(chosen: np.ndarray) -> np.ndarray:
    """Keep about :data:`CORRELATED` of the chosen samples, always the same ones."""
    share = CORRELATED / np.count_nonzero(chosen)
    return chosen & (np.random.default_rng(0).random(len(chosen), dtype=np.float32) < share)


def _spearman(left: np.ndarray, right: np.ndarray) -> float | None:
    """Correlate ranks; None where that is 0/0."""
    found = float(spearman(torch.from_numpy(left), torch.from_numpy(right))) if len(left) > 1 else math.nan
    return None if math.isnan(found) else found
