"""The epoch under way: batches as they come, rows when it ends."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from lightning_inf.recording.indices import as_array
from lightning_inf.recording.off import NotRecordable
from lightning_inf.recording.rows import make_rows, once, width
from lightning_inf.recording.watch import Observation

#: Batches, and entries of logits, that are held before they are made into rows: one wait for the device, and one run
#: of small operations, for many batches.
_BATCHES = 64
_ENTRIES = 4_000_000


class Epoch:
    """What was seen of an epoch so far.

    Attributes:
        number: Number of the epoch; None before its first batch.
        steps: Batches begun, recorded or not: the same on all processes.
        classes: Number of classes; 0 where only the loss is known, None where nothing was seen.
    """

    def __init__(self) -> None:
        self.number: int | None = None
        self.steps = 0
        self.classes: int | None = None
        self._indices: list[Sequence[Any]] = []
        self._seen: list[Observation] = []
        self._entries = 0
        self._rows: list[np.ndarray] = []

    def begin(self, number: int) -> None:
        """Note that a batch begins."""
        self.number = number
        self.steps += 1

    def add(self, indices: Sequence[Any], seen: Observation) -> None:
        """Take in a batch.

        Raises:
            NotRecordable: If it has other classes than the batches before, or no indices.
        """
        classes = 0 if seen.logits is None else seen.logits.shape[1]
        if self.classes is not None and classes != self.classes:
            raise NotRecordable(
                f"training_step showed {_kind(self.classes)} in one batch and {_kind(classes)} in another"
            )
        self.classes = classes
        self._indices.append(indices)
        self._seen.append(seen)
        self._entries += len(indices) * max(classes, 1)
        if len(self._seen) >= _BATCHES or self._entries >= _ENTRIES:
            self._flush()

    def rows(self) -> np.ndarray | None:
        """Return the rows so far, one a sample, the last where it was seen twice; None if nothing was seen."""
        self._flush()
        if not self._rows:
            return None
        self._rows = [once(np.concatenate(self._rows))]
        return self._rows[0]

    def _flush(self) -> None:
        if self._seen:
            self._rows.append(make_rows(as_array(self._indices), self._seen))
        self._indices, self._seen, self._entries = [], [], 0

    def state_dict(self) -> dict[str, Any]:
        """Return plain values and a tensor of its own."""
        rows = self.rows()
        empty = np.zeros((0, width(self.classes or 0)), np.int32)
        return {
            "number": self.number,
            "steps": self.steps,
            "classes": self.classes,
            "rows": torch.from_numpy((empty if rows is None else rows).copy()),
        }

    @classmethod
    def from_state_dict(cls, state: dict[str, Any]) -> Epoch:
        """Make the epoch that :meth:`state_dict` described."""
        self = cls()
        self.number, self.steps, self.classes = state["number"], state["steps"], state["classes"]
        if len(state["rows"]):
            self._rows = [state["rows"].cpu().numpy().copy()]
        return self


def _kind(classes: int) -> str:
    return f"a classification with {classes} classes" if classes else "a loss only"
