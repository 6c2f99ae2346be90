"""What passes will cost, measured on two batches before they start."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from lightning_inf.data.batches import Transfer, stream
from lightning_inf.data.sources import Samples
from lightning_inf.model.sample_model import SampleModel, device_of
from lightning_inf.model.weights import Weights
from lightning_inf.sweep.culprit import culprit
from lightning_inf.sweep.describe import describe
from lightning_inf.sweep.displaced import losses_at
from lightning_inf.sweep.evaluate import Evaluator
from lightning_inf.sweep.measurements import BeliefsAt, DerivativeAt, GradientNormAt, LossAt, OutputsAt, SelfAscentAt
from lightning_inf.sweep.plan import Pass

#: The least of several timings: a moment's stall of the machine must not cost the user checkpoints.
_REPEATS = 3

#: Displacements that are timed together.
_STEPS = 16


@dataclass(frozen=True)
class UnitCosts:
    """Seconds a sample of each kind of work on this machine, and bytes of what is stored.

    Attributes:
        load: Fetching it.
        trunk: What the runs of a batch at one checkpoint share; 0 where they share nothing.
        forward: A whole forward pass.
        displaced: A forward pass at displaced weights, without what is shared.
        derivative: A derivative along one tangent, without what is shared.
        gradient: The sample's gradient, without what is shared.
        output_bytes: Of what is stored of its outputs.
    """

    load: float
    trunk: float
    forward: float
    displaced: float
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
        each = sum(
            self.output_bytes if isinstance(m, (OutputsAt, BeliefsAt)) else 8 for w in passes for m in w.measurements
        )
        return each * samples

    def _pass(self, work: Pass) -> float:
        """Seconds a sample of one pass: the batch is loaded once and measured at every point."""
        total = self.load + self.trunk * len(work.checkpoints)
        for point in work.points:
            along = sum(isinstance(m, DerivativeAt) for m in point.measurements)
            norms = any(isinstance(m, GradientNormAt) for m in point.measurements)
            looks = {m.output for m in point.measurements if isinstance(m, (LossAt, OutputsAt, BeliefsAt))}
            total += (self.displaced if point.moved is not None else self.forward - self.trunk) * len(looks)
            total += self.gradient if norms or along > 4 else self.derivative * along
        return total


def measure(
    evaluator: Evaluator,
    samples: Samples,
    transfer: Transfer,
    weights: Weights,
    batch_size: int,
    indices: Sequence[int],
    asked: Collection[type] | None = None,
) -> UnitCosts:
    """Time each kind of work on two batches; the first warms up.

    Args:
        evaluator: As the sweep will use it.
        samples: The training samples.
        transfer: Moves a batch to the device.
        weights: Any weights of the model.
        batch_size: As the sweep will use it.
        indices: The samples that will be scored.
        asked: The kinds of measurements that are asked for; a kind of work that none needs is not timed and counts
            nothing. None: all.

    Returns:
        Seconds a sample.
    """
    size = min(batch_size, max(len(indices) // 2, 1))
    lists = [list(indices[:size]), list(indices[size : 2 * size]) or list(indices[:size])]
    started = time.perf_counter()
    batches = list(stream(samples, lists, transfer))
    load = (time.perf_counter() - started) / sum(len(part) for part in lists)
    try:
        return _time(evaluator, weights, batches, load, asked)
    except IndexError as error:
        both = [index for part in lists for index in part]
        raise culprit(evaluator.model, weights, samples, transfer, both, error) from error


def _time(
    evaluator: Evaluator,
    weights: Weights,
    batches: list[tuple[list[int], Any]],
    load: float,
    asked: Collection[type] | None,
) -> UnitCosts:
    """Time the work on the second batch, once the first has warmed it up."""
    everything = asked is None
    differentiated = everything or bool({DerivativeAt, GradientNormAt, SelfAscentAt} & set(asked or ()))
    (first, warm), (part, batch) = batches
    sizes, model = {id(warm): len(first), id(batch): len(part)}, evaluator.model

    def timed(work: Callable[[Any], object]) -> float:
        work(warm)
        return min(_seconds(lambda: work(batch), weights) for _ in range(_REPEATS)) / len(part)

    with torch.no_grad():
        columns = describe(model.outputs(weights, batch))
        output_bytes = sum(t.numel() * t.element_size() for t in columns.values()) // max(len(part), 1)
        if not differentiated and LossAt not in (asked or ()):  # the sweep itself is hardly longer than three timings
            once = _seconds(lambda: model.outputs(weights, batch), weights) / len(part)
            return UnitCosts(load, 0.0, once, once, 0.0, 0.0, output_bytes)
        forward = timed(lambda b: model.outputs(weights, b))
    with model.trunk:
        model.share(weights, warm)  # the first that is shared is checked, which takes longer
        shared = _seconds(lambda: model.share(weights, batch), weights) / len(part)
        gradient = derivative = 0.0
        if differentiated:
            gradient = timed(lambda b: evaluator.norms(weights, b, sizes[id(b)]))
            derivative = timed(lambda b: evaluator.derivatives(weights, [weights.trainable], b, sizes[id(b)]))
        if model.trunk.of(weights.fixed, batch) is None:
            return UnitCosts(load, 0.0, forward, forward, derivative, gradient, output_bytes)
        displaced = _displaced(model, weights, batch) / len(part)
    return UnitCosts(load, min(shared, forward), forward, displaced, derivative, gradient, output_bytes)


def _displaced(model: SampleModel, weights: Weights, batch: Any) -> float:
    """Time what a displacement takes of a batch whose trunk is shared."""
    steps = [weights.trainable] * _STEPS
    if losses_at(model, weights, steps, batch) is not None:
        return min(_seconds(lambda: losses_at(model, weights, steps, batch), weights) for _ in range(_REPEATS)) / _STEPS
    with torch.no_grad():
        return _seconds(lambda: model.losses(weights.trainable, weights.fixed, batch), weights)


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
