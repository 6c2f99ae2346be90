"""Naming the sample that a batch failed on."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from lightning_inf.data.batches import Transfer, fetch
from lightning_inf.data.sources import Samples
from lightning_inf.model.sample_model import SampleModel
from lightning_inf.model.weights import Weights


def culprit(
    model: SampleModel,
    weights: Weights,
    samples: Samples,
    transfer: Transfer,
    indices: Sequence[int],
    error: IndexError,
    side: str = "training sample",
) -> ValueError:
    """Find the sample whose evaluation raises; most often its label is out of range.

    Args:
        model: The model.
        weights: Any weights.
        samples: The side of the data that the batch is of.
        transfer: Moves a batch to the device.
        indices: The batch's samples.
        error: What the batch raised.
        side: What a sample is called.

    Returns:
        An error that names the sample by its index and says what to do.
    """
    for index in indices:
        try:
            with torch.no_grad():
                model.losses(weights.trainable, weights.fixed, fetch(samples, [index], transfer))
        except IndexError as own:
            return ValueError(
                f"{side} {index} of {samples.origin} can't be evaluated: {own}. Its label is probably out of range;"
                " correct or remove the sample."
            )
    return ValueError(f"{side}s {indices[0]}..{indices[-1]} of {samples.origin} can't be evaluated: {error}")
