"""How the benchmarks measure time: in alternation with a bare forward sweep, as ratios to it, with their spread."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

#: Wall-clock and processor time; the second is what matters where others use the machine as well.
CLOCKS: dict[str, Callable[[], float]] = {"wall": time.perf_counter, "cpu": time.process_time}

#: Seconds by clock.
Seconds = dict[str, float]


class Spared(dict[str, float]):
    """Seconds by clock of a part of some work that :func:`timed` is not to count."""


@dataclass(frozen=True)
class Spread:
    """Median and quartiles of repeated measurements.

    Attributes:
        low: First quartile.
        median: The figure.
        high: Third quartile.
    """

    low: float
    median: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Summarise."""
        low, median, high = np.percentile(values, [25, 50, 75])
        return cls(float(low), float(median), float(high))

    def misses(self, target: float, at_least: bool = False) -> bool:
        """Whether the range from quartile to quartile excludes a target on its wrong side."""
        return self.high < target if at_least else self.low > target


def timed(work: Callable[[], object], repeats: int = 1) -> Seconds:
    """Time calls to their end, on the device too.

    Args:
        work: What it returns is passed over, unless it is :class:`Spared`.
        repeats: How often it is called.

    Returns:
        Seconds a call.
    """
    _wait()
    spared = dict.fromkeys(CLOCKS, 0.0)
    began = {clock: now() for clock, now in CLOCKS.items()}
    for _ in range(repeats):
        if isinstance(found := work(), Spared):
            spared = {clock: spared[clock] + found[clock] for clock in CLOCKS}
    _wait()
    return {clock: (now() - began[clock] - spared[clock]) / repeats for clock, now in CLOCKS.items()}


def alternate(
    bare: Callable[[], object],
    works: Mapping[str, Callable[[], object]],
    pairs: int,
    sweeps: int = 1,
    warm_up: bool = True,
) -> list[dict[str, Seconds]]:
    """Time works in alternation with a bare sweep.

    Args:
        bare: The unit of cost. It is timed before and after the works, and the mean of both is what they are compared
            with: the speed of a machine drifts.
        works: By name, timed in this order.
        pairs: Repetitions that are kept.
        sweeps: Bare sweeps each time, where one is too short to be timed.
        warm_up: Throw the first repetition away, one more than ``pairs``.

    Returns:
        Of each repetition the seconds of ``bare`` and of each work, by clock.
    """
    rows = []
    for repetition in range(pairs + warm_up):
        before = timed(bare, sweeps)
        found = {name: timed(work) for name, work in works.items()}
        after = timed(bare, sweeps)
        if repetition >= warm_up:
            rows.append({"bare": {clock: (before[clock] + after[clock]) / 2 for clock in CLOCKS}, **found})
    return rows


def forward_sweep(module: nn.Module, batches: Iterable[torch.Tensor]) -> None:
    """Run a model forward in eval mode without gradients: the unit that costs are told in."""
    module.eval()
    with torch.no_grad():
        for batch in batches:
            module(batch)


def _wait() -> None:
    """Wait for the device, or the clock measures only launches."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
