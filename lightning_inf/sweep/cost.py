"""What passes will cost, measured on two batches before they start."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from lightning_inf.containers import flattened
from lightning_inf.data.batches import Layout, Transfer, laid_out, stream
from lightning_inf.data.sources import Samples
from lightning_inf.model.sample_model import SampleModel
from lightning_inf.model.weights import Weights
from lightning_inf.sweep.culprit import culprit
from lightning_inf.sweep.describe import describe
from lightning_inf.sweep.displaced import losses_at
from lightning_inf.sweep.evaluate import Evaluator
from lightning_inf.sweep.measurements import (
    BeliefsAt,
    DerivativeAt,
    GradientNormAt,
    LossAt,
    OutputsAt,
    PredictionAt,
    RenormalizedAt,
    SelfAscentAt,
)
from lightning_inf.sweep.plan import Pass, Point
from lightning_inf.sweep.timing import REPEATS, time_compiled, time_ways
from lightning_inf.sweep.timing import seconds_of as _seconds
from lightning_inf.sweep.ways import Backend, Ways

#: Displacements that are timed together.
_STEPS = 16

#: Images get their channels last where a forward pass then takes less than this part of the time.
_FASTER = 0.9


@dataclass(frozen=True)
class UnitCosts:
    """Seconds a sample of each kind of work on this machine, and bytes of what is stored.

    Attributes:
        load: Fetching it.
        trunk: What the runs of a batch at one checkpoint share; 0 where they share nothing.
        forward: A whole forward pass.
        displaced: A forward pass at displaced weights, without what is shared.
        output_bytes: Of what is stored of its outputs.
        ways: The costs of derivatives, without what is shared, and which way is taken.
        backend: The user's choice of the way.
    """

    load: float
    trunk: float
    forward: float
    displaced: float
    output_bytes: int
    ways: Ways = field(default_factory=Ways)
    backend: Backend = "auto"

    def seconds(self, passes: Sequence[Pass], samples: int, world: int) -> float:
        """Estimate how long passes over ``samples`` samples will take on ``world`` processes."""
        whole = sum(self._pass(work) for work in passes) * samples
        climbs = [m for work in passes for m in work.measurements if isinstance(m, SelfAscentAt)]
        # Each step is a gradient of the sample's own; two forward passes for the loss before and after.
        some = sum(
            (m.steps * self.ways.gradient + 2 * self.forward) * (samples if m.samples is None else len(m.samples))
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
            along, norms = asked_of(point)
            looks = {
                m.output for m in point.measurements if isinstance(m, (LossAt, OutputsAt, BeliefsAt, PredictionAt))
            }
            total += (self.displaced if point.moved is not None else self.forward - self.trunk) * len(looks)
            total += self._derivatives(along, norms)
        return total

    def _derivatives(self, along: int, norms: bool) -> float:
        """Seconds a sample of derivatives and lengths at one set of weights."""
        differences, way = self.backend in ("central", "one_sided"), self.ways.pick(along, norms, self.backend)
        if norms:
            apart = differences or self.backend == "jvp"
            return self.ways.gradient + along * (self.ways.derivative if apart else self.ways.product)
        return along * self.ways.derivative if differences else along and self.ways.costs(along)[way]


@dataclass(frozen=True)
class Asked:
    """What passes ask, as far as its cost depends on it.

    Attributes:
        kinds: Of measurements.
        tangents: How many derivatives are asked at a set of weights.
    """

    kinds: frozenset[type]
    tangents: frozenset[int]

    @classmethod
    def of(cls, passes: Sequence[Pass]) -> Asked:
        """Look at passes."""
        kinds = frozenset(type(m) for work in passes for m in work.measurements)
        return cls(kinds, frozenset(asked_of(point)[0] for work in passes for point in work.points) - {0})


def asked_of(point: Point) -> tuple[int, bool]:
    """Say how many derivatives are asked at a set of weights, and whether lengths of gradients are."""
    along = sum(isinstance(m, (DerivativeAt, RenormalizedAt)) for m in point.measurements)
    return along, any(isinstance(m, (GradientNormAt, RenormalizedAt)) for m in point.measurements)


def measure(
    evaluator: Evaluator,
    samples: Samples,
    transfer: Transfer,
    weights: Weights,
    batch_size: int,
    indices: Sequence[int],
    asked: Asked | None = None,
) -> UnitCosts:
    """Time each kind of work on two batches; the first warms up.

    Args:
        evaluator: As the sweep will use it.
        samples: The training samples.
        transfer: Moves a batch to the device.
        weights: Any weights of the model.
        batch_size: As the sweep will use it.
        indices: The samples that will be scored.
        asked: What is asked for; a kind of work that nothing needs is not timed and counts nothing. None: everything.

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
    asked: Asked | None,
) -> UnitCosts:
    """Time the work on the second batch, once the first has warmed it up."""
    norms = asked is None or bool({GradientNormAt, RenormalizedAt, SelfAscentAt} & asked.kinds)
    losses = asked is None or LossAt in asked.kinds
    differentiated = norms or asked is None or DerivativeAt in asked.kinds
    (before, warm), (part, batch) = batches
    model = evaluator.model
    with torch.no_grad():
        first = model.outputs(weights, warm)
        output_bytes = sum(t.numel() * t.element_size() for t in describe(first).values()) // max(len(before), 1)
        plain = not differentiated and not losses  # the sweep itself is hardly longer than more timings
        layout, seconds = _layout(model, weights, (warm, first.loss), batch, 2 if plain else REPEATS)
    usual, last = (s / len(part) for s in seconds)
    forward = last if layout == "channels_last" else usual
    ways = Ways(layout=layout, contiguous=usual, channels_last=last)
    if plain:
        few = replace(ways, compiled_reason="too few forward passes are asked") if evaluator.compiled else ways
        return UnitCosts(load, 0.0, forward, forward, output_bytes, few, evaluator.backend)
    warm, batch = laid_out(warm, layout), laid_out(batch, layout)
    if evaluator.compiled is not None:
        ways = time_compiled(evaluator.compiled, weights, (batch, len(part)), ways)
        forward = ways.compiled or forward
    with model.trunk:
        model.share(weights, warm)  # the first that is shared is checked, which takes longer
        shared = _seconds(lambda: model.share(weights, batch), weights) / len(part)
        if differentiated:
            both = (warm, len(batches[0][0])), (batch, len(part))
            ways = time_ways(evaluator, weights, *both, ways, None if asked is None else asked.tangents, norms)
        if model.trunk.of(weights.fixed, batch) is None:
            return UnitCosts(load, 0.0, forward, forward, output_bytes, ways, evaluator.backend)
        displaced = _displaced(model, weights, batch) / len(part)
        if evaluator.compiled is not None:
            ways = replace(ways, compiled=0.0, compiled_reason="runs share what comes before the chosen parameters")
    return UnitCosts(load, min(shared, forward), forward, displaced, output_bytes, ways, evaluator.backend)


def _layout(
    model: SampleModel, weights: Weights, first: tuple[Any, torch.Tensor], batch: Any, repeats: int
) -> tuple[Layout, tuple[float, float]]:
    """Choose the layout of images whose forward pass is faster, with the seconds of both on a batch.

    The first batch, which comes with its losses in the usual layout, shows whether the other one gives the same.

    The second is 0 where there are no images or kernels, or the step doesn't take images with their channels last.
    """
    run = lambda given: model.outputs(weights, given)  # noqa: E731
    warm, expected = first
    kernels = any(tensor.dim() == 4 for tensor in (*weights.trainable.values(), *weights.fixed.values()))
    other = laid_out(batch, "channels_last")
    moved = any(a is not b for a, b in zip(flattened(batch)[0], flattened(other)[0], strict=True))
    usable = kernels and moved
    if usable:
        try:
            found = run(laid_out(warm, "channels_last")).loss
            usable = torch.allclose(found, expected, rtol=1e-4, atol=1e-5, equal_nan=True)
        except RuntimeError:  # `view` of what is not contiguous
            usable = False
    usual, last = [], []
    for _ in range(repeats):  # alternating, so that a slow moment hits both
        usual.append(_seconds(lambda: run(batch), weights))
        if usable:
            last.append(_seconds(lambda: run(other), weights))
    seconds = min(usual), min(last, default=0.0)
    return "channels_last" if usable and seconds[1] < _FASTER * seconds[0] else "contiguous", seconds


def _displaced(model: SampleModel, weights: Weights, batch: Any) -> float:
    """Time what a displacement takes of a batch whose trunk is shared."""
    steps = [weights.trainable] * _STEPS
    if losses_at(model, weights, steps, batch) is not None:
        return min(_seconds(lambda: losses_at(model, weights, steps, batch), weights) for _ in range(REPEATS)) / _STEPS
    with torch.no_grad():
        return _seconds(lambda: model.losses(weights.trainable, weights.fixed, batch), weights)
