"""``curves.npz``: how the samples that the report shows were taken in, epoch by epoch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lightning_inf.files import atomic

FILE = "curves.npz"
#: The most epochs that are kept: evenly spaced ones, the first and the last among them.
EPOCHS = 200
#: The most samples that a median is taken of.
MEDIAN = 100_000


@dataclass(frozen=True)
class SampleCurves:
    """Curves of some training samples.

    Attributes:
        index: The samples, ascending, shape ``(m,)``.
        epoch: Numbers of the epochs, from 1, shape ``(e,)``.
        loss: Loss of each sample in each epoch, shape ``(m, e)``; NaN where it was not seen.
        margin: The given label's logit minus the largest other, shape ``(m, e)``; NaN where it is not known.
        typical_loss: Median over all samples, shape ``(e,)``; over an evenly spaced part where there are very many.
        typical_margin: The same of the margin.
    """

    index: np.ndarray
    epoch: np.ndarray
    loss: np.ndarray
    margin: np.ndarray
    typical_loss: np.ndarray
    typical_margin: np.ndarray

    def of(self, index: int) -> tuple[np.ndarray, np.ndarray] | None:
        """Give loss and margin of a sample, shape ``(e,)`` each; None where its curves were not kept."""
        place = int(np.searchsorted(self.index, index))
        if place >= len(self.index) or self.index[place] != index:
            return None
        return self.loss[place], self.margin[place]


def write_curves(path: Path, recorded: np.ndarray | None, indices: Sequence[int]) -> None:
    """Write the curves of some samples, in half precision.

    Args:
        path: ``curves.npz``; taken away where nothing was recorded.
        recorded: Loss, probability and gap at each epoch, shape ``(epochs, n, 3)``.
        indices: The samples.
    """
    if recorded is None or not len(indices):
        path.unlink(missing_ok=True)  # an earlier analysis's
        return
    chosen = np.unique(np.asarray(indices, dtype=np.int64))
    kept = np.unique(np.linspace(0, len(recorded) - 1, min(EPOCHS, len(recorded))).round().astype(int))
    values = np.stack([recorded[epoch][chosen][:, (0, 2)] for epoch in kept], axis=1)
    part = np.linspace(0, recorded.shape[1] - 1, min(MEDIAN, recorded.shape[1])).round().astype(np.int64)
    typical = np.stack([_median(recorded[epoch][part][:, (0, 2)]) for epoch in kept])
    limit = float(np.finfo(np.float16).max)
    halves, middle = (np.clip(part, -limit, limit).astype(np.float16) for part in (values, typical))  # NaN stays NaN
    curves = {"loss": halves[..., 0], "margin": halves[..., 1]}
    curves |= {"typical_loss": middle[:, 0], "typical_margin": middle[:, 1]}
    with atomic(path) as temporary, open(temporary, "wb") as stream:
        np.savez_compressed(stream, index=chosen, epoch=kept + 1, **curves)


def _median(rows: np.ndarray) -> np.ndarray:
    """Median of each column, NaN where it has no finite value."""
    columns = (column[np.isfinite(column)] for column in rows.T)
    return np.array([np.median(column) if len(column) else np.nan for column in columns])


def read_curves(directory: Path) -> SampleCurves | None:
    """Read the curves of a run directory, None where it has none."""
    path = directory / FILE
    if not path.is_file():
        return None
    with np.load(path, allow_pickle=False) as file:
        return SampleCurves(**{name: file[name] for name in SampleCurves.__dataclass_fields__})
