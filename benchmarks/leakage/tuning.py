"""Forward-INF's steps, chosen on planted truth: training samples other than the copied ones must find themselves."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from benchmarks.leakage.attribute import attribute
from benchmarks.leakage.cases import Planted
from lightning_inf import ForwardINF

#: Numbers of steps and radii that are tried.
STEPS, RADII = (1, 3, 5), (0.003, 0.01, 0.03, 0.1)

#: Training samples that stand in as references.
STAND_INS = 20


def forward_inf(direction: Literal["ascent", "descent"], **values: Any) -> ForwardINF:
    """Make the estimator that was best on a seed of its own: steps by tensor that bring the margin down."""
    return ForwardINF(step="per_layer", output="margin", checkpoints="last", direction=direction, **values)


def choose(planted: Planted, direction: Literal["ascent", "descent"]) -> dict[str, Any]:
    """Choose steps and radius.

    Args:
        planted: The trained network; none of its copied samples takes part.
        direction: Of the steps.

    Returns:
        The ``values``, their ``hit_rate``, and the ``seconds`` it took.
    """
    cells = [{"steps": k, "radius": r} for k in STEPS for r in RADII]
    cells = sorted(cells, key=lambda cell: (cell["steps"] * cell["radius"], cell["steps"]))
    methods = [forward_inf(direction, name=f"cell_{i}", **cell) for i, cell in enumerate(cells)]
    stand_ins = np.random.default_rng((planted.seed, 1)).choice(planted.others, STAND_INS, replace=False)
    found = attribute(planted, methods, stand_ins, planted.checkpoints[-1:])
    ranks = [found.ranks[method.name] for method in methods]
    hits = [float(np.mean(r == 1)) for r in ranks]
    best = max(range(len(cells)), key=lambda i: (hits[i], float(np.mean(1 / ranks[i])), -i))
    grid = [{**cell, "hit_rate": hit} for cell, hit in zip(cells, hits, strict=True)]
    return {
        "values": cells[best],
        "hit_rate": hits[best],
        "stand_ins": STAND_INS,
        "seconds": found.seconds,
        "grid": grid,
    }
