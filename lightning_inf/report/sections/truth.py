"""Section 8: how good the rankings are, where the truth is known."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from markupsafe import Markup

from lightning_inf.report.drawing.lines import Curve, level, lines
from lightning_inf.report.drawing.plane import Axis
from lightning_inf.report.run import Run

TITLE = "Known truth"
#: The most curves on one plane.
CURVES = 6


def context(run: Run) -> dict[str, Any]:
    """Give the quality of each ranking, the best first."""
    known = run.summary["known_issues"]
    if not known:
        return {"known": None}
    methods = {name: values or {} for name, values in known["methods"].items()}
    cutoffs = {k for values in methods.values() for k in (values.get("precision_at_k") or {})}
    cutoffs |= {k for values in methods.values() for k in (values.get("recall_at_k") or {})}
    ordered = sorted(methods.items(), key=lambda item: item[1].get("average_precision") or 0.0, reverse=True)
    return {
        "known": known,
        "methods": ordered,
        "cutoffs": sorted(cutoffs, key=int),
        "best": next(((name, found) for name, found in ordered if found.get("average_precision") is not None), None),
        "curves": _curves(ordered, known["prevalence"]),
    }


def _curves(methods: Sequence[tuple[str, dict[str, Any]]], prevalence: float) -> Markup | None:
    """Draw precision over recall; the interval of the best ranking alone, so that it can be read."""
    traced = [(name, found["curve"]) for name, found in methods if (found.get("curve") or {}).get("k")][:CURVES]
    if not traced:
        return None
    curves = []
    for number, (name, found) in enumerate(traced):
        band = (np.array(found["low"]), np.array(found["high"])) if number == 0 else None
        curves.append(Curve(name, np.array(found["recall"]), np.array(found["precision"]), band))
    across, up = Axis(0.0, 1.0, "recall: share of the known issues found"), Axis(0.0, 1.0, "precision")
    curves.append(level(f"by chance: {prevalence:.3f}", prevalence, across))
    name, first = traced[0]
    half = int(np.searchsorted(np.array(first["recall"]), 0.5))
    half = min(half, len(first["recall"]) - 1)
    text = (
        f"Where {name} has found {first['recall'][half]:.0%} of the known issues, {first['precision'][half]:.0%} of those"
        f" looked at are issues (95 % interval {first['low'][half]:.0%} to {first['high'][half]:.0%}, shaded)."
    )
    return lines("truth-curves", curves, across, up, "Precision and recall of each ranking", text)
