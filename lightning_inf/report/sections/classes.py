"""Section 3: how many labels of each class are probably wrong, and what they are taken for."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from lightning_inf.report.drawing.bars import share_bar
from lightning_inf.report.drawing.heatmap import heatmap
from lightning_inf.report.run import Run

TITLE = "Classes"
CLASSES = 50
#: Beyond so many classes a heatmap can't be read, and the pairs alone are listed.
HEATMAP, PAIRS = 30, 30
#: Two-sided 95 % of the normal distribution.
Z = 1.959963984540054


def context(run: Run) -> dict[str, Any] | None:
    """Give the classes, the noisiest first, and the pairs of given and suggested labels; nothing for a regression."""
    if run.noun == "target":
        return None
    classes = run.summary["classes"] or []
    worst = [_with_interval(entry) for entry in sorted(classes, key=_noise, reverse=True)[:CLASSES]]
    largest = max((entry["high"] for entry in worst if entry["samples"]), default=1.0)
    for entry in worst:
        bounds = (entry["low"], entry["high"], largest)
        entry["bar"] = share_bar((entry["label_issues"] or 0) / entry["samples"], *bounds) if entry["samples"] else ""
    pairs = label_pairs(run)
    return {
        "classes": worst,
        "total": len(classes),
        "pairs": [
            {"given": run.class_names[a], "suggested": run.class_names[b], "count": n, "key": f"{a} {b}"}
            for a, b, n in pairs[:PAIRS]
        ],
        "heatmap": _heatmap(run, pairs) if pairs and 1 < len(run.class_names) <= HEATMAP else None,
        "rest": len(pairs) - PAIRS,
    }


def label_pairs(run: Run) -> list[tuple[int, int, int]]:
    """Count given and suggested labels of the label issues.

    Returns:
        ``(given, suggested, count)``, the most frequent first.
    """
    columns = [run.column(name) for name in ("label", "suggested_label", "is_label_issue")]
    if any(column is None for column in columns):
        return []
    given, suggested, issue = (column for column in columns if column is not None)
    both = (issue == 1) & np.isfinite(given) & np.isfinite(suggested) & (given != suggested)
    pairs, counts = np.unique(np.stack([given[both], suggested[both]], axis=1), axis=0, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    return [(int(pairs[i, 0]), int(pairs[i, 1]), int(counts[i])) for i in order]


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


def worst_class(run: Run) -> dict[str, Any] | None:
    """Find the class that is noisy with most certainty; None where no class has a label issue."""
    noisy = [entry for entry in run.summary["classes"] or [] if entry["label_issues"]]
    return _with_interval(max(noisy, key=_noise)) if noisy else None


def _with_interval(entry: dict[str, Any]) -> dict[str, Any]:
    low, high = wilson(entry["label_issues"] or 0, entry["samples"] or 0)
    return {**entry, "low": low, "high": high}


def _noise(entry: dict[str, Any]) -> tuple[float, int, int]:
    """Order classes by the lower end of the interval, so that 1 issue in 2 samples does not lead."""
    n, k = entry["samples"] or 0, entry["label_issues"] or 0
    low = wilson(k, n)[0] if n else 0.0
    return round(low, 12), k, -(entry["label"] or 0)


def _heatmap(run: Run, pairs: list[tuple[int, int, int]]) -> Any:
    labels = list(run.class_names)
    place = {label: i for i, label in enumerate(labels)}
    counts = np.zeros((len(labels), len(labels)), dtype=int)
    for given, suggested, count in pairs:
        counts[place[given], place[suggested]] = count
    names = list(run.class_names.values())
    title = "Label issues by given and suggested label"
    return heatmap("pairs", counts, names, "Given label", "Suggested label", title, keys=labels)
