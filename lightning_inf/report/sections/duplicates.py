"""Section 6: training samples that are in the references, or in the training set more than once."""

from __future__ import annotations

from typing import Any

from lightning_inf.report.run import Run

TITLE = "Duplicates"


def context(run: Run) -> dict[str, Any] | None:
    """Give nothing where the run looked for none."""
    found = run.summary.get("duplicates")
    return None if found is None else {"found": found}
