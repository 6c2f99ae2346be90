"""Ranks: 1 is the most suspicious sample, ties go to the smaller index."""

from __future__ import annotations

from typing import Literal

import numpy as np


def rank(scores: np.ndarray, suspicious: Literal["lowest", "highest"]) -> np.ndarray:
    """Rank scores by suspicion.

    Args:
        scores: Shape ``(n,)``; NaN and infinite values get no rank.
        suspicious: Which end comes first.

    Returns:
        Ranks from 1, shape ``(n,)``, int64; 0 where there is none.

    Example:
        >>> rank(np.array([0.5, np.nan, 0.1, 0.1]), "lowest").tolist()
        [3, 0, 1, 2]
    """
    finite = np.flatnonzero(np.isfinite(scores))
    values = scores[finite] if suspicious == "lowest" else -scores[finite]
    order = finite[np.argsort(values, kind="stable")]  # stable: equal scores keep the order of their indices
    ranks = np.zeros(len(scores), dtype=np.int64)
    ranks[order] = np.arange(1, len(order) + 1)
    return ranks
