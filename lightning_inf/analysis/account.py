"""What a run did: the account that goes into the summary, and what is announced of it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch.utilities.rank_zero import rank_zero_info

from lightning_inf.analysis.budget import Extent
from lightning_inf.analysis.tokens import Marked
from lightning_inf.audit.heldout import HeldOut
from lightning_inf.recording.recorded import Recorded
from lightning_inf.sweep.measurements import DerivativeAt, GradientNormAt, RenormalizedAt, SelfAscentAt


@dataclass
class Account:
    """What the run did, for the summary.

    Attributes:
        directory: The run directory.
        extent: What was asked.
        weights: Which weights were analysed.
        backends: By method, how derivatives were taken.
        notes: Of the sweep.
        seconds: Of the whole analysis, and by method.
        cost: Estimate, budget, passes, disk.
        decided: Extent and tuning in plain values, for the manifest.
        fingerprint: Of the training samples, whatever view of them was analysed.
        recording: What became of the recording.
        steps: By method, what half the step does to its scores.
        planted: The user's label of each sample that trained under a planted one, by index.
        held_out: The references under the analysed weights.
        curves: What was recorded of every sample at every epoch, shape ``(epochs, n, 3)``; None where nothing was.
        marked: What tokens of the shown sequences add to their scores; None where the loss is not one of tokens.
    """

    directory: Path
    extent: Extent
    weights: str
    backends: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    seconds: float = 0.0
    method_seconds: dict[str, float] = field(default_factory=dict)
    cost: dict[str, Any] = field(default_factory=dict)
    decided: dict[str, Any] = field(default_factory=dict)
    fingerprint: str = ""
    recording: dict[str, Any] = field(default_factory=dict)
    steps: dict[str, dict[str, Any] | None] = field(default_factory=dict)
    planted: dict[int, int] = field(default_factory=dict)
    held_out: HeldOut | None = None
    curves: np.ndarray | None = None
    marked: Marked | None = None

    @property
    def tuning(self) -> Mapping[str, Mapping[str, Any]]:
        """What was chosen on planted truth, by method."""
        found: Mapping[str, Mapping[str, Any]] = self.decided.get("tuning", {})
        return found


def announce(account: Account, scored: int) -> None:
    """Say what the sweep will cost before it starts.

    Args:
        account: Its extent and cost.
        scored: How many samples are scored.
    """
    cost, passes = account.cost, account.cost["passes"]
    limit = "" if cost["budget_seconds"] is None else f" (budget {cost['budget_seconds']:.0f} s)"
    spent = f", {cost['tuning_seconds']:.1f} s of them spent on tuning," if cost["tuning_seconds"] else ""
    rank_zero_info(
        f"Influence: {passes} pass{'es' if passes != 1 else ''} over {scored:,} samples at"
        f" {len(account.extent.checkpoints)} checkpoint(s), about {cost['estimated_seconds']:.1f} s{spent}{limit} and"
        f" {cost['disk_bytes'] / 1e6:.1f} MB in {os.path.relpath(account.directory)}."
    )
    for text in account.extent.left_out:
        rank_zero_info(f"Influence: {text}")


def backend(measurements: Sequence[Any], used: Mapping[str, str]) -> str:
    """Name how a method's measurements were answered."""
    columns = (
        (DerivativeAt, "derivative"),
        (RenormalizedAt, "derivative"),
        (GradientNormAt, "squared_norm"),
        (SelfAscentAt, "rise"),
    )
    for kind, column in columns:
        if any(isinstance(m, kind) for m in measurements):
            return used.get(column, "forward passes")
    return "forward passes"


def describe_recording(recorded: Recorded | None, fits: bool) -> dict[str, Any]:
    """Say what became of the recording, for the summary."""
    if recorded is None:
        return {"used": False, "reason": "nothing was recorded while training", "notes": []}
    if not fits:
        return {"used": False, "reason": "it was recorded on other training data", "notes": []}
    return {"used": recorded.reason is None, "reason": recorded.reason, "notes": recorded.notes}
