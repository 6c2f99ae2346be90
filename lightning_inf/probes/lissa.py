"""LiSSA: a truncated Neumann series over mini-batches."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lightning_inf.model.weights import Vector
from lightning_inf.probes.curvature import Curvature, Inverse, Solver, Statistics
from lightning_inf.probes.gauss_newton import GaussNewton
from lightning_inf.probes.scene import Unavailable

#: By how much the scale grows when the series diverges, and how often.
GROWTH = 4.0
RETRIES = 3

#: The first scale over the largest eigenvalue of the subset: single batches have larger ones.
MARGIN = 1.5


@dataclass(frozen=True)
class LiSSA(Solver):
    r"""Sums the Neumann series of the inverse stochastically (Agarwal et al., JMLR 2017; Koh & Liang, ICML 2017).

    .. math:: h_{t+1} = g + h_t - \frac{1}{\sigma} (G_{b_t} + \lambda) h_t, \qquad
        (G + \lambda)^{-1} g \approx \frac{1}{R} \sum_r \frac{1}{\sigma} h_T^{(r)}

    It converges where :math:`\sigma` exceeds half the largest eigenvalue, and fastest where it just does. A scale that is
    guessed is what makes published LiSSA baselines fail; here it is found by power iteration. A series that leaves the
    ball in which the answer must lie, :math:`\lVert h / \sigma \rVert \le \lVert g \rVert / \lambda`, has diverged, and is
    started again with four times the scale. Directions of less curvature than :math:`\sigma / T` stay undone: that is a
    damping on top of the one given.

    Attributes:
        depth: T, mini-batch products a repetition.
        repeats: R.
        scale: :math:`\sigma`; None: 1.5 times the largest eigenvalue, plus the damping.
        seed: Seed of the order of the batches.

    Raises:
        ValueError: If a number is out of range.

    Example:
        >>> LiSSA(depth=500).repeats
        1
    """

    depth: int = 1000
    repeats: int = 1
    scale: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.depth < 1 or self.repeats < 1 or (self.scale is not None and not self.scale > 0):
            raise ValueError(
                f"LiSSA(depth={self.depth}, repeats={self.repeats}, scale={self.scale}): expected 1 or more products and"
                " repetitions, and a scale above 0 or null"
            )

    def visits(self, samples: int) -> int:
        """Each product is over a mini-batch, taken for a twentieth of the samples here."""
        return self.depth * self.repeats * max(samples // 20, 1)

    def statistics(self, curvature: Curvature) -> Statistics:
        """Find the eigenvalues that damping and scale are made of, where the user gives neither."""
        matrix = GaussNewton(curvature)
        found = {} if curvature.damping is not None else {"mean": matrix.mean_eigenvalue()}
        return found if self.scale else {**found, "largest": matrix.largest_eigenvalue()}

    def prepare(self, curvature: Curvature, statistics: Statistics) -> Inverse:
        """Find damping and scale."""
        matrix = GaussNewton(curvature)
        damping = curvature.damped(statistics.get("mean", 0.0))
        scale = self.scale or MARGIN * statistics["largest"] + damping
        return lambda vector: self._solve(matrix, damping, scale, vector)

    def _solve(self, matrix: GaussNewton, damping: float, scale: float, vector: Vector) -> Vector:
        """Average the repetitions; enlarge the scale where one diverges."""
        goal = matrix.flat(vector)
        first = scale
        for _ in range(RETRIES + 1):
            total = torch.zeros_like(goal)
            for repetition in range(self.repeats):
                solution = self._series(matrix, damping, scale, goal, repetition)
                if solution is None:
                    break
                total += solution / self.repeats
            else:
                return matrix.unflat(total)
            scale *= GROWTH
        raise Unavailable(
            f"LiSSA diverged at every scale from {first:.3g} to {scale / GROWTH:.3g}; use a larger damping or batch_size, or"
            " solver ConjugateGradients"
        )

    def _series(
        self, matrix: GaussNewton, damping: float, scale: float, goal: Tensor, repetition: int
    ) -> Tensor | None:
        """Sum the series once; None where it diverges."""
        generator = np.random.default_rng((self.seed, repetition))
        # Twice the radius: single batches scatter around an answer that may lie on the ball's surface.
        bound = 2 * float(goal.norm()) * scale / damping
        series, order = goal.clone(), np.empty(0, dtype=np.int64)
        for step in range(self.depth):
            place = step % matrix.batches
            if place == 0:  # each batch once a round: less scatter than drawing with replacement
                order = generator.permutation(matrix.batches)
            series = goal + series - (matrix.product(series, [int(order[place])]) + damping * series) / scale
            if not float(series.norm()) <= bound:  # also where it is NaN
                return None
        return series / scale
