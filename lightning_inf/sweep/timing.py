"""Timing the ways to a derivative on two batches."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from dataclasses import replace
from functools import partial
from typing import Any

import torch

from lightning_inf.model import gradients
from lightning_inf.model.capture import Captured
from lightning_inf.model.compiled import Compiled
from lightning_inf.model.layers.tangents import Tangents
from lightning_inf.model.sample_model import device_of
from lightning_inf.model.weights import Weights
from lightning_inf.sweep.differentiate import Differentiator
from lightning_inf.sweep.evaluate import Evaluator
from lightning_inf.sweep.ways import Ways

#: The least of several timings: a moment's stall of the machine must not cost the user checkpoints.
REPEATS = 3

#: Products that take less than one in so many parts of the two passes are not worth a trial of another way.
_PART = 4

#: Samples whose gradients are the directions by which bf16 is judged, and the error from which on it is not used.
_DIRECTIONS = 4
HALF_ERROR = 0.05

#: Tangents that are timed together, and the bytes that they may take.
_TANGENTS = 16
_BYTES = 256 << 20


def time_ways(
    evaluator: Evaluator,
    weights: Weights,
    warm: tuple[Any, int],
    batch: tuple[Any, int],
    ways: Ways,
    tangents: Collection[int] | None = None,
    norms: bool = True,
) -> Ways:
    """Time derivatives and lengths of gradients, as far as they are asked and could be the cheapest.

    Args:
        evaluator: As the sweep will use it.
        weights: Any weights of the model.
        warm: A batch that warms up, with its number of samples.
        batch: The batch that is timed, with its number of samples.
        ways: What is known already.
        tangents: How many derivatives may be asked at a set of weights; None: any number.
        norms: Whether lengths of gradients may be asked.

    Returns:
        The same with the costs of derivatives, in seconds a sample.
    """
    differentiator, size = evaluator.differentiator, batch[1]

    def timed(work: Callable[[Any, int], object], repeats: int = REPEATS) -> float:
        work(*warm)
        return min(seconds_of(lambda: work(*batch), weights) for _ in range(repeats)) / size

    tangent = weights.trainable
    found = _time_layers(evaluator, weights, warm, batch, ways)
    if evaluator.half:
        found = time_half(evaluator, weights, batch, found)
    gradient = derivative = materialised = 0.0
    if norms or not found.layers:
        gradient = timed(lambda given, count: evaluator.norms(weights, given, count))
    if evaluator.backend in ("central", "one_sided", "jvp") or not found.cheapest(tangents):
        derivative = timed(lambda given, count: differentiator.along(weights, [tangent], given, count))
    most = max(tangents or (), default=0)
    whole = size * sum(tensor.nbytes for tensor in tangent.values()) <= gradients.GRADIENT_BYTES
    # A materialised gradient goes through the same two passes: it can only win by its products, and in one piece.
    if found.layers and whole and _PART * most * found.product > found.captured:
        some = [tangent] * _held(most, weights)
        materialised = timed(lambda given, count: differentiator.materialised(weights, some, (), given, count), 1)
    return replace(found, gradient=gradient, derivative=derivative, materialised=materialised)


def time_compiled(compiled: Compiled, weights: Weights, batch: tuple[Any, int], ways: Ways) -> Ways:
    """Compile forward passes, and find out whether they then take less time.

    Args:
        compiled: The model.
        weights: Any weights of it.
        batch: A batch in its layout, with its number of samples.
        ways: What is known already.
    """
    given, size = batch
    compiled(weights, given)  # compiles
    if compiled.refused:
        return replace(ways, compiled_reason=f"the step can't be compiled: {compiled.refused}")
    plain, fast = [], []
    for _ in range(REPEATS):
        plain.append(seconds_of(partial(compiled.model.outputs, weights, given), weights))
        fast.append(seconds_of(partial(compiled, weights, given), weights))
    share = min(fast) / min(plain)
    reason = f"a compiled forward pass takes {share:.2f} of the time, after {compiled.seconds:.1f} s of compiling"
    return replace(ways, compiled=min(fast) / size if share < 1 else 0.0, compiled_reason=reason)


def time_half(evaluator: Evaluator, weights: Weights, batch: tuple[Any, int], ways: Ways) -> Ways:
    """Measure how far products of passes in bf16 are off, and whether they take less time.

    The directions are gradients of a few of the batch's samples, as those of references are; so products are not chance
    sums near zero. Rounding is that of the passes: products are sums in fp32 either way.

    Args:
        evaluator: As the sweep will use it.
        weights: Any weights of the model.
        batch: A batch with its number of samples.
        ways: What is known already; products in the layers have been tried.
    """
    differentiator, size = evaluator.differentiator, batch[1]
    if not ways.layers:
        return replace(ways, half_reason=f"gradients don't come apart in the layers: {ways.reason}")
    caught: dict[bool, list[Captured | None]] = {False: [], True: []}
    spent: dict[bool, list[float]] = {False: [], True: []}
    for _ in range(REPEATS + 1):  # the first warms up
        for half, seconds in spent.items():
            work = partial(_catch, caught[half], differentiator, weights, batch, half)
            seconds.append(seconds_of(work, weights))
    full, rounded = caught[False][-1], caught[True][-1]
    if full is None or rounded is None:
        return replace(ways, half_reason="batches go another way through the layers in bf16")
    rows = full.gradients(slice(0, min(size, _DIRECTIONS)), weights.trainable)
    count = len(next(iter(rows.values())))
    tangents = Tangents([{name: row[i] for name, row in rows.items()} for i in range(count)])
    (exact, (lengths,)), (found, (others,)) = full.answer(tangents, [None]), rounded.answer(tangents, [None])
    off = max(_off(found, exact), _off(others, lengths))
    share = min(spent[True][1:]) / min(spent[False][1:])
    said = f"products are off by {off:.2g} of the largest, passes take {share:.2f} of the time"
    if off > HALF_ERROR or not share < 1:
        return replace(ways, half_reason=f"it was not worth it: {said}")
    return replace(ways, half=True, half_reason=said, captured=share * ways.captured)


def _off(found: torch.Tensor, exact: torch.Tensor) -> float:
    """Largest difference over the largest value; what is not finite in fp32 says nothing."""
    known = exact.isfinite()
    largest = exact[known].abs().max() if bool(known.any()) else exact.new_ones(())
    return float((found - exact)[known].abs().nan_to_num(nan=torch.inf).max() / largest.clamp(min=1e-300))


def _time_layers(
    evaluator: Evaluator, weights: Weights, warm: tuple[Any, int], batch: tuple[Any, int], ways: Ways
) -> Ways:
    """Find out whether gradients come apart in the layers; time the two passes, and the products with one and many."""
    differentiator, size = evaluator.differentiator, batch[1]
    first = None if evaluator.backend == "vmap" else differentiator.captured(weights, *warm)
    if first is None:
        return replace(ways, layers=False, reason=differentiator.layered.refused or "not asked for")
    few, many = (Tangents([weights.trainable] * count) for count in (1, _held(_TANGENTS, weights)))
    first.answer(few)
    first.answer(many)
    passes, ones, several = [], [], []
    for _ in range(REPEATS):
        caught: list[Captured | None] = []
        passes.append(seconds_of(partial(_catch, caught, differentiator, weights, batch), weights))
        if (captured := caught[0]) is None:
            return replace(ways, layers=False, reason="batches go different ways through the layers")
        ones.append(seconds_of(partial(captured.answer, few), weights))
        several.append(seconds_of(partial(captured.answer, many), weights))
    product = max(min(several) - min(ones), 0.0) / (len(many) - 1)
    both = min(passes) + max(min(ones) - product, 0.0)
    return replace(ways, layers=True, reason=None, captured=both / size, product=product / size)


def _catch(
    caught: list[Captured | None],
    differentiator: Differentiator,
    weights: Weights,
    batch: tuple[Any, int],
    half: bool = False,
) -> None:
    caught[:] = [differentiator.captured(weights, *batch, half)]


def _held(count: int, weights: Weights) -> int:
    """Limit a number of tangents by the memory that they take, two at the least."""
    bytes_each = sum(tensor.nbytes for tensor in weights.trainable.values())
    return max(2, min(count, _TANGENTS, _BYTES // max(bytes_each, 1)))


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
