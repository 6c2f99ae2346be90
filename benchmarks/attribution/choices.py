"""How hyper-parameters are chosen: never on the queries that are reported on, and on one model of the three.

``planted`` needs no retraining: training samples stand in as references, and each must find itself. The others take
what predicts retraining best for other queries, which nobody could afford in practice; they are there to tell a method's
worth from the worth of its defaults, and the peer gets the same chance.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks.attribution.analysis import Fitted, attribute
from benchmarks.attribution.bank import Bank
from benchmarks.attribution.methods import DAMPINGS, GRADIENTS, GRID, WHOLE_DAMPINGS
from benchmarks.attribution.problem import Data, Recipe
from benchmarks.attribution.quality import lds
from lightning_inf import EKFAC, ForwardINF, InfluenceFunction
from lightning_inf.methods.method import Method
from lightning_inf.probes.curvature import Solver


def planted(fitted: Fitted, data: Data, recipe: Recipe, bank: Bank) -> dict[str, Any]:
    """Choose steps and radius so that training samples find themselves; ties go to the mean reciprocal rank."""
    chosen = np.random.default_rng(1).choice(recipe.samples, recipe.tuning, replace=False)
    methods = _ascents()
    found, _ = attribute(fitted, data, methods, (data.x[chosen], data.y[chosen]), last=True)
    trials = []
    for method, (steps, radius) in zip(methods, GRID, strict=True):
        scores = found[method.name]
        own = scores[np.arange(len(chosen)), chosen]
        rank = 1 + (scores > own[:, None]).sum(axis=1)
        hits = {"hit_rate": float((rank == 1).mean()), "reciprocal_rank": float((1 / rank).mean())}
        trials.append({"steps": steps, "radius": radius, **hits})
    best = max(trials, key=lambda t: (t["hit_rate"], t["reciprocal_rank"]))
    return {"chosen": {key: best[key] for key in ("steps", "radius")}, "trials": trials}


def steps(fitted: Fitted, data: Data, recipe: Recipe, bank: Bank) -> dict[str, Any]:
    """Choose steps and radius by LDS on the tuning queries."""
    values = [{"steps": count, "radius": radius} for count, radius in GRID]
    return _by_retraining(fitted, data, recipe, bank, _ascents(), values)


def damping(fitted: Fitted, data: Data, recipe: Recipe, bank: Bank) -> dict[str, Any]:
    """Choose the damping of EK-FAC by LDS on the tuning queries."""
    return _by_damping(fitted, data, recipe, bank, EKFAC(), DAMPINGS)


def damping_cg(fitted: Fitted, data: Data, recipe: Recipe, bank: Bank) -> dict[str, Any]:
    """Choose the damping of conjugate gradients by LDS on the tuning queries."""
    return _by_damping(fitted, data, recipe, bank, GRADIENTS, WHOLE_DAMPINGS)


def trak(fitted: Fitted, data: Data, recipe: Recipe, bank: Bank) -> dict[str, Any]:
    """Choose TRAK's dimension and ridge term by LDS on the tuning queries."""
    from benchmarks.attribution import peer  # the peer's package is an extra

    trials = []
    for dimension in peer.DIMENSIONS:
        for ridge in peer.RIDGES:
            queries = (data.tuning_x, data.tuning_y)
            scores, _ = peer.trak(data, recipe, [fitted.module.net], queries, dimension, ridge)
            score = lds(bank, scores, "margin", slice(recipe.queries, None))["score"]
            trials.append({"dimension": dimension, "ridge": ridge, "lds_margin": score})
    best = max(trials, key=lambda t: t["lds_margin"])
    return {"chosen": {key: best[key] for key in ("dimension", "ridge")}, "trials": trials}


#: By name, what chooses.
CHOICES = {"planted": planted, "steps": steps, "damping": damping, "damping_cg": damping_cg, "trak": trak}


def _ascents() -> list[Method]:
    return [ForwardINF(count, radius, name=f"ascent_{number}") for number, (count, radius) in enumerate(GRID)]


def _by_damping(
    fitted: Fitted, data: Data, recipe: Recipe, bank: Bank, solver: Solver, dampings: Sequence[float | None]
) -> dict[str, Any]:
    methods: list[Method] = [
        InfluenceFunction(solver=solver, damping=value, name=f"damping_{number}")
        for number, value in enumerate(dampings)
    ]
    return _by_retraining(fitted, data, recipe, bank, methods, [{"damping": value} for value in dampings])


def _by_retraining(
    fitted: Fitted, data: Data, recipe: Recipe, bank: Bank, methods: list[Method], values: list[dict[str, Any]]
) -> dict[str, Any]:
    """Try all at the last checkpoint."""
    tuning = slice(recipe.queries, None)
    found, _ = attribute(fitted, data, methods, (data.tuning_x, data.tuning_y), last=True)
    trials = [
        {**value, "lds_margin": lds(bank, found[method.name], "margin", tuning)["score"]}
        for method, value in zip(methods, values, strict=True)
    ]
    best = max(range(len(trials)), key=lambda number: trials[number]["lds_margin"])
    return {"chosen": values[best], "trials": trials}
