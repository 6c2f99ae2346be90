"""What is known of the samples that trained under planted labels."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from lightning_inf.analysis.preflight import Subject
from lightning_inf.data.batches import fetch
from lightning_inf.data.relabelled import Calibration, Relabelled
from lightning_inf.model.weights import Weights


def planted_truth(subject: Subject, calibration: Calibration | None) -> dict[int, int]:
    """Read the user's own labels of the samples that carried planted ones, off the loss call.

    Args:
        subject: The model and the training samples, planted labels on top.
        calibration: What was planted, None for nothing.

    Returns:
        The label by index; without those whose planted label happens to be their own.
    """
    if calibration is None:
        return {}
    view: Any = subject.train.dataset
    assert isinstance(view, Relabelled)
    original = replace(subject.train, dataset=view.dataset)
    weights = Weights.of(subject.model.module)
    planted = sorted(calibration.labels)
    found: dict[int, int] = {}
    for start in range(0, len(planted), subject.batch_size):
        indices = planted[start : start + subject.batch_size]
        with torch.no_grad():
            target = subject.model.outputs(weights, fetch(original, indices, subject.transfer)).target
        if target is None:
            return {}
        found.update(zip(indices, target.tolist(), strict=True))
    return {index: label for index, label in found.items() if label != calibration.labels[index]}


def describe_planted(calibration: Calibration | None, truth: dict[int, int]) -> dict[str, Any] | None:
    """Describe what was planted, for the summary; None for nothing."""
    if calibration is None:
        return None
    listed = [
        {"index": index, "planted": label, "given": truth.get(index, label)}
        for index, label in sorted(calibration.labels.items())
    ]
    return {"count": len(listed), "seed": calibration.seed, "samples": listed}
