"""Forward-INF whose gradients had the curvature taken out."""

import json
from dataclasses import dataclass

import numpy as np
import pytest

from lightning_inf import ConjugateGradients, ForwardINF, InfluenceFunction, Preconditioner
from lightning_inf.probes.curvature import Solver
from tests.methods.test_forward_inf import data, run  # noqa: F401 - `data` is a fixture


@dataclass(frozen=True)
class Half(Solver):
    """Pretends that the curvature is 2 everywhere."""

    def prepare(self, curvature, statistics):
        return lambda vector: {name: tensor / 2 for name, tensor in vector.items()}


def test_every_step_goes_along_what_the_solver_returns(tmp_path, data):  # noqa: F811
    methods = [
        ForwardINF(step="plain", steps=3, alpha=0.1, preconditioner=Preconditioner(Half()), name="halved"),
        ForwardINF(step="plain", steps=3, alpha=0.05, name="by_hand"),
    ]
    table, summary = run(tmp_path, data, data, methods)
    np.testing.assert_allclose(table["halved"], table["by_hand"], rtol=1e-5, atol=1e-9)
    assert summary["methods"][0]["arguments"]["preconditioner"]["solver"]["class"] == "Half"
    json.dumps(summary["methods"][0]["arguments"])


def test_small_preconditioned_steps_are_the_influence_function(tmp_path, data):  # noqa: F811
    solver = ConjugateGradients(iterations=200, tolerance=1e-6)
    undone = Preconditioner(solver, damping=0.1)
    methods = [
        ForwardINF(step="plain", steps=1, alpha=1e-3, preconditioner=undone, checkpoints="last"),
        InfluenceFunction(solver=solver, damping=0.1),
    ]
    table, _ = run(tmp_path, data, data, methods, individual_references=0)
    step, derivative = (np.array(table[name]) for name in ("forward_inf", "influence_function"))
    scale = 1e-3 * len(step)  # alpha, and the influence function's 1/n
    assert np.abs(step / scale - derivative).max() <= 2e-2 * np.abs(derivative).max()


def test_the_limit_is_another_method():
    with pytest.raises(ValueError, match="InfluenceFunction"):
        ForwardINF(steps=0, preconditioner=Preconditioner(Half()))
