"""Each sample its own reference: the weights climb its own loss, and come back for the next one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.func import grad, vmap

from lightning_inf.containers import flattened
from lightning_inf.model import gradients
from lightning_inf.model.sample_model import SampleModel
from lightning_inf.model.weights import Vector, Weights
from lightning_inf.sweep.measurements import SelfAscentAt

#: Sets of weights that a sample holds at a time: where it stands, the gradient there, and where it goes.
_SETS = 3


def positions(measurement: SelfAscentAt, indices: Sequence[int], size: int) -> list[int]:
    """Find which samples of a batch are asked.

    Args:
        measurement: Whose samples.
        indices: Of the batch's samples in the training data.
        size: How many there are.
    """
    if measurement.samples is None:
        return list(range(size))
    wanted = set(measurement.samples)
    return [position for position, index in enumerate(indices) if index in wanted]


def rises(
    model: SampleModel,
    weights: Weights,
    measurement: SelfAscentAt,
    batch: Any,
    size: int,
    chosen: Sequence[int],
    vectorize: bool,
) -> Tensor:
    r"""Compute :math:`\ell_i(\theta_K^{(i)}) - \ell_i(\theta)` of the chosen samples of a batch.

    .. math:: \theta_{k+1}^{(i)} = \theta_k^{(i)} + \rho \lVert\theta\rVert
        \frac{\nabla \ell_i(\theta_k^{(i)})}{\lVert\nabla \ell_i(\theta_k^{(i)})\rVert}

    Args:
        model: The model.
        weights: Where every sample starts.
        measurement: Steps and radius.
        batch: The batch of ``size`` samples.
        size: B.
        chosen: Positions in the batch.
        vectorize: By ``vmap``, as many samples at once as fit in :data:`~lightning_inf.model.gradients.GRADIENT_BYTES`;
            else one after the other.

    Returns:
        Shape ``(B,)`` in fp64; NaN where a sample is not chosen or its first gradient vanishes.
    """
    reach = measurement.radius * weights.norm
    found = torch.full((size,), float("nan"), dtype=torch.float64)
    if not vectorize:
        with torch.no_grad():
            losses = model.losses(weights.trainable, weights.fixed, batch)
        for position in chosen:
            one, place = _cut(model, weights, batch, size, position, losses[position])
            found[position] = _alone(model, weights, measurement.steps, reach, one, place)
        return found
    leaves, mapped, loss_of = gradients.of_one(model, weights, batch, size)

    def rise(parts: list[Any]) -> Tensor:
        def loss(trainable: Vector) -> Tensor:
            return loss_of(trainable, parts)

        here = weights.trainable
        moves = torch.ones((), dtype=torch.bool, device=next(iter(here.values())).device)
        for step in range(measurement.steps):
            gradient = grad(loss)(here)
            length = torch.stack([g.double().square().sum() for g in gradient.values()]).sum().sqrt()
            moves = length > 0 if step == 0 else moves
            # The inner `where` keeps 0/0 out of samples that stand still.
            scale = torch.where(length > 0, reach / torch.where(length > 0, length, 1.0), 0.0)
            here = {name: p + (scale * gradient[name]).to(p.dtype) for name, p in here.items()}
        difference = loss(here).double() - loss(weights.trainable).double()
        return torch.where(moves, difference, torch.full_like(difference, float("nan")))

    each = max(1, gradients.GRADIENT_BYTES // max(_SETS * 4 * sum(p.numel() for p in weights.trainable.values()), 1))
    climb = vmap(rise, in_dims=([0 if m else None for m in mapped],))
    for start in range(0, len(chosen), each):
        part = list(chosen[start : start + each])
        given = [leaf[part] if m else leaf for leaf, m in zip(leaves, mapped, strict=True)]
        with torch.no_grad():  # `grad` differentiates all the same; nothing outside of it needs a graph
            found[part] = climb(given).cpu()
    return found


def _has_samples(leaf: Any, size: int) -> bool:
    """Whether a leaf of a batch has the samples in its first dimension."""
    return isinstance(leaf, Tensor) and leaf.dim() > 0 and len(leaf) == size


def _cut(
    model: SampleModel, weights: Weights, batch: Any, size: int, position: int, expected: Tensor
) -> tuple[Any, int]:
    """Cut one sample out of a batch, or leave it in: what matters is that its loss stays what it is.

    Returns:
        A batch and the sample's position there.
    """
    leaves, again = flattened(batch)
    part = [leaf[position : position + 1] if _has_samples(leaf, size) else leaf for leaf in leaves]
    one = again(part)
    try:
        with torch.no_grad():
            loss = model.losses(weights.trainable, weights.fixed, one)
    except (RuntimeError, ValueError, TypeError, IndexError):  # the step takes no such batch
        return batch, position
    fits = loss.shape == (1,) and torch.allclose(loss[0], expected, rtol=1e-4, atol=1e-5, equal_nan=True)
    return (one, 0) if fits else (batch, position)


def _alone(model: SampleModel, weights: Weights, steps: int, reach: float, batch: Any, position: int) -> float:
    """Climb for one sample of a batch by plain backward passes, which take any model."""
    here = weights
    losses = []
    for step in range(steps + 1):
        leaves = {name: tensor.detach().requires_grad_() for name, tensor in here.trainable.items()}
        with torch.enable_grad():
            loss = model.losses(leaves, here.fixed, batch)[position]
        losses.append(float(loss.detach()))
        if step == steps:
            break
        length, gradient = _gradient(loss, leaves)
        if length == 0.0 and step == 0:
            return float("nan")
        if length > 0.0:
            here = here.moved(gradient, reach / length)
    return losses[-1] - losses[0]


def _gradient(loss: Tensor, leaves: Vector) -> tuple[float, Vector]:
    """Differentiate one sample's loss: the gradient and its norm, zero where nothing depends on the weights."""
    if not loss.requires_grad:
        return 0.0, {}
    parts = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True)
    gradient = {name: part for name, part in zip(leaves, parts, strict=True) if part is not None}
    return float(sum(part.double().square().sum() for part in gradient.values())) ** 0.5, gradient
