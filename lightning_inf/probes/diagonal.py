"""The diagonal of the Fisher information: the cheapest curvature, which needs the samples' losses alone."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.func import grad, vmap
from torch.utils._pytree import tree_flatten, tree_unflatten

from lightning_inf.model.weights import Vector
from lightning_inf.probes.curvature import Curvature, Inverse, Solver, Statistics
from lightning_inf.probes.scene import Unavailable

#: Bytes of per-sample gradients that are held at once.
GRADIENT_BYTES = 256 << 20


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
    weights = curvature.weights
    chosen = {name: weights.trainable[name] for name in names}
    total = {name: torch.zeros_like(tensor, dtype=torch.float64) for name, tensor in chosen.items()}
    count, vectorize = 0, True
    for indices, batch in curvature.batches():
        squares: Vector | None = None
        if vectorize:
            try:
                squares = _vectorized(curvature, chosen, batch, len(indices))
            except (RuntimeError, ValueError, TypeError, IndexError, NotImplementedError):
                vectorize = False  # an operator without a batching rule, or a batch that is no stack of samples
        if squares is None:
            squares = _one_by_one(curvature, chosen, batch)
        for name, tensor in squares.items():
            total[name] += tensor
        count += len(indices)
    if not all(bool(tensor.isfinite().all()) for tensor in total.values()):
        raise Unavailable("the gradient of a training sample is not finite, so neither is the Fisher information")
    return {name: tensor / count for name, tensor in total.items()}


def _vectorized(curvature: Curvature, chosen: Vector, batch: Any, size: int) -> Vector:
    """Sum the squared gradients of a batch by ``vmap``, in slices that fit into memory."""
    model, weights = curvature.model, curvature.weights
    leaves, spec = tree_flatten(batch)
    mapped = [isinstance(leaf, Tensor) and leaf.dim() > 0 and len(leaf) == size for leaf in leaves]

    def loss(trainable: Vector, parts: list[Any]) -> Tensor:
        one = [part.unsqueeze(0) if m else part for part, m in zip(parts, mapped, strict=True)]
        return model.losses({**weights.trainable, **trainable}, weights.fixed, tree_unflatten(one, spec)).squeeze(0)

    each = max(1, min(size, GRADIENT_BYTES // max(4 * sum(p.numel() for p in chosen.values()), 1)))
    gradient = vmap(grad(loss), in_dims=(None, [0 if m else None for m in mapped]))
    total = {name: torch.zeros_like(tensor, dtype=torch.float64) for name, tensor in chosen.items()}
    for start in range(0, size, each):
        part = [leaf[start : start + each] if m else leaf for leaf, m in zip(leaves, mapped, strict=True)]
        for name, tensor in gradient(chosen, part).items():
            total[name] += tensor.double().square().sum(dim=0)
    return total


def _one_by_one(curvature: Curvature, chosen: Vector, batch: Any) -> Vector:
    """Sum the squared gradients of a batch by one backward pass a sample."""
    weights = curvature.weights
    leaves = {name: tensor.detach().requires_grad_() for name, tensor in chosen.items()}
    total = {name: torch.zeros_like(tensor, dtype=torch.float64) for name, tensor in chosen.items()}
    with torch.enable_grad():
        losses = curvature.model.losses({**weights.trainable, **leaves}, weights.fixed, batch).unbind()
    for loss in losses:
        if loss.requires_grad:
            grads = torch.autograd.grad(loss, list(leaves.values()), retain_graph=True, allow_unused=True)
            for name, tensor in zip(leaves, grads, strict=True):
                if tensor is not None:
                    total[name] += tensor.double().square()
    return total
