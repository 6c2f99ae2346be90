"""The rows of the table: which estimators, at which checkpoints, and how their hyper-parameters are chosen."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from lightning_inf import EKFAC, ConjugateGradients, ForwardINF, InfluenceFunction, Preconditioner, TracIn
from lightning_inf.methods.method import Method

#: Steps and radii of Forward-INF among which planted truth chooses.
GRID = [(steps, radius) for steps in (1, 5, 20) for radius in (1e-4, 1e-3, 1e-2, 3e-2, 1e-1)]

#: Damping of the curvature among which retrainings choose; None is the default, relative to the mean eigenvalue.
DAMPINGS = (None, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)

#: And of the whole matrix, at which conjugate gradients take more iterations the less there is.
WHOLE_DAMPINGS = (1e-2, 1e-1, 1.0)

#: A product with the Gauss-Newton matrix is a pass over the training samples, and there is one an iteration and query.
GRADIENTS = ConjugateGradients(iterations=30)


@dataclass(frozen=True)
class Row:
    """An estimator of the table.

    Attributes:
        name: In the JSON.
        label: In the table.
        make: Makes the method from the hyper-parameters that were chosen.
        last: Whether it looks at the last checkpoint alone.
        choice: Which of :data:`benchmarks.attribution.choices.CHOICES` it is made from; None: its own defaults.
    """

    name: str
    label: str
    make: Callable[[dict[str, Any]], Method]
    last: bool = False
    choice: str | None = None


def undone(choice: dict[str, Any]) -> Preconditioner:
    """EK-FAC at the damping that was chosen."""
    return Preconditioner(EKFAC(), **choice)


# `ForwardINF(radius="auto")` would be one more row here, made without a choice of ours.
ROWS = (
    Row("tracin_last", "TracIn, last checkpoint (GradDot)", lambda c: TracIn(), last=True),
    Row("tracin", "TracIn, 5 checkpoints", lambda c: TracIn()),
    Row("tracin_cosine", "TracIn cosine, 5 checkpoints", lambda c: TracIn(normalize="cosine")),
    Row("tracin_margin", "TracIn of the margin, 5 checkpoints", lambda c: TracIn(output="margin")),
    Row(
        "tracin_cosine_margin",
        "TracIn cosine of the margin, 5 checkpoints",
        lambda c: TracIn(normalize="cosine", output="margin"),
    ),
    Row(
        "forward_inf_plain",
        "Forward-INF, Algorithm 1 (2 plain steps of 0.01, last checkpoint)",
        lambda c: ForwardINF(step="plain", steps=2, alpha=0.01),
        last=True,
    ),
    Row("forward_inf_last", "Forward-INF, default steps, last checkpoint", lambda c: ForwardINF(), last=True),
    Row("forward_inf", "Forward-INF, default (5 checkpoints)", lambda c: ForwardINF()),
    Row("forward_inf_margin", "Forward-INF of the margin, default", lambda c: ForwardINF(output="margin")),
    Row(
        "forward_inf_tuned",
        "Forward-INF, tuned on planted truth",
        lambda c: ForwardINF(**c),
        choice="planted",
    ),
    Row(
        "forward_inf_tuned_margin",
        "Forward-INF of the margin, tuned on planted truth",
        lambda c: ForwardINF(**c, output="margin"),
        choice="planted",
    ),
    Row(
        "forward_inf_retrained",
        "Forward-INF, steps chosen by retraining",
        lambda c: ForwardINF(**c),
        choice="steps",
    ),
    Row(
        "forward_inf_ekfac_default",
        "Forward-INF, EK-FAC, default damping, last checkpoint",
        lambda c: ForwardINF(preconditioner=Preconditioner(EKFAC())),
        last=True,
    ),
    Row(
        "forward_inf_ekfac_last",
        "Forward-INF, EK-FAC, last checkpoint",
        lambda c: ForwardINF(preconditioner=undone(c)),
        last=True,
        choice="damping",
    ),
    Row(
        "forward_inf_ekfac",
        "Forward-INF, EK-FAC, 5 checkpoints",
        lambda c: ForwardINF(preconditioner=undone(c)),
        choice="damping",
    ),
    Row(
        "forward_inf_ekfac_margin",
        "Forward-INF of the margin, EK-FAC, last checkpoint",
        lambda c: ForwardINF(preconditioner=undone(c), output="margin"),
        last=True,
        choice="damping",
    ),
    Row(
        "influence_ekfac_default",
        "Influence function, EK-FAC, default damping",
        lambda c: InfluenceFunction(solver=EKFAC()),
        last=True,
    ),
    Row(
        "influence_ekfac",
        "Influence function, EK-FAC",
        lambda c: InfluenceFunction(solver=EKFAC(), **c),
        last=True,
        choice="damping",
    ),
    Row(
        "influence_ekfac_all",
        "Influence function, EK-FAC, 5 checkpoints",
        lambda c: InfluenceFunction(solver=EKFAC(), **c, checkpoints="all"),
        choice="damping",
    ),
    Row(
        "influence_cg",
        "Influence function, conjugate gradients, damping chosen for EK-FAC",
        lambda c: InfluenceFunction(solver=GRADIENTS, **c),
        last=True,
        choice="damping",
    ),
    Row(
        "influence_cg_own",
        "Influence function, conjugate gradients",
        lambda c: InfluenceFunction(solver=GRADIENTS, **c),
        last=True,
        choice="damping_cg",
    ),
)
