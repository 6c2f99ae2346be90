"""Section 2: the samples whose labels are probably wrong."""

from __future__ import annotations

from typing import Any

from lightning_inf.report.reasons import why_default
from lightning_inf.report.run import Run
from lightning_inf.report.sections.ranking import LABEL, LIST_LENGTH, ranked_list

TITLE = "Likely mislabelled"


def context(run: Run) -> dict[str, Any]:
    """Give the default list."""
    return {
        "list": ranked_list(run, LABEL),
        "label_issue": run.label_issue,
        "reason": why_default(run.summary),
        "length": LIST_LENGTH,
    }
