"""Which samples are worth a picture: there is room for about a thousand."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

SHOWN = 1000
#: The first page of the gallery comes before all else.
FIRST_PAGE = 60


def worth_showing(ranks: Mapping[str, np.ndarray], sections: Iterable[int], limit: int = SHOWN) -> list[int]:
    """Order samples by how likely the report is to show them.

    Args:
        ranks: By column, 1 = most suspicious, 0 = none, shape ``(n,)``; where there is a ``label_rank``, its first page
            comes first.
        sections: Samples that a section shows whatever their rank.
        limit: How many at most.

    Returns:
        Indices, the most important first, none twice.

    Example:
        >>> worth_showing({"label_rank": np.array([3, 1, 2])}, sections=[0], limit=2)
        [1, 2]
    """
    heads = {name: _head(rank, limit) for name, rank in ranks.items()}
    first = heads.get("label_rank") or next(iter(heads.values()), [])
    order = dict.fromkeys([*first[:FIRST_PAGE], *sections])
    # Then the heads of all rankings in turn, the default list twice as far as the others.
    for depth in range(limit):
        if len(order) >= limit:
            break
        for head in heads.values():
            steps = (2 * depth, 2 * depth + 1) if head is first else (depth,)
            order.update(dict.fromkeys(head[step] for step in steps if step < len(head)))
    return list(order)[:limit]


def _head(rank: np.ndarray, limit: int) -> list[int]:
    chosen = np.flatnonzero((rank > 0) & (rank <= limit))
    found: list[int] = chosen[np.argsort(rank[chosen], kind="stable")].tolist()
    return found
