"""How far the rankings agree with each other."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

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


def most_different(kinds: Mapping[str, str], pairs: Sequence[Mapping[str, Any]]) -> tuple[str, str] | None:
    """Choose two rankings to look at side by side: of different kinds, and least correlated.

    Args:
        kinds: The kind of method behind each score column.
        pairs: As :func:`agreement` gives them.

    Example:
        >>> kinds = {"a": "self", "b": "self", "c": "references"}
        >>> scores = [("a", "b", 0.1), ("a", "c", 0.5), ("b", "c", 0.3)]
        >>> most_different(kinds, [{"scores": [x, y], "spearman": r} for x, y, r in scores])
        ('b', 'c')
    """
    known = [pair for pair in pairs if pair["spearman"] is not None] or list(pairs)
    apart = [pair for pair in known if kinds.get(pair["scores"][0]) != kinds.get(pair["scores"][1])] or known
    chosen = min(apart, key=lambda pair: pair["spearman"] or 0.0, default=None)
    return None if chosen is None else (chosen["scores"][0], chosen["scores"][1])


def overlap_curve(first: np.ndarray, second: np.ndarray, points: int = 60) -> dict[str, list[float]]:
    r"""Overlap of the heads of two rankings, :math:`|A_k \cap B_k| / k`, for k from 1 to n.

    Args:
        first: Ranks, 1 = most suspicious, 0 = none; shape ``(n,)``.
        second: The same.
        points: The most values of k, evenly spaced on a logarithmic axis.

    Returns:
        ``k``, ``overlap`` and ``random``, the overlap k / n that two unrelated rankings have on average; of the samples
        that both rank.

    Example:
        >>> found = overlap_curve(np.array([1, 2, 3, 4]), np.array([2, 1, 4, 3]))
        >>> found["k"], found["overlap"], found["random"]
        ([1, 2, 3, 4], [0.0, 1.0, 0.6666666666666666, 1.0], [0.25, 0.5, 0.75, 1.0])
    """
    first, second = both_ranked(first, second)
    n = len(first)
    if not n:
        return {"k": [], "overlap": [], "random": []}
    # A sample is in both heads from the larger of its ranks on.
    shared = np.bincount(np.maximum(first, second), minlength=n + 1)
    np.cumsum(shared, out=shared)
    ks = np.unique(np.geomspace(1, n, points).round().astype(int))
    return {"k": ks.tolist(), "overlap": (shared[ks] / ks).tolist(), "random": (ks / n).tolist()}


def both_ranked(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rank anew the samples that both rankings have, from 1; no rank is given twice. Shape ``(m,)`` each.

    Example:
        >>> first, second = both_ranked(np.array([3, 1, 0, 2]), np.array([1, 0, 2, 3]))
        >>> first.tolist(), second.tolist()
        ([2, 1], [1, 2])
    """
    both = (first > 0) & (second > 0)
    if both.all():
        return first, second  # of ten million samples every copy counts
    ranks = []
    for values in (first[both], second[both]):
        taken = np.zeros(int(values.max(initial=0)) + 1, dtype=np.int32)
        taken[values] = 1
        ranks.append(np.cumsum(taken, out=taken)[values])
    return ranks[0], ranks[1]


def disagreement(first: np.ndarray, second: np.ndarray, limit: int) -> list[int]:
    """Find the samples that the first ranking suspects and the second trusts most.

    The first ``limit`` of the first ranking are meant, or a tenth of the samples where that is more; of these, those
    that come last in the second.

    Args:
        first: Ranks, 1 = most suspicious, 0 = none; shape ``(n,)``.
        second: The same.
        limit: The most samples to name.

    Returns:
        Their indices, the widest apart first; none that the second ranks as high as the first does.

    Example:
        >>> disagreement(np.array([1, 2, 3, 4]), np.array([4, 2, 1, 3]), limit=2)
        [0]
    """
    both = np.flatnonzero((first > 0) & (second > 0))
    count = min(max(limit, len(both) // 10), len(both))
    ranks = first[both]
    head = both[ranks <= np.partition(ranks, count - 1)[count - 1]] if count else both
    ordered = head[np.lexsort((head, -second[head]))]
    return [int(i) for i in ordered if second[i] > first[i]][:limit]


def _spearman(left: np.ndarray, right: np.ndarray) -> float | None:
    """Correlate ranks; None where that is 0/0."""
    import torch  # here: the page reads this file, and is built where there is no torch

    from lightning_inf.metrics.functional import spearman

    found = float(spearman(torch.from_numpy(left), torch.from_numpy(right))) if len(left) > 1 else math.nan
    return None if math.isnan(found) else found
