"""Section 9: how the samples were taken in over the course of training."""

from __future__ import annotations

from typing import Any

import numpy as np
from markupsafe import Markup

from lightning_inf.report.curves import SampleCurves, read_curves
from lightning_inf.report.drawing.density import density
from lightning_inf.report.drawing.lines import Curve, lines
from lightning_inf.report.drawing.plane import Axis, x_of, y_of
from lightning_inf.report.run import Run
from lightning_inf.report.sections.galleries import tiles
from lightning_inf.report.sections.ranking import of_kind

TITLE = "Training dynamics"
#: Samples whose curves are in the page, and epochs of each.
SAMPLES, EPOCHS = 60, 60


def context(run: Run) -> dict[str, Any] | None:
    """Give the data map, and the curves of the samples that are shown; nothing for a regression, which has neither."""
    if run.noun == "target":
        return None
    kept = read_curves(run.directory)
    found = _chosen(run, kept) if kept is not None else None
    return {
        "recording": run.summary.get("recording") or {},
        "map": _map(run),
        "regions": _regions(run),
        "curves": found,
    }


def _map(run: Run) -> Markup | None:
    """Draw confidence over variability (Swayamdipta et al., EMNLP 2020, figure 1)."""
    confidence, variability = run.column("confidence"), run.column("variability")
    if confidence is None or variability is None or not (np.isfinite(confidence) & np.isfinite(variability)).any():
        return None
    flags = run.column("is_label_issue")
    marked = None if flags is None or not np.isfinite(flags).any() else np.nan_to_num(flags) > 0
    across = Axis(0.0, max(float(np.nanmax(variability)), 0.01), "variability")
    up = Axis(0.0, 1.0, "confidence: mean probability of the given label")
    return density("dynamics-map", variability, confidence, across, up, "Data map", marked)


def _regions(run: Run) -> dict[str, Any] | None:
    """Split the samples by the mean probability of their labels: above, below a half, and how they end."""
    confidence, probability = run.column("confidence"), run.column("probability")
    if confidence is None or probability is None:
        return None
    known = np.isfinite(confidence) & np.isfinite(probability)
    if not known.any():
        return None
    hard = known & (confidence < 0.5)
    return {
        "known": int(known.sum()),
        "hard": int(hard.sum()),
        "learnt": int((hard & (probability > 0.5)).sum()),
        "resisted": int((hard & (probability <= 0.5)).sum()),
    }


def _chosen(run: Run, kept: SampleCurves) -> dict[str, Any] | None:
    """Draw the curves of the first sample, and give those of the others for the script."""
    chosen = _heads(run, kept.index)
    if not chosen:
        return None
    epochs = np.unique(np.linspace(0, len(kept.epoch) - 1, min(EPOCHS, len(kept.epoch))).round().astype(int))
    places = np.searchsorted(kept.index, np.array(chosen))
    loss, margin = (values[places][:, epochs].astype(np.float64) for values in (kept.loss, kept.margin))
    if not np.isfinite(loss).any():
        return None
    across = Axis(float(kept.epoch[epochs[0]]), float(max(kept.epoch[epochs[-1]], kept.epoch[epochs[0]] + 1)), "epoch")
    x = kept.epoch[epochs].astype(np.float64)
    typical = [values[epochs].astype(np.float64) for values in (kept.typical_loss, kept.typical_margin)]
    drawn, paths = [], []
    for key, name, values, middle in (("loss", "loss", loss, typical[0]), ("margin", "margin", margin, typical[1])):
        if not np.isfinite(values).any():
            continue
        up = Axis.of(np.concatenate([values.ravel(), middle]), name)
        curves = [Curve("the sample", x, values[0]), Curve("median of all samples", x, middle, plain=True)]
        said = f"Sample {chosen[0]}: {name} from {_ends(values[0])}."
        drawn.append(lines(f"dynamics-{key}", curves, across, up, f"{name.capitalize()} by epoch", said))
        paths.append(_places(y_of(up, values)))
    return {
        "drawn": drawn,
        "tiles": tiles(run, chosen),
        "data": {"index": chosen, "x": x_of(across, x).round(1).tolist(), "y": paths},
        "samples": len(chosen),
    }


def _heads(run: Run, kept: np.ndarray) -> list[int]:
    """Choose samples whose curves were kept: two thirds from the first ranking, the others by self-influence."""
    itself = of_kind(run, "self")
    names = [next(iter(run.rankings), None), itself["rank_column"] if itself else None]
    chosen: list[int] = []
    for name, size in zip(names, (2 * SAMPLES // 3, SAMPLES), strict=True):
        ranks = run.column(name) if name else None
        if ranks is not None:
            known = kept[np.isfinite(ranks[kept])]
            order = known[np.argsort(ranks[known], kind="stable")].tolist()
            chosen += [index for index in order if index not in chosen][: size - len(chosen)]
    return chosen or kept[:SAMPLES].tolist()


def _ends(values: np.ndarray) -> str:
    finite = values[np.isfinite(values)]
    return f"{finite[0]:.3g} to {finite[-1]:.3g}" if len(finite) else "nothing"


def _places(y: np.ndarray) -> list[list[float | None]]:
    """Round places on the plane; None where a value is missing."""
    return [[round(value, 1) if np.isfinite(value) else None for value in row] for row in y.tolist()]
