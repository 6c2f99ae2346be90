"""Section 10: what was done, by which formulas, what was left out, and the files that hold it all."""

from __future__ import annotations

from typing import Any

from lightning_inf.report.run import Run
from lightning_inf.report.sections.ranking import LIST_LENGTH

TITLE = "Methods and files"
INDICES = 100


def context(run: Run) -> dict[str, Any]:
    """Give what the summary does not say by itself."""
    first = next((rank for rank in run.rankings if run.ranked(rank, ["index"], 1)), "index")
    return {"first_rank": first, "rows": LIST_LENGTH, "indices": INDICES, "labelled": first == "label_rank"}
