"""Samples that could not be scored: named by index, never dropped in silence."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

#: How many indices are listed for a column; the count is always whole.
LISTED = 100


def non_finite(columns: Mapping[str, np.ndarray], scored: np.ndarray) -> list[dict[str, Any]]:
    """List scored samples whose value is NaN or infinite.

    Args:
        columns: Scores by column, shape ``(n,)``.
        scored: Indices of the samples that were scored.

    Returns:
        ``{"column", "count", "indices"}`` for each column that has any.
    """
    found = []
    for name, values in columns.items():
        bad = scored[~np.isfinite(values)[scored]]
        if len(bad):
            found.append({"column": name, "count": len(bad), "indices": bad[:LISTED].tolist()})
    return found
