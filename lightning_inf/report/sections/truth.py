"""Section 8: how good the rankings are, where the truth is known."""

from __future__ import annotations

from typing import Any

from lightning_inf.report.run import Run

TITLE = "Known truth"


def context(run: Run) -> dict[str, Any] | None:
    """Give the quality of each ranking, the best first."""
    known = run.summary["known_issues"]
    if not known:
        return None
    methods = {name: values or {} for name, values in known["methods"].items()}
    cutoffs = {k for values in methods.values() for k in (values.get("precision_at_k") or {})}
    cutoffs |= {k for values in methods.values() for k in (values.get("recall_at_k") or {})}
    ordered = sorted(methods.items(), key=lambda item: item[1].get("average_precision") or 0.0, reverse=True)
    return {"known": known, "methods": ordered, "cutoffs": sorted(cutoffs, key=int)}
