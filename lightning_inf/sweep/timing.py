"""Timing the ways to a derivative on two batches."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from lightning_inf.model.layers.tangents import Tangents
from lightning_inf.model.sample_model import device_of
from lightning_inf.model.weights import Weights
from lightning_inf.sweep.evaluate import Evaluator
from lightning_inf.sweep.ways import Ways

#: The least of several timings: a moment's stall of the machine must not cost the user checkpoints.
REPEATS = 3

#: Tangents that are timed together, and the bytes that they may take.
_TANGENTS = 16
_BYTES = 256 << 20


def time_ways(
    evaluator: Evaluator, weights: Weights, warm: tuple[Any, int], batch: tuple[Any, int], ways: Ways
) -> Ways:
    """Time derivatives and lengths of gradients; what does without gradients only where it was not ruled out.

    Args:
        evaluator: As the sweep will use it.
        weights: Any weights of the model.
        warm: A batch that warms up, with its number of samples.
        batch: The batch that is timed, with its number of samples.
        ways: What is known already.

    Returns:
        The same with the costs of derivatives, in seconds a sample.
    """
    differentiator, size = evaluator.differentiator, batch[1]

    def timed(work: Callable[[Any, int], object]) -> float:
        work(*warm)
        return min(seconds_of(lambda: work(*batch), weights) for _ in range(REPEATS)) / size

    tangent = weights.trainable
    layers = evaluator.backend != "vmap" and differentiator.captured(weights, *warm) is not None
    reason = None if layers else differentiator.layered.refused or "not asked for"
    captured = product = 0.0
    if layers:
        bytes_each = sum(tensor.nbytes for tensor in tangent.values())
        few, many = Tangents([tangent]), Tangents([tangent] * max(2, min(_TANGENTS, _BYTES // max(bytes_each, 1))))

        def multiply(tangents: Tangents, given: Any, count: int) -> None:
            found = differentiator.captured(weights, given, count)
            if found is not None:
                found.answer(tangents)

        one = timed(lambda given, count: multiply(few, given, count))
        several = timed(lambda given, count: multiply(many, given, count))
        product = max(several - one, 0.0) / (len(many) - 1)
        captured = max(one - product, one / 2)
    found = replace(ways, layers=layers, reason=reason, captured=captured, product=product)
    gradient = timed(lambda given, count: evaluator.norms(weights, given, count))
    derivative = timed(lambda given, count: differentiator.along(weights, [tangent], given, count))
    return replace(found, gradient=gradient, derivative=derivative)


def seconds_of(work: Callable[[], object], weights: Weights) -> float:
    """Time one call to its end on the device."""
    _wait(weights)
    began = time.perf_counter()
    work()
    _wait(weights)
    return time.perf_counter() - began


def _wait(weights: Weights) -> None:
    """Wait for the device, or the clock measures only launches."""
    device = device_of(weights)
    if device.type == "cuda":
        torch.cuda.synchronize(device)
