"""What the model makes of the references: label, prediction, loss."""

from __future__ import annotations

import numpy as np
import torch

from lightning_inf.analysis.preflight import Subject
from lightning_inf.audit.heldout import HeldOut
from lightning_inf.model.output import Outputs
from lightning_inf.model.weights import Weights
from lightning_inf.sweep.culprit import culprit


def held_out(subject: Subject, weights: Weights) -> HeldOut:
    """Evaluate the pool of references, at most 2,048, whose batches are in memory.

    Args:
        subject: What is analysed.
        weights: Of the analysed checkpoint.
    """
    parts = []
    with torch.no_grad():
        for indices, batch in subject.references.batches(subject.references.pool):
            try:
                outputs = subject.model.outputs(weights, batch)
            except IndexError as error:
                samples = subject.references.samples
                raise culprit(subject.model, weights, samples, subject.transfer, indices, error, "reference") from error
            classes = _read(outputs.loss, outputs.logits, outputs.target)
            parts.append([np.asarray(indices), *classes, *_numbers(outputs)])
    columns = [np.concatenate(column) for column in zip(*parts, strict=True)]
    return HeldOut(*columns)


def _numbers(outputs: Outputs) -> list[np.ndarray]:
    """Take given and predicted number of a regression out of a batch's outputs."""
    found = [outputs.value, outputs.prediction]
    return [
        np.full(len(outputs.loss), np.nan) if values is None else values.detach().double().cpu().numpy()
        for values in found
    ]


def _read(loss: torch.Tensor, logits: torch.Tensor | None, target: torch.Tensor | None) -> list[np.ndarray]:
    """Take loss, label, prediction and the probabilities of both out of a batch's outputs."""
    values = loss.detach().double().cpu().numpy()
    none, unknown = np.full(len(values), -1, dtype=np.int64), np.full(len(values), np.nan)
    if logits is None or target is None or logits.dim() != 2 or logits.shape[1] < 2 or target.dim() != 1:
        return [values, none, none, unknown, unknown]
    probabilities = torch.softmax(logits.detach().double(), dim=1).cpu().numpy()
    label = target.cpu().numpy().astype(np.int64)
    inside = (label >= 0) & (label < probabilities.shape[1])  # an ignored target lies outside
    readable = np.isfinite(probabilities).all(axis=1)
    predicted = np.where(readable, np.nan_to_num(probabilities).argmax(axis=1), -1)
    rows = np.arange(len(label))
    given = np.where(inside, probabilities[rows, np.where(inside, label, 0)], np.nan)
    confidence = np.where(readable, probabilities[rows, np.maximum(predicted, 0)], np.nan)
    return [values, np.where(inside, label, -1), predicted, given, confidence]
