"""The diagonal of the Fisher information: the cheapest curvature, which needs the samples' losses alone."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import torch

from lightning_inf.data.batches import out_of_memory
from lightning_inf.model.gradients import per_sample_gradients
from lightning_inf.model.sample_model import SampleModel
from lightning_inf.model.weights import Vector, Weights
from lightning_inf.probes.curvature import Curvature, Inverse, Solver, Statistics
from lightning_inf.probes.scene import Unavailable


@dataclass(frozen=True)
class DiagonalFisher(Solver):
    r"""Divides each coordinate by its mean squared gradient (the empirical Fisher's diagonal).

    .. math:: x_j = \frac{g_j}{F_j + \lambda}, \qquad F_j = \frac{1}{n} \sum_i (\partial_j \ell_i)^2

    The gradients are those of the given labels, so that it works wherever the losses of samples can be had. It tells no
    more than how steep each coordinate is; where labels are wrong or the model has learnt them by heart, it departs from
    the Hessian's diagonal (Kunstner et al., NeurIPS 2019).

    Example:
        >>> DiagonalFisher() == DiagonalFisher()
        True
    """

    def statistics(self, curvature: Curvature) -> Statistics:
        """Take every sample's gradient once."""
        return {"diagonal": fisher_diagonal(curvature, curvature.weights.trainable)}

    def prepare(self, curvature: Curvature, statistics: Statistics) -> Inverse:
        """Damp the diagonal."""
        diagonal: Vector = statistics["diagonal"]
        size = sum(tensor.numel() for tensor in diagonal.values())
        damping = curvature.damped(float(sum(tensor.sum() for tensor in diagonal.values())) / size)
        return lambda vector: divided(vector, diagonal, damping)


def divided(vector: Vector, diagonal: Vector, damping: float) -> Vector:
    """Divide a vector by a damped diagonal in fp64, over the diagonal's names; a name that the vector lacks is zero."""
    return {
        name: (vector[name].double() / (d + damping)).to(vector[name].dtype) if name in vector else torch.zeros_like(d)
        for name, d in diagonal.items()
    }


def fisher_diagonal(curvature: Curvature, names: Collection[str]) -> Vector:
    """Average the squared gradients of single samples, in fp64, over the named parameters.

    Raises:
        Unavailable: If a gradient is not finite.
    """
    everything = curvature.weights
    chosen = {name: everything.trainable[name] for name in names}
    rest = {name: tensor for name, tensor in everything.trainable.items() if name not in chosen}
    weights = Weights(chosen, {**everything.fixed, **rest})
    total = {name: torch.zeros_like(tensor, dtype=torch.float64) for name, tensor in chosen.items()}
    count, vectorize = 0, True
    for indices, batch in curvature.batches():
        squares: Vector | None = None
        if vectorize:
            try:
                squares = _squares(curvature.model, weights, batch, len(indices), vectorize=True)
            except (RuntimeError, ValueError, TypeError, IndexError, NotImplementedError) as error:
                if out_of_memory(error):
                    raise  # a smaller batch will do
                vectorize = False  # an operator without a batching rule, or a batch that is no stack of samples
        if squares is None:
            squares = _squares(curvature.model, weights, batch, len(indices), vectorize=False)
        for name, tensor in squares.items():
            total[name] += tensor
        count += len(indices)
    if not all(bool(tensor.isfinite().all()) for tensor in total.values()):
        raise Unavailable("the gradient of a training sample is not finite, so neither is the Fisher information")
    return {name: tensor / count for name, tensor in total.items()}


def _squares(model: SampleModel, weights: Weights, batch: Any, size: int, vectorize: bool) -> Vector:
    """Sum the squared gradients of a batch's samples."""
    total = {name: torch.zeros_like(tensor, dtype=torch.float64) for name, tensor in weights.trainable.items()}
    for _, rows in per_sample_gradients(model, weights, batch, size, vectorize):
        for name, tensor in rows.items():
            total[name] += tensor.double().square().sum(dim=0)
    return total
