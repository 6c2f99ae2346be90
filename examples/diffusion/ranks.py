"""Sets of candidates that lie in one another, and the place of the right one among them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def subset(size: int, total: int) -> list[int]:
    """The positions, among ``total`` candidates, of the set of ``size``: exemplars, first digits, first clothes."""
    return [*range(size // 2), *range(total // 2, total // 2 + size - size // 2)]


def rank(scores: np.ndarray, size: int, among: Sequence[int], total: int, right: int = 0) -> int | None:
    """Rank the right exemplar among ``size`` of ``total`` candidates.

    Args:
        scores: Of those that were asked, shape ``(m,)``.
        size: Of the set of candidates.
        among: Which were asked, the exemplars first.
        total: How many there are.
        right: The exemplar's position.

    Returns:
        One for the first; None where too few were asked.
    """
    if len(scores) < size:
        return None
    place = {index: position for position, index in enumerate(among)}
    chosen = [place[index] for index in subset(size, total)]
    return int((scores[chosen] > scores[right]).sum()) + 1
