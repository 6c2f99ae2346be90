"""Section 4: the samples that the model had to learn by heart."""

from __future__ import annotations

from typing import Any

import numpy as np
from markupsafe import Markup

from lightning_inf.audit.memorized import ends
from lightning_inf.report.drawing.density import density
from lightning_inf.report.drawing.lines import Curve, level, lines
from lightning_inf.report.drawing.plane import Axis
from lightning_inf.report.run import Run
from lightning_inf.report.sections.galleries import LENGTH, tiles
from lightning_inf.report.sections.ranking import LIST_LENGTH, of_kind, ranked_list

TITLE = "Self-influence"
#: The most points of the rank curve.
POINTS = 160


def context(run: Run) -> dict[str, Any]:
    """Give the curve, the density and both ends of the ranking."""
    method = of_kind(run, "self")
    found = ranked_list(run, method) if method else None
    values = run.column(found.score) if found else None
    nothing = {"list": found, "label_issue": run.label_issue, "length": LIST_LENGTH, "memorized": None}
    ranks = run.column(found.rank) if found else None
    if found is None or values is None or ranks is None or not np.isfinite(values).any():
        return {**nothing, "curve": None, "density": None, "rare": [], "wrong": []}
    flags = run.column("is_label_issue")
    judged = flags is not None and bool(np.isfinite(flags).any())
    is_issue = np.nan_to_num(flags) > 0 if judged and flags is not None else np.zeros(len(values), dtype=bool)
    said = run.summary.get("memorized")
    fence = said["threshold"] if said else None
    rare, wrong = ends(np.nan_to_num(ranks).astype(np.int64), is_issue, LENGTH)
    notes = {index: f"{found.score} {values[index]:.3g}" for index in (*rare, *wrong)}
    return {
        **nothing,
        "memorized": said,
        "judged": judged,
        "curve": _curve(values, found.score, fence),
        "density": _density(values, run.column("loss"), is_issue if judged else None, found.score, fence, run.noun),
        "rare": tiles(run, rare, notes),
        "wrong": tiles(run, wrong, notes),
    }


def _curve(values: np.ndarray, name: str, fence: float | None) -> Markup:
    """Draw the scores from the highest down."""
    ordered = np.sort(values[np.isfinite(values)])[::-1]
    ranks = np.unique(np.geomspace(1, len(ordered), min(POINTS, len(ordered))).round().astype(int))
    log = bool((ordered > 0).all())
    across, up = Axis.of(np.array([1.0, len(ordered)]), "rank", log=True), Axis.of(ordered, name, log)
    curves = [Curve(name, ranks.astype(float), ordered[ranks - 1])]
    if fence is not None and up.low <= fence <= up.high:
        curves.append(level(f"above {fence:.3g}: high", fence, across))
    total = float(ordered.sum())
    half = int(np.searchsorted(np.cumsum(ordered), total / 2)) + 1 if total > 0 and (ordered >= 0).all() else None
    text = f"From {ordered[0]:.3g} down to {ordered[-1]:.3g}."
    if half is not None:
        text += f" The first {half:,} of {len(ordered):,} samples hold half of the sum."
    return lines("self-curve", curves, across, up, f"{name} by rank", text)


def _density(
    values: np.ndarray, loss: np.ndarray | None, is_issue: np.ndarray | None, name: str, fence: float | None, noun: str
) -> Markup | None:
    """Draw the scores against the final loss; both axes are logarithmic where all values are positive."""
    if loss is None:
        return None
    there = np.isfinite(values) & np.isfinite(loss)
    if not there.any():
        return None
    across = Axis.of(loss[there], "loss under the analysed weights", bool((loss[there] > 0).mean() > 0.5))
    up = Axis.of(values[there], name, bool((values[there] > 0).mean() > 0.5))
    title = f"{name} against loss"
    names = ("samples", f"mostly {noun} issues")
    return density("self-density", loss, values, across, up, title, is_issue, names, fence)
