"""What passes will cost, measured on two batches before they start."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from lightning_inf.data.batches import Transfer, stream
from lightning_inf.data.sources import Samples
from lightning_inf.model.sample_model import device_of
from lightning_inf.model.weights import Weights
from lightning_inf.sweep.culprit import culprit
from lightning_inf.sweep.describe import describe
from lightning_inf.sweep.evaluate import Evaluator
from lightning_inf.sweep.measurements import DerivativeAt, GradientNormAt, LossAt, OutputsAt, SelfAscentAt
from lightning_inf.sweep.plan import Pass

#: The least of several timings: a moment's stall of the machine must not cost the user checkpoints.
_REPEATS = 3


@dataclass(frozen=True)
class UnitCosts:
    """Seconds a sample of each kind of work on this machine, and bytes of what is stored."""

    load: float
    forward: float
    derivative: float
    gradient: float
    output_bytes: int

    def seconds(self, passes: Sequence[Pass], samples: int, world: int) -> float:
        """Estimate how long passes over ``samples`` samples will take on ``world`` processes."""
        whole = sum(self._pass(work) for work in passes) * samples
        climbs = [m for work in passes for m in work.measurements if isinstance(m, SelfAscentAt)]
        # Each step is a gradient of the sample's own; two forward passes for the loss before and after.
        some = sum(
            (m.steps * self.gradient + 2 * self.forward) * (samples if m.samples is None else len(m.samples))
            for m in climbs
        )
        return (whole + some) / world

    def disk(self, passes: Sequence[Pass], samples: int) -> int:
        """Estimate the bytes of their answers."""
        each = sum(self.output_bytes if isinstance(m, OutputsAt) else 8 for w in passes for m in w.measurements)
        return each * samples

    def _pass(self, work: Pass) -> float:
        """Seconds a sample of one pass: the batch is loaded once and measured at every point."""
        total = self.load
        for point in work.points:
            along = sum(isinstance(m, DerivativeAt) for m in point.measurements)
            norms = any(isinstance(m, GradientNormAt) for m in point.measurements)
            looks = {m.output for m in point.measurements if isinstance(m, (LossAt, OutputsAt))}
            total += self.forward * len(looks)
            total += self.gradient if norms or along > 4 else self.derivative * along
        return total


def measure(
    evaluator: Evaluator,
    samples: Samples,
    transfer: Transfer,
    weights: Weights,
    batch_size: int,
    indices: Sequence[int],
) -> UnitCosts:
    """Time each kind of work on two batches; the first warms up.

    Args:
        evaluator: As the sweep will use it.
        samples: The training samples.
        transfer: Moves a batch to the device.
        weights: Any weights of the model.
        batch_size: As the sweep will use it.
        indices: The samples that will be scored.

    Returns:
        Seconds a sample.
    """
    size = min(batch_size, max(len(indices) // 2, 1))
    lists = [list(indices[:size]), list(indices[size : 2 * size]) or list(indices[:size])]
    started = time.perf_counter()
    batches = list(stream(samples, lists, transfer))
    load = (time.perf_counter() - started) / sum(len(part) for part in lists)
    try:
        return _time(evaluator, weights, batches, load)
    except IndexError as error:
        both = [index for part in lists for index in part]
        raise culprit(evaluator.model, weights, samples, transfer, both, error) from error


def _time(evaluator: Evaluator, weights: Weights, batches: list[tuple[list[int], Any]], load: float) -> UnitCosts:
    """Time the work on the second batch, once the first has warmed it up."""
    (first, warm), (part, batch) = batches

    def timed(work: Callable[[Any], object]) -> float:
        work(warm)
        return min(_seconds(lambda: work(batch), weights) for _ in range(_REPEATS)) / len(part)

    with torch.no_grad():
        columns = describe(evaluator.model.outputs(weights, batch))
        output_bytes = sum(t.numel() * t.element_size() for t in columns.values()) // max(len(part), 1)
        forward = timed(lambda b: evaluator.model.outputs(weights, b))
    sizes = {id(warm): len(first), id(batch): len(part)}
    derivative = timed(lambda b: evaluator.derivatives(weights, [weights.trainable], b, sizes[id(b)]))
    gradient = timed(lambda b: evaluator.norms(weights, b, sizes[id(b)]))
    return UnitCosts(load, forward, derivative, gradient, output_bytes)


def _seconds(work: Callable[[], object], weights: Weights) -> float:
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
