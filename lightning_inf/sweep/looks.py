"""What one forward pass without a graph answers: losses, outputs, and what the neighbours say."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lightning_inf.model.capture import Captured
from lightning_inf.model.compiled import Compiled
from lightning_inf.model.features import Features, watching_features
from lightning_inf.model.sample_model import SampleModel
from lightning_inf.model.weights import Vector, Weights
from lightning_inf.sweep.describe import consult, describe, known
from lightning_inf.sweep.measurements import BeliefsAt, LossAt, Measurement, OutputsAt, PredictionAt


def look(
    model: SampleModel,
    weights: Weights,
    measurements: Sequence[Measurement],
    vectors: dict[str, Vector],
    batch: Any,
    indices: Sequence[int],
    captured: Captured | None = None,
    compiled: Compiled | None = None,
) -> dict[str, dict[str, Tensor]]:
    """Answer what a single forward pass can; run none where nothing needs one.

    Args:
        model: The model.
        weights: Where.
        measurements: All at these weights; other kinds are passed over.
        vectors: Neighbourhoods by key, among others.
        batch: On the device.
        indices: Of the batch's samples in the training data.
        captured: What a forward pass at these weights has said already, where there was one.
        compiled: Runs the model forward in the place of the step, where that was asked for and pays.

    Returns:
        Columns by measurement.
    """
    looks = [
        m
        for m in measurements
        if isinstance(m, (OutputsAt, LossAt)) or (isinstance(m, PredictionAt) and m.held_out.key in vectors)
    ]
    asked = [m for m in measurements if isinstance(m, BeliefsAt) and m.neighbourhood.key in vectors]
    said = {m.key: known(vectors[m.neighbourhood.key], indices) for m in asked}
    answers = {key: columns for key, columns in said.items() if columns is not None}
    strange = [m for m in asked if said[m.key] is None]
    if not looks and not strange:
        return answers
    if captured is not None and not strange:
        every = any(not isinstance(m, LossAt) for m in looks)
        columns = describe(captured.outputs) if every else {"loss": captured.losses}
        return answers | {m.key: _columns(m, columns) for m in looks}
    watching = watching_features(model.module) if strange else contextlib.nullcontext(Features())
    with torch.no_grad(), watching as features:
        if any(not isinstance(m, LossAt) for m in looks):
            columns = describe((compiled if compiled and not strange else model.outputs)(weights, batch))
        elif compiled and not strange:
            columns = {"loss": compiled(weights, batch).loss}
        else:
            columns = {"loss": model.losses(weights.trainable, weights.fixed, batch)}
    answers |= {m.key: _columns(m, columns) for m in looks}
    for m in strange:
        assert features.rows is not None  # or there would be no neighbourhood
        answers[m.key] = consult(vectors[m.neighbourhood.key], features.rows, indices)
    return answers


def recalled(
    measurements: Sequence[Measurement], vectors: dict[str, Vector], indices: Sequence[int]
) -> dict[str, dict[str, Tensor]] | None:
    """Answer what neighbourhoods have said of training samples already; None where a batch has to be read.

    Args:
        measurements: All that is asked of the samples.
        vectors: Neighbourhoods by key, among others.
        indices: The samples.
    """
    answers: dict[str, dict[str, Tensor]] = {}
    for measurement in measurements:
        if not isinstance(measurement, BeliefsAt) or measurement.neighbourhood.key not in vectors:
            return None
        if (columns := known(vectors[measurement.neighbourhood.key], indices)) is None:
            return None
        answers[measurement.key] = columns
    return answers


def _columns(measurement: Measurement, columns: dict[str, Tensor]) -> dict[str, Tensor]:
    """Pick what a measurement is about."""
    if isinstance(measurement, OutputsAt):
        return columns
    wanted = ("loss",) if isinstance(measurement, LossAt) else ("prediction", "target")
    return {name: columns[name] for name in wanted}
