"""Forward-INF's steps, chosen by the package on planted truth: training samples must find themselves."""

from __future__ import annotations

from typing import Any, Literal

from benchmarks.leakage.attribute import attribute
from benchmarks.leakage.cases import Planted
from lightning_inf import ForwardINF


def forward_inf(direction: Literal["ascent", "descent"], **values: Any) -> ForwardINF:
    """Make the estimator that was best on a seed of its own: steps by tensor that bring the margin down."""
    return ForwardINF(step="per_layer", output="margin", checkpoints="last", direction=direction, **values)


def choose(planted: Planted) -> dict[str, Any]:
    """Let an analysis choose steps and radius.

    It is one of the training samples that were not copied, so no query's answer takes part in the choice.

    Args:
        planted: The trained network.

    Returns:
        What ``summary.json`` says of the choice, the ``values`` among it.
    """
    few = planted.others[:2]  # an analysis needs references; the choice does not depend on them
    method = forward_inf("ascent", radius="auto")
    found = attribute(planted, [method], few, planted.checkpoints[-1:], asked=0, among=planted.others)
    chosen: dict[str, Any] = found.summary["methods"][0]["tuning"]
    return chosen
