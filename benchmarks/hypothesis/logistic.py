r"""Multinomial logistic regression to the last digit, and hundreds of warm-started refits of it at once.

The objective is :math:`\sum_j w_j \ell_j(\theta) + \frac{\lambda}{2} \lVert W \rVert^2` with the intercept free, in float64.
Two changes of coordinates lose nothing and make it small. The penalised optimum lies in the span of the samples, so
inputs are rotated into that span. Its class weights sum to zero, so nine coordinates stand for ten classes; the intercept,
which is free up to a shift of all classes, gets a unique optimum with that.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor

#: Pairs that the quasi-Newton refits remember.
MEMORY = 8
#: Refits that run side by side.
TOGETHER = 1100


def in_span(x: Tensor) -> Tensor:
    """Rotate samples of shape ``(m, d)`` into their span: shape ``(m, rank)``, all inner products as they were."""
    u, s, _ = torch.linalg.svd(x.double(), full_matrices=False)
    kept = s > 1e-11 * s[0]
    return u[:, kept] * s[kept]


def contrasts(classes: int) -> Tensor:
    """Return an orthonormal basis of the vectors that sum to zero, shape ``(classes, classes - 1)``."""
    centred = torch.eye(classes, dtype=torch.float64) - 1 / classes
    return torch.linalg.svd(centred)[0][:, : classes - 1]


@dataclass
class Refits:
    """What refits ended with.

    Attributes:
        theta: Parameters, shape ``(b, classes - 1, features + 1)``, the intercept last.
        gradient: The largest gradient norm among them.
        iterations: The most iterations that one took.
    """

    theta: Tensor
    gradient: float
    iterations: int


class Logistic:
    """The objective on samples whose weights say who is in.

    Args:
        x: Inputs in their span, shape ``(m, r)``.
        y: Labels, shape ``(m,)``.
        penalty: Lambda, the weight decay.
        classes: How many classes there are.
    """

    def __init__(self, x: Tensor, y: Tensor, penalty: float, classes: int = 10) -> None:
        self.features = torch.cat([x, torch.ones(len(x), 1, dtype=torch.float64)], dim=1)
        self.basis = contrasts(classes)
        self.hot = torch.nn.functional.one_hot(y, classes).double()
        self.decay = torch.full((self.features.shape[1],), penalty, dtype=torch.float64)
        self.decay[-1] = 0.0
        self.shape = (classes - 1, self.features.shape[1])

    def log_probabilities(self, theta: Tensor) -> Tensor:
        """Log-probabilities of models ``(b, k, r + 1)``, shape ``(m, b, classes)``."""
        scores = (self.features @ theta.flatten(0, 1).T).unflatten(1, theta.shape[:2])
        return (scores @ self.basis.T).log_softmax(dim=-1)

    def losses(self, theta: Tensor) -> Tensor:
        """Cross-entropy of each sample under each model, shape ``(b, m)``."""
        return -(self.log_probabilities(theta) * self.hot[:, None]).sum(dim=-1).T

    def value_and_gradient(self, theta: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        """Objective and gradient of models ``(b, k, r + 1)``, each with its sample weights ``(b, m)``."""
        log_p = self.log_probabilities(theta)
        loss = -(weights.T * (log_p * self.hot[:, None]).sum(dim=-1)).sum(dim=0)
        residual = (log_p.exp() - self.hot[:, None]) * weights.T[..., None] @ self.basis
        gradient = (residual.flatten(1).T @ self.features).unflatten(0, theta.shape[:2]) + self.decay * theta
        return loss + 0.5 * (self.decay * theta.square()).sum(dim=(1, 2)), gradient

    def hessian_factor(self, theta: Tensor, weights: Tensor) -> Tensor:
        """Cholesky factor of the Hessian of one model ``(k, r + 1)`` with sample weights ``(m,)``."""
        k, r = self.shape
        p = self.log_probabilities(theta[None])[:, 0].exp()
        inner = self.basis.T @ (torch.diag_embed(p) - p[:, :, None] * p[:, None]) @ self.basis
        hessian = torch.empty(k, r, k, r, dtype=torch.float64)
        for a in range(k):
            for b in range(a + 1):
                block = (self.features * (weights * inner[:, a, b])[:, None]).T @ self.features
                hessian[a, :, b], hessian[b, :, a] = block, block
        hessian = hessian.view(k * r, k * r)
        hessian.diagonal().add_(self.decay.repeat(k))
        return torch.linalg.cholesky(hessian)

    def fit(self, weights: Tensor) -> Tensor:
        """Fit one model with sample weights ``(m,)`` by L-BFGS from zero, as far as L-BFGS comes."""

        def objective(flat: np.ndarray) -> tuple[float, np.ndarray]:
            value, gradient = self.value_and_gradient(torch.from_numpy(flat).view(1, *self.shape), weights[None])
            return float(value), gradient.flatten().numpy()

        options = {"maxiter": 20_000, "maxfun": 40_000, "ftol": 0.0, "gtol": 1e-9, "maxcor": 30}
        found = minimize(objective, np.zeros(math.prod(self.shape)), jac=True, method="L-BFGS-B", options=options)
        return torch.from_numpy(found.x).view(self.shape)

    def refit(self, start: Tensor, factor: Tensor, weights: Tensor, tolerance: float) -> Refits:
        """Refit from a near optimum, once for each row of sample weights.

        Args:
            start: The near optimum, shape ``(k, r + 1)``.
            factor: Cholesky factor of the Hessian there.
            weights: Sample weights, shape ``(b, m)``.
            tolerance: Of the gradient's norm.

        Returns:
            The optima.

        Raises:
            RuntimeError: If one doesn't converge.
        """
        rough = factor.float()  # it only leads the way: the optimum is where the gradient, in float64, vanishes
        parts = [self._refit(start, rough, part, tolerance) for part in weights.split(TOGETHER)]
        return Refits(
            torch.cat([part.theta for part in parts]),
            max(part.gradient for part in parts),
            max(part.iterations for part in parts),
        )

    def _refit(self, start: Tensor, factor: Tensor, weights: Tensor, tolerance: float, most: int = 100) -> Refits:
        """L-BFGS whose first matrix is the exact inverse Hessian of the model that all start from.

        The first step is Newton's; what one sample more or less changes of the Hessian has rank nine at most, which a few
        pairs make up for.
        """
        theta = start.expand(len(weights), *self.shape).clone()
        value, gradient = self.value_and_gradient(theta, weights)
        pairs: list[tuple[Tensor, Tensor, Tensor]] = []
        for iteration in range(most + 1):
            active = (gradient.flatten(1).norm(dim=1) > tolerance).nonzero().squeeze(1)
            if not len(active):
                return Refits(theta, float(gradient.flatten(1).norm(dim=1).max()), iteration)
            step = -_two_loops(gradient[active].flatten(1), pairs, active, factor).view(-1, *self.shape)
            moved, new_value, new_gradient = self._descend(theta[active], value[active], step, weights[active])
            pairs = [*pairs[-MEMORY + 1 :], _pair(gradient, active, moved - theta[active], new_gradient)]
            theta[active], value[active], gradient[active] = moved, new_value, new_gradient
        raise RuntimeError(
            f"{len(active)} refits kept gradients above {tolerance:g} after {most} iterations; the largest is"
            f" {float(gradient.flatten(1).norm(dim=1).max()):g}"
        )

    def _descend(self, theta: Tensor, value: Tensor, step: Tensor, weights: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Take the steps, halving those that raise the objective by more than rounding does."""
        for _ in range(20):
            moved = theta + step
            new_value, gradient = self.value_and_gradient(moved, weights)
            worse = new_value > value + 1e-13 * value.abs().clamp_min(1.0)
            if not worse.any():
                break
            step = torch.where(worse[:, None, None], step / 2, step)
        return moved, new_value, gradient


def _pair(gradient: Tensor, active: Tensor, s: Tensor, new: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The step, the change of the gradient, and one over their product, zero for refits that stood still."""
    count = len(gradient)
    steps, changes = (torch.zeros(count, gradient[0].numel(), dtype=torch.float64) for _ in range(2))
    steps[active], changes[active] = s.flatten(1), (new - gradient[active]).flatten(1)
    product = (steps * changes).sum(dim=1)
    return steps, changes, torch.where(product > 0, 1 / product, 0.0)


def _two_loops(gradient: Tensor, pairs: list[tuple[Tensor, Tensor, Tensor]], active: Tensor, factor: Tensor) -> Tensor:
    """The quasi-Newton direction of each row (Nocedal & Wright, Algorithm 7.4), shape as the gradient's."""
    chosen = [(s[active], y[active], rho[active]) for s, y, rho in pairs]
    alphas = []
    q = gradient.clone()
    for s, y, rho in reversed(chosen):
        alphas.append(rho * (s * q).sum(dim=1))
        q -= alphas[-1][:, None] * y
    # Columns are scaled, lest small gradients lose digits as denormal numbers.
    scale = q.norm(dim=1, keepdim=True)
    q = torch.cholesky_solve((q / scale).to(factor.dtype).T, factor).T.double() * scale
    for (s, y, rho), alpha in zip(chosen, reversed(alphas), strict=True):
        q += (alpha - rho * (y * q).sum(dim=1))[:, None] * s
    return q
