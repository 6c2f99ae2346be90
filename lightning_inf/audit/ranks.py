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
    finite = np.isfinite(scores)
    count = int(np.count_nonzero(finite))
    # Values without a rank go to the end. One array of keys and one of places: 28 bytes a sample with the sort's own.
    keys = np.array(scores, dtype=np.float64)
    if suspicious == "highest":
        np.negative(keys, out=keys)
    keys[~finite] = np.inf
    order = np.argsort(keys, kind="stable")[:count]  # stable: equal scores keep the order of their indices
    del keys
    ranks = np.zeros(len(scores), dtype=np.int64)
    ranks[order] = np.arange(1, count + 1)
    return ranks
