"""Section 7: how far the methods point at the same samples."""

from __future__ import annotations

from typing import Any

from lightning_inf.report.run import Run

TITLE = "Agreement"


def context(run: Run) -> dict[str, Any] | None:
    """Give the pairs of rankings; one ranking alone agrees with nobody."""
    found = run.summary.get("agreement")
    return {"agreement": found} if found and found["pairs"] else None
