"""Section 4: the samples that the model had to learn by heart."""

from __future__ import annotations

from typing import Any

from lightning_inf.report.run import Run
from lightning_inf.report.sections.ranking import LIST_LENGTH, of_kind, ranked_list

TITLE = "Self-influence"


def context(run: Run) -> dict[str, Any]:
    """Give the head of the ranking."""
    method = of_kind(run, "self")
    found = ranked_list(run, method) if method else None
    return {"list": found, "label_issue": run.label_issue, "length": LIST_LENGTH}
