"""Section 7: how far the methods point at the same samples."""

from __future__ import annotations

from typing import Any

import numpy as np
from markupsafe import Markup

from lightning_inf.audit.agreement import disagreement, overlap_curve
from lightning_inf.report.drawing.density import density
from lightning_inf.report.drawing.lines import Curve, lines
from lightning_inf.report.drawing.plane import Axis
from lightning_inf.report.run import Run
from lightning_inf.report.sections.galleries import tiles

TITLE = "Agreement"
#: How many samples of each kind of disagreement are shown.
EACH = 8


def context(run: Run) -> dict[str, Any] | None:
    """Give the pairs of rankings, and the two that are least alike side by side; one alone agrees with nobody."""
    found = run.summary.get("agreement")
    if not found or not found["pairs"]:
        return None
    names = found.get("shown") or found["pairs"][0]["scores"]
    pair = next((p for p in found["pairs"] if set(p["scores"]) == set(names)), found["pairs"][0])
    return {"agreement": found, "pair": pair, **_side_by_side(run, list(names))}


def _side_by_side(run: Run, names: list[str]) -> dict[str, Any]:
    ranks = [rank for name in names if (rank := _rank(run, name)) is not None]
    nothing: dict[str, Any] = {"names": names, "hexbin": None, "overlap": None, "apart": []}
    if len(ranks) < 2:
        return nothing
    first, second = map(_whole, ranks)
    if np.count_nonzero((first > 0) & (second > 0)) < 2:
        return nothing
    apart = []
    sides = ((names[0], names[1], first, second), (names[1], names[0], second, first))
    for one, other, a, b in sides:
        indices = disagreement(a, b, EACH)
        notes = {i: f"{a[i]:,} by {one}, {b[i]:,} by {other}" for i in indices}
        apart.append({"high": one, "low": other, "rows": tiles(run, indices, notes)})
    return {
        "names": names,
        "hexbin": _hexbin(run, names, *ranks),
        "overlap": _overlap(names, first, second),
        "apart": apart,
    }


def _rank(run: Run, score: str) -> np.ndarray | None:
    """Read the ranks that belong to a column of scores."""
    for method in run.summary["methods"]:
        if score in method["columns"]:
            return run.column(method["rank_column"])
    return run.column(f"{score.removesuffix('_score')}_rank")


def _whole(rank: np.ndarray) -> np.ndarray:
    """Turn ranks that are mapped from disk into whole numbers, 0 where there is none, in as few bytes as they need."""
    found = np.zeros(len(rank), dtype=np.int32 if len(rank) < 2**31 else np.int64)
    np.copyto(found, rank, where=rank > 0, casting="unsafe")
    return found


def _hexbin(run: Run, names: list[str], first: np.ndarray, second: np.ndarray) -> Markup:
    x, y = first, second  # mapped from disk, NaN where there is no rank
    axes = [
        Axis(1.0, float(max(np.nanmax(rank), 2)), f"rank by {name}")
        for rank, name in ((first, names[0]), (second, names[1]))
    ]
    flags = run.column("is_label_issue")
    marked = None if flags is None or not np.isfinite(flags).any() else np.nan_to_num(flags) > 0
    mostly = ("samples", f"mostly {run.noun} issues")
    return density("agreement-ranks", x, y, axes[0], axes[1], f"Ranks by {names[0]} and {names[1]}", marked, mostly)


def _overlap(names: list[str], first: np.ndarray, second: np.ndarray) -> Markup:
    found = overlap_curve(first, second)
    k = np.array(found["k"], dtype=np.float64)
    across, up = Axis.of(k, "k", log=True), Axis(0.0, 1.0, "shared by the first k of both")
    curves = [
        Curve("found", k, np.array(found["overlap"])),
        Curve("unrelated rankings, on average", k, np.array(found["random"]), plain=True),
    ]
    middle = len(k) // 2
    first_k, shared, chance = (found[name][middle] for name in ("k", "overlap", "random"))
    text = f"Among the first {first_k:,}, {shared:.0%} are shared; by chance {chance:.0%}."
    return lines("agreement-overlap", curves, across, up, f"Overlap of {names[0]} and {names[1]}", text)
