"""Section 2: the samples whose labels, or targets in a regression, are probably wrong."""

from __future__ import annotations

from typing import Any

import numpy as np
from markupsafe import Markup

from lightning_inf.report.drawing.density import density
from lightning_inf.report.drawing.histogram import histogram
from lightning_inf.report.drawing.plane import Axis
from lightning_inf.report.payload import first_k, payload
from lightning_inf.report.reasons import why_default
from lightning_inf.report.run import SAMPLE, SUGGESTION, Run
from lightning_inf.report.sections.ranking import LABEL, ranked_list

TITLE = "Likely mislabelled"
#: A page of the gallery, as in the page's script.
PAGE = 60


def context(run: Run) -> dict[str, Any]:
    """Give the histogram, the first page of the gallery, and the packed columns for the others."""
    rank = next((rank for rank in run.rankings if run.ranked(rank, ["index"], 1)), None)
    wanted = [*SAMPLE, *SUGGESTION, *run.rankings]
    rows = run.ranked(rank, wanted, PAGE) if rank else run.rows(range(PAGE), wanted)
    k = first_k(run)
    return {
        "title": "Suspicious targets" if run.noun == "target" else TITLE,
        "default": ranked_list(run, LABEL, limit=1),
        "label_issue": run.label_issue,
        "reason": why_default(run.summary),
        "histogram": _histogram(run),
        "residuals": _residuals(run),
        "spread": _spread(run),
        "by": run.rankings.get(rank or "", "index"),
        "cards": [
            {"row": row, "chips": _chips(run, row, k), "example": run.examples.of(row["index"], "large")}
            for row in rows
        ],
        "k": k,
        "data": payload(run),
        "notes": run.examples.notes,
        "pictures": "image" in run.examples.kinds,
    }


def _chips(run: Run, row: dict[str, Any], k: int) -> list[tuple[str, int | None, bool]]:
    """Give the sample's rank by every ranking, and whether that flags it."""
    chips = []
    for rank, name in run.rankings.items():
        place = row.get(rank)
        flagged = bool(row["is_label_issue"]) if rank == "label_rank" else place is not None and place <= k
        chips.append((name, place, flagged))
    return chips


def _histogram(run: Run) -> Any:
    scores = run.column("label_score")
    if scores is None or not np.isfinite(scores).any():
        return None
    threshold = (run.label_issue or {}).get("threshold")
    return histogram(
        "score-histogram",
        scores,
        f"Scores of all {run.noun}s",
        "label_score",
        threshold,
        "below the threshold",
        (0.0, 1.0),
    )


def _residuals(run: Run) -> Markup | None:
    """Draw given over expected targets; of right ones, the points lie about the diagonal."""
    given, expected = run.column("target"), run.column("expected_target")
    if given is None or expected is None:
        return None
    known = np.isfinite(given) & np.isfinite(expected)
    if not known.any():
        return None
    flags = run.column("is_label_issue")
    marked = None if flags is None or not np.isfinite(flags).any() else np.nan_to_num(flags) > 0
    across, up = Axis.of(expected[known], "expected target"), Axis.of(given[known], "given target")
    names = ("samples", "mostly suspect targets")
    return density(
        "target-plane", expected, given, across, up, "Given over expected targets", marked, names, equal=True
    )


def _spread(run: Run) -> float | None:
    """How far most right targets lie from what is expected: twice the scale of the references' residuals."""
    found = [m["details"]["residuals"]["scale"] for m in run.summary["methods"] if "residuals" in m.get("details", {})]
    return 2 * found[0] if found else None
