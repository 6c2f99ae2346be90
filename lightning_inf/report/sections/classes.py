"""Section 3: how many labels of each class are probably wrong."""

from __future__ import annotations

import math
from typing import Any

from lightning_inf.report.run import Run

TITLE = "Classes"
CLASSES = 50
#: Two-sided 95 % of the normal distribution.
Z = 1.959963984540054


def context(run: Run) -> dict[str, Any]:
    """Give the classes, the noisiest first."""
    classes = run.summary["classes"] or []
    worst = sorted(classes, key=_noise, reverse=True)[:CLASSES]
    return {"classes": worst, "total": len(classes)}


def wilson(k: int, n: int) -> tuple[float, float]:
    """Bound a share of ``k`` in ``n`` by Wilson's 95 % interval.

    Example:
        >>> low, high = wilson(1, 10)
        >>> round(low, 4), round(high, 4)
        (0.0179, 0.4042)
    """
    if not n:
        return 0.0, 1.0
    half = Z * math.sqrt(k * (n - k) / n + Z * Z / 4)
    low, high = ((k + Z * Z / 2 + sign * half) / (n + Z * Z) for sign in (-1, 1))
    return max(low, 0.0), min(high, 1.0)


def _noise(entry: dict[str, Any]) -> tuple[float, int, int]:
    """Order classes by the lower end of the interval, so that 1 issue in 2 samples does not lead."""
    n, k = entry["samples"] or 0, entry["label_issues"] or 0
    low = wilson(k, n)[0] if n else 0.0
    return round(low, 12), k, -(entry["label"] or 0)
