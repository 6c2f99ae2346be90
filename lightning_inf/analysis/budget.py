"""Making an analysis fit its budget: checkpoints go first, then questions about single references."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from lightning_inf.checkpoints.checkpoint import Checkpoint

#: Below this many checkpoints the dynamics lose more than the references are worth: then those go first.
FEW = 5


@dataclass
class Extent:
    """How much is asked.

    Attributes:
        checkpoints: In the order of training, the analysed one last.
        individual: Indices of the references asked alone.
        left_out: What was dropped, in sentences for the report.
    """

    checkpoints: list[Checkpoint]
    individual: list[int]
    left_out: list[str] = field(default_factory=list)


def fit_budget(extent: Extent, cost: Callable[[Extent], float], budget: float | None) -> Extent:
    """Drop parts until the estimate fits.

    Checkpoints are dropped evenly down to five, then the individual references, then further checkpoints; the last
    checkpoint and the joint question always stay.

    Args:
        extent: What was asked for.
        cost: Estimates the seconds of an extent.
        budget: Seconds, None for no limit.

    Returns:
        The largest extent on this path that fits, or the smallest.
    """
    if budget is None or cost(extent) <= budget:
        return extent
    total, few = len(extent.checkpoints), min(FEW, len(extent.checkpoints))
    trials = [Extent(thin(extent.checkpoints, k), extent.individual) for k in range(total - 1, few - 1, -1)]
    trials += [Extent(thin(extent.checkpoints, k), []) for k in range(few, 0, -1)]
    chosen = next((trial for trial in trials if cost(trial) <= budget), trials[-1])
    if len(chosen.checkpoints) < total:
        chosen.left_out.append(
            f"{total - len(chosen.checkpoints)} of {total} checkpoints were left out to stay within the budget of"
            f" {budget:.0f} s (budget=)."
        )
    if extent.individual and not chosen.individual:
        chosen.left_out.append(
            f"The questions about {len(extent.individual)} single references were left out to stay within the budget of"
            f" {budget:.0f} s (budget=)."
        )
    if cost(chosen) > budget:
        chosen.left_out.append(f"Even so the analysis was expected to take longer than the budget of {budget:.0f} s.")
    return chosen


def thin(items: Sequence[Checkpoint], count: int) -> list[Checkpoint]:
    """Keep ``count`` evenly spaced items, first and last among them; of one, the last."""
    if count >= len(items):
        return list(items)
    if count == 1:
        return [items[-1]]
    return [items[round(i * (len(items) - 1) / (count - 1))] for i in range(count)]
