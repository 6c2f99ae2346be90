"""What was recorded, read from a run's directory."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from lightning_inf.files import atomic, read_arrays
from lightning_inf.recording.curves import FILE as CURVES
from lightning_inf.recording.curves import checksum, curves

FILE = "recorded.npz"
_CURVES_SUM = "curves_checksum"


@dataclass
class Recorded:
    """Statistics of n training samples over the epochs of a run; see :class:`~.statistics.Statistics` for formulas.

    Attributes:
        reason: Why nothing was recorded; None if all is there. Everything else is None or empty then.
        label: Given labels, shape ``(n,)``; -1 where ignored or never seen, or where only the loss is known.
        epochs: In how many epochs a sample was seen, shape ``(n,)``.
        loss: Mean loss, shape ``(n,)``. This and all that follows is NaN where a sample was never seen.
        confidence: Mean probability of the given label. This and all that follows is None where only the loss is known.
        variability: Its standard deviation over epochs.
        aum: Mean of the given label's logit minus the largest other.
        margin: Mean log-odds of the given label.
        el2n: Mean distance of the probabilities from the one-hot label.
        forgetting: How often the sample was right when last seen and then wrong.
        learned_epoch: The first epoch in which it was right; -1 if never.
        mean_probabilities: Shape ``(n, C)``, for up to 64 classes.
        top_label: Shape ``(n, 8)``, for more classes: the given label, then the best others; -1 for none.
        top: Their mean probabilities, shape ``(n, 8)``.
        curves: Loss, probability of the given label and gap at each epoch, shape ``(epochs, n, 3)``, mapped from disk;
            None where they were not kept.
        notes: What a reader of the report should know.
        written: The directory, and the checksum that the file of the curves had; None where it is not known.
    """

    reason: str | None = None
    label: np.ndarray | None = None
    epochs: np.ndarray | None = None
    loss: np.ndarray | None = None
    confidence: np.ndarray | None = None
    variability: np.ndarray | None = None
    aum: np.ndarray | None = None
    margin: np.ndarray | None = None
    el2n: np.ndarray | None = None
    forgetting: np.ndarray | None = None
    learned_epoch: np.ndarray | None = None
    mean_probabilities: np.ndarray | None = None
    top_label: np.ndarray | None = None
    top: np.ndarray | None = None
    curves: np.memmap | None = None
    notes: list[str] = field(default_factory=list)
    written: tuple[Path, int] | None = None

    def whole_curves(self) -> np.memmap | None:
        """Return the curves, or None and a note where they are not what was written. Reads all of their file."""
        if self.written is None or checksum(self.written[0]) == self.written[1]:
            return self.curves
        note = (
            f"{self.written[0] / CURVES} is damaged: its checksum is another than when it was written. It was left out."
        )
        self.notes = [*self.notes, *([note] if note not in self.notes else [])]
        return None


def save(directory: Path, columns: dict[str, np.ndarray], reason: str | None, notes: list[str]) -> None:
    """Write ``recorded.npz``, whole or not at all."""
    sums = {} if (found := checksum(directory)) is None else {_CURVES_SUM: np.array(found, dtype=np.int64)}
    # savez appends .npz to a name without it, so it gets a stream.
    with atomic(directory / FILE) as temporary, open(temporary, "wb") as stream:
        np.savez(stream, reason=np.array(reason or ""), notes=np.array(notes, dtype=str), **sums, **columns)  # type: ignore[arg-type]


def load(directory: str | Path) -> Recorded | None:
    """Read what a run recorded.

    Args:
        directory: The directory that the :class:`~lightning_inf.recording.recorder.Recorder` wrote to.

    Returns:
        The statistics, or None if the run did not record at all.

    Raises:
        Damaged: If the file is damaged.
    """
    directory = Path(directory)
    if not (directory / FILE).exists():
        return None
    columns = read_arrays(directory / FILE)
    reason, notes = str(columns.pop("reason")), [str(note) for note in columns.pop("notes")]
    found = columns.pop(_CURVES_SUM, None)
    if reason:
        return Recorded(reason=reason, notes=notes)
    written = None if found is None else (directory, int(found))
    return Recorded(**columns, curves=curves(directory, len(columns["label"])), notes=notes, written=written)
