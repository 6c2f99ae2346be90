"""Forward-INF's steps, chosen by the package on planted truth: training samples must find themselves."""

from __future__ import annotations

from typing import Any, Literal

from benchmarks.leakage.attribute import attribute
from benchmarks.leakage.cases import Planted
from lightning_inf import EKFAC, ForwardINF, Preconditioner

#: The curvature is of this many training samples.
CURVED = 2_000

#: Both forms of the estimator that are tuned, by the key of their row.
FORMS = {"forward_inf_ekfac": True, "forward_inf": False}


def forward_inf(preconditioned: bool, direction: Literal["ascent", "descent"] = "ascent", **values: Any) -> ForwardINF:
    """Make the estimator that was best on a seed of its own: steps by tensor that bring the margin down.

    Args:
        preconditioned: Undo the training loss's curvature in each gradient, by EK-FAC.
        direction: Of the steps.
        values: More arguments of :class:`~lightning_inf.ForwardINF`.
    """
    undone = Preconditioner(EKFAC(), subset=CURVED) if preconditioned else None
    fixed: dict[str, Any] = {"step": "per_layer", "output": "margin", "checkpoints": "last", "preconditioner": undone}
    return ForwardINF(direction=direction, **fixed, **values)


def choose(planted: Planted, preconditioned: bool) -> dict[str, Any]:
    """Let an analysis choose steps and radius.

    It is one of the training samples that were not copied, so no query's answer takes part in the choice.

    Args:
        planted: The trained network.
        preconditioned: Undo the curvature.

    Returns:
        What ``summary.json`` says of the choice, the ``values`` among it.
    """
    few = planted.others[:2]  # an analysis needs references; the choice does not depend on them
    method = forward_inf(preconditioned, radius="auto")
    found = attribute(planted, [method], few, planted.checkpoints[-1:], asked=0, among=planted.others)
    chosen: dict[str, Any] = found.summary["methods"][0]["tuning"]
    return chosen
