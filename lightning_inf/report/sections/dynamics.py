"""Section 9: how the model took in each sample over the course of training."""

from __future__ import annotations

from typing import Any

from lightning_inf.report.run import Run

TITLE = "Training dynamics"


def context(run: Run) -> dict[str, Any] | None:
    """Give nothing where no curves were kept."""
    found = run.summary.get("dynamics")
    return None if found is None else {"found": found}
