"""The near-noiseless study: leave one out and dual leave one out of logistic regression, refitted exactly."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from lightning.pytorch import LightningModule
from torch import Tensor, nn

from benchmarks.data import images
from benchmarks.hypothesis.logistic import Logistic, contrasts, in_span
from benchmarks.hypothesis.mirrored import Mirror
from lightning_inf import ConjugateGradients, ForwardINF, InfluenceFunction, Preconditioner
from lightning_inf.metrics.functional import pearson, spearman

#: Gradient norm at which a refit counts as exact.
TOLERANCE = 1e-10


@dataclass(frozen=True)
class Sizes:
    """How much of the study is run.

    Attributes:
        samples: Training samples, n.
        queries: Test samples.
        left_out: How many training samples are left out in turn, drawn at random where they are not all. Correlations are
            then over those, which estimate the ones over all.
    """

    samples: int = 1000
    queries: int = 10
    left_out: int = 1000


def estimators(penalty: float) -> dict[str, ForwardINF | InfluenceFunction]:
    """Forward-INF as the paper's Table 7 has it, as this package has it, its limit, and up the curvature; influence by CG.

    The damping of the last two is the penalty. It is put on the intercept as well, which the objective leaves free.
    """
    solver = ConjugateGradients()
    return {
        "forward_inf_plain": ForwardINF(steps=2, step="plain", alpha=0.01),
        "forward_inf_normalized": ForwardINF(),
        "forward_inf_limit": ForwardINF(steps=0),
        "forward_inf_preconditioned": ForwardINF(steps=1, preconditioner=Preconditioner(solver, penalty)),
        "influence_function_cg": InfluenceFunction(solver, damping=penalty),
    }


class Linear(LightningModule):
    """The fitted model in the coordinates it was fitted in."""

    def __init__(self, theta: Tensor) -> None:
        super().__init__()
        classes = len(theta) + 1
        full = contrasts(classes) @ theta
        self.map = nn.Linear(full.shape[1] - 1, classes).double()
        with torch.no_grad():
            self.map.weight.copy_(full[:, :-1])
            self.map.bias.copy_(full[:, -1])

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Cross-entropy; the penalty has no part in a sample's loss."""
        return F.cross_entropy(self.map(batch[0]), batch[1])


def draw(name: str, root: Path, seed: int, samples: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Draw training samples by the seed; the test samples are all there are."""
    x, y = images(name, root, train=True)
    chosen = np.random.default_rng(seed).choice(len(y), samples, replace=False)
    test_x, test_y = images(name, root, train=False)
    return (
        x[chosen].flatten(1).double(),
        torch.from_numpy(y[chosen]),
        test_x.flatten(1).double(),
        torch.from_numpy(test_y),
    )


def hardest(x: Tensor, y: Tensor, test_x: Tensor, test_y: Tensor, penalty: float, queries: int) -> Tensor:
    """Find the test samples with the highest loss under the full model, as the paper does."""
    # A test sample outside the span of the training samples acts through its projection on it.
    axes = torch.linalg.svd(x, full_matrices=False)
    kept = axes[1] > 1e-11 * axes[1][0]
    rotated = x @ axes[2][kept].T
    model = Logistic(rotated, y, penalty)
    theta = model.fit(torch.full((len(y),), 1 / len(y), dtype=torch.float64))
    logits = (
        torch.cat([test_x @ axes[2][kept].T, torch.ones(len(test_x), 1, dtype=torch.float64)], 1)
        @ (model.basis @ theta).T
    )
    return F.cross_entropy(logits, test_y, reduction="none").topk(queries).indices


def case(name: str, penalty: float, seed: int, root: Path, sizes: Sizes) -> dict[str, Any]:
    """Measure Eq. 1, Eq. 2, Eq. 4 and the package's scores, and how they agree across training samples."""
    started = time.perf_counter()
    x, y, test_x, test_y = draw(name, root, seed, sizes.samples)
    chosen = hardest(x, y, test_x, test_y, penalty, sizes.queries)
    n, labels = len(y), torch.cat([y, test_y[chosen]])
    coordinates = in_span(torch.cat([x, test_x[chosen]]))
    model = Logistic(coordinates, labels, penalty)
    everyone = torch.cat([torch.full((n,), 1 / n), torch.zeros(sizes.queries)]).double()
    theta = model.fit(everyone)
    factor = model.hessian_factor(theta, everyone)
    full = model.refit(theta, factor, everyone[None], TOLERANCE)
    theta = full.theta[0]

    left = np.random.default_rng([seed, 2]).choice(n, min(n, sizes.left_out), replace=False)
    left_out = torch.cat([1 - torch.eye(n)[left], torch.zeros(len(left), sizes.queries)], dim=1).double()
    added = torch.cat([torch.ones(sizes.queries, n), torch.eye(sizes.queries)], dim=1).double()
    # The third keeps the weight of the penalty against one sample's loss, rather than against the mean loss, as it was.
    weights = torch.cat([left_out / (n - 1), added / (n + 1), added / n])
    refits = model.refit(theta, factor, weights, TOLERANCE)
    without, with_query, same_penalty = refits.theta.split([len(left), sizes.queries, sizes.queries])

    before = model.losses(theta[None])[0]
    loo = before[n:, None] - torch.cat([model.losses(t)[:, n:] for t in without.split(100)]).T
    dual = model.losses(with_query)[:, :n] - before[:n]
    dual_same_penalty = model.losses(same_penalty)[:, :n] - before[:n]
    columns = {"dual": dual, "dual_same_penalty": dual_same_penalty}
    columns["influence_function"] = influence(model, theta, factor, n)
    exact = time.perf_counter() - started
    columns |= package(theta, coordinates, labels, penalty, sizes.queries)
    columns = {"loo": loo, **{name: values[:, left] for name, values in columns.items()}}
    return {
        "data": name,
        "penalty": penalty,
        "seed": seed,
        "samples": n,
        "left_out": len(left),
        "queries": chosen.tolist(),
        "rank": coordinates.shape[1],
        "accuracy_on_training": float((model.log_probabilities(theta[None])[:n, 0].argmax(1) == y).double().mean()),
        "largest_gradient": max(full.gradient, refits.gradient),
        "most_iterations": refits.iterations,
        "median_absolute_loo": float(loo.abs().median()),
        "correlations": correlations(columns),
        "seconds": {"exact": round(exact, 1), "all": round(time.perf_counter() - started, 1)},
    }


def influence(model: Logistic, theta: Tensor, factor: Tensor, n: int) -> Tensor:
    """Eq. 4, -1/n of the test gradient times the inverse Hessian times the training gradient, shape ``(queries, n)``."""
    residual = (model.log_probabilities(theta[None])[:, 0].exp() - model.hot) @ model.basis
    test = (residual[n:, :, None] * model.features[n:, None]).flatten(1)
    solved = torch.cholesky_solve(test.T, factor).T.unflatten(1, model.shape)
    along = torch.einsum("qkf,nf->qnk", solved, model.features[:n])
    return -(along * residual[:n]).sum(dim=-1) / n


def package(theta: Tensor, x: Tensor, y: Tensor, penalty: float, queries: int) -> dict[str, Tensor]:
    """This package's scores of every training sample for each query, shape ``(queries, n)``.

    Rotated coordinates change none of them: gradients and weights lie in the span, and lengths stay.
    """
    mirror = Mirror(Linear(theta), x[:-queries], y[:-queries], x[-queries:], y[-queries:])
    return {
        name: torch.from_numpy(np.stack([mirror.scores(method, [q]) for q in range(queries)])).double()
        for name, method in estimators(penalty).items()
    }


def correlations(columns: dict[str, Tensor]) -> dict[str, dict[str, list[float]]]:
    """Pearson and Spearman of each pair with Eq. 1 or Eq. 2 in it, one number a query, with the raw signs."""
    pairs = [("loo", "dual")] + [(left, right) for left in ("loo", "dual") for right in list(columns)[2:]]
    return {
        f"{left}~{right}": {
            "pearson": pearson(columns[left], columns[right]).tolist(),
            "spearman": spearman(columns[left], columns[right]).tolist(),
        }
        for left, right in pairs
    }
