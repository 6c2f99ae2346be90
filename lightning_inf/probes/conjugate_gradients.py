"""Conjugate gradients: the most exact way to H^-1 g, at one pass over the training subset an iteration."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_inf.model.weights import Vector
from lightning_inf.probes.curvature import Curvature, Inverse, Solver, Statistics
from lightning_inf.probes.gauss_newton import GaussNewton


@dataclass(frozen=True)
class ConjugateGradients(Solver):
    r"""Solves :math:`(G + \lambda) x = g`, G being the Gauss-Newton matrix (Martens, ICML 2010).

    Vectors and inner products are in fp64, as the method loses orthogonality in fp32. An early stop is a stronger
    damping of the directions of little curvature.

    Attributes:
        iterations: At most this many products; each is one pass over the subset.
        tolerance: Stop when :math:`\lVert g - (G + \lambda) x \rVert \le` this times :math:`\lVert g \rVert`.

    Raises:
        ValueError: If a number is out of range.

    Example:
        >>> ConjugateGradients(iterations=20).tolerance
        0.0001
    """

    iterations: int = 100
    tolerance: float = 1e-4

    def __post_init__(self) -> None:
        if self.iterations < 1 or not self.tolerance > 0:
            raise ValueError(
                f"ConjugateGradients(iterations={self.iterations}, tolerance={self.tolerance}): expected at least one"
                " iteration and a tolerance above 0"
            )

    def visits(self, samples: int) -> int:
        """Each iteration is a product over all samples."""
        return self.iterations * samples

    def statistics(self, curvature: Curvature) -> Statistics:
        """Estimate the mean eigenvalue: passes of its own, which a damping of the user's saves."""
        return {"mean": GaussNewton(curvature).mean_eigenvalue()} if curvature.damping is None else {}

    def prepare(self, curvature: Curvature, statistics: Statistics) -> Inverse:
        """Find the damping."""
        matrix = GaussNewton(curvature)
        damping = curvature.damped(statistics.get("mean", 0.0))
        return lambda vector: self._solve(matrix, damping, vector)

    def _solve(self, matrix: GaussNewton, damping: float, vector: Vector) -> Vector:
        """Iterate from zero."""
        goal = matrix.flat(vector)
        solution, residual = torch.zeros_like(goal), goal.clone()
        search, squared = residual.clone(), _dot(residual, residual)
        enough = self.tolerance**2 * squared
        for _ in range(self.iterations):
            if squared <= enough:
                break
            product = matrix.product(search) + damping * search
            step = squared / _dot(search, product)  # the matrix is positive definite: never by zero
            solution += step * search
            residual -= step * product
            before, squared = squared, _dot(residual, residual)
            search = residual + squared / before * search
        return matrix.unflat(solution)


def _dot(left: Tensor, right: Tensor) -> float:
    return float(left @ right)
