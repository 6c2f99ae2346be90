"""Whole groups of training samples: which sources help the references, and which hurt them."""

from __future__ import annotations

from typing import Any

import pyarrow.parquet as pq

from lightning_inf.report.drawing.bars import interval_bar
from lightning_inf.report.run import Run
from lightning_inf.report.sections.classes import wilson

TITLE = "Groups"
GROUPS = 50


def context(run: Run) -> dict[str, Any] | None:
    """Give the groups, the most harmful first; None where samples belong to nothing."""
    entry = run.summary.get("groups")
    path = run.directory / "groups.parquet"
    if entry is None or not path.is_file():
        return None
    kinds = {column: method["kind"] for method in run.summary["methods"] for column in method["columns"]}
    # Influence on the references first: it is what a group can be blamed for.
    score = min(entry["scores"], key=lambda name: kinds.get(name) != "references", default=None)
    rows = [_row(row, score) for row in pq.read_table(path).to_pylist()]
    judged = any(row["judged"] for row in rows)
    rows.sort(key=_harm if score else _noise)
    shown = rows[:GROUPS]
    _draw(shown)
    return {
        "rows": shown,
        "total": entry["groups"],
        "without": entry["without"],
        "source": entry["source"],
        "score": score,
        "influence": kinds.get(score) == "references",
        "judged": judged,
        "harmful": sum(row["high"] is not None and row["high"] < 0 for row in rows),
    }


def _row(row: dict[str, Any], score: str | None) -> dict[str, Any]:
    """Take what the page shows of a group, with the interval of its share of label issues."""
    found = {name: row[name] for name in ("group", "samples", "judged", "label_issues")}
    for part in ("total", "mean", "low", "high"):
        found[part] = None if score is None else row[f"{score}_{part}"]
    bounds = wilson(row["label_issues"], row["judged"]) if row["judged"] else (None, None)
    return {**found, "share_low": bounds[0], "share_high": bounds[1]}


def _draw(rows: list[dict[str, Any]]) -> None:
    ends = [row[part] for row in rows for part in ("mean", "low", "high") if row[part] is not None]
    least, largest = min([0.0, *ends]), max([0.0, *ends])
    for row in rows:
        known = row["mean"] is not None
        row["bar"] = interval_bar(row["mean"], row["low"], row["high"], least, largest) if known else None


def _harm(row: dict[str, Any]) -> tuple[bool, float]:
    """Order by the mean; a group without scores comes last."""
    return row["mean"] is None, row["mean"] or 0.0


def _noise(row: dict[str, Any]) -> float:
    return -(row["share_low"] or 0.0)
