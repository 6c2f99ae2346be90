"""What was decided about these samples before, and how precise the ranking turned out to be."""

from __future__ import annotations

from typing import Any

from lightning_inf.report.run import Run
from lightning_inf.report.sentences import finding

TITLE = "Decided before"
ROWS = 50
#: As a sentence says them, in the order of the table.
KINDS = {
    "accept": "suggestion accepted",
    "relabel": "given another label",
    "drop": "dropped",
    "keep": "label kept",
    "unsure": "unsure",
}


def context(run: Run) -> dict[str, Any] | None:
    """Give the counts, and the samples that are suspect again first."""
    decided = run.summary.get("decided")
    if not decided:
        return None
    names = run.summary["dataset"]["class_names"] or []
    rows = [
        {**row, "given": _name(row["given_label"], names), "new": _name(row["new_label"], names)}
        for row in decided["samples"]
    ]
    rows.sort(key=lambda row: not row["suspect_again"])  # stable: in the order of the file otherwise
    kinds = [(what, decided["kinds"][kind], decided["suspect_again"][kind]) for kind, what in KINDS.items()]
    return {
        "decided": decided,
        "finding": finding(decided),
        "kinds": kinds,
        "rows": rows[:ROWS],
        "what": KINDS,
        "judged": run.label_issue is not None and run.label_issue["num_issues"] is not None,
    }


def _name(label: int | None, names: list[str]) -> str | None:
    if label is None:
        return None
    return names[label] if label < len(names) else str(label)
