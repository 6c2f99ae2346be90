"""What was decided before, and how precise the ranking turned out to be."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from lightning_inf.data.decisions import KINDS, Decision
from lightning_inf.data.reviewed import Reviewed
from lightning_inf.metrics.functional.intervals import wilson_interval

#: How many decisions the summary lists; the rest are counted.
LISTED = 1000


def decided(reviewed: Reviewed | None, is_issue: np.ndarray | None) -> dict[str, Any] | None:
    """Describe earlier decisions for the summary.

    A suspect is confirmed where the reviewer gave the sample another label or dropped it, and not where the label was
    kept; where nobody was sure, it counts for neither.

    Args:
        reviewed: The decisions, None for none.
        is_issue: Whether each label is an issue of this run, shape ``(n,)``; None where there are no classes.

    Returns:
        The entry ``decided``, None for none.
    """
    if reviewed is None:
        return None
    rows, places = reviewed.decisions.rows, reviewed.places
    marked = any(row.suspect is not None for row in rows)
    suspects = [row for row in rows if row.suspect or not marked]
    again = {row.index for row in rows if is_issue is not None and row.index in places and is_issue[places[row.index]]}
    changed = [row for row in suspects if row.changes]
    return {
        "file": os.path.basename(reviewed.decisions.path),
        "runs": list(reviewed.decisions.runs),
        "corrected": reviewed.corrected,
        "matched_by": reviewed.matched_by,
        "count": len(rows),
        "kinds": {kind: sum(row.kind == kind for row in rows) for kind in KINDS},
        "suspects": {**_precision(suspects), "marked": marked},
        "others": _precision([row for row in rows if row.suspect is False]) if marked else None,
        "suggestions": {"relabelled": len(changed), "accepted": sum(row.kind == "accept" for row in changed)},
        "not_here": sum(row.index not in places for row in rows if row.kind != "drop"),
        "suspect_again": {kind: sum(row.kind == kind and row.index in again for row in rows) for kind in KINDS},
        "samples": [_entry(row, places.get(row.index), row.index in again) for row in rows[:LISTED]],
    }


def _precision(rows: Sequence[Decision]) -> dict[str, Any]:
    """Count how many of those that somebody was sure of were confirmed."""
    sure = [row for row in rows if row.confirms is not None]
    confirmed = sum(bool(row.confirms) for row in sure)
    return {
        "reviewed": len(sure),
        "confirmed": confirmed,
        "precision": confirmed / len(sure) if sure else None,
        "interval": list(wilson_interval(confirmed, len(sure))) if sure else None,
    }


def _entry(row: Decision, place: int | None, again: bool) -> dict[str, Any]:
    return {
        "index": place,
        "sample_id": row.sample_id,
        "given_label": row.given_label,
        "decision": row.kind,
        "new_label": row.new_label,
        "suspect_again": again,
    }
