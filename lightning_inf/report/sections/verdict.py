"""Section 1: what is wrong with the training set, in one sentence and a few numbers."""

from __future__ import annotations

from typing import Any

from lightning_inf.report.run import Run
from lightning_inf.report.sections.ranking import LABEL, of_kind, ranked_list

TITLE = "Verdict"


def context(run: Run) -> dict[str, Any]:
    """Give the cards their numbers."""
    itself = of_kind(run, "self")
    return {
        "label_issue": run.label_issue,
        "memorised": ranked_list(run, itself, limit=1) if itself else None,
        "default": ranked_list(run, LABEL, limit=1),
    }
