"""Ways to the directional derivative of each sample's loss that need no gradient of a single sample.

``jvp``: forward-mode differentiation, exact. ``central``: two forward passes a tangent, any model. ``one_sided``: one
forward pass a tangent beyond the losses where it starts, with an error of first order in the step. The other ways go
through gradients: see :mod:`lightning_inf.model.capture` and :mod:`lightning_inf.model.gradients`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from lightning_inf.containers import mapped
from lightning_inf.model.forward_mode import pushed
from lightning_inf.model.sample_model import SampleModel
from lightning_inf.model.weights import Vector, Weights, norm


def forward_mode(model: SampleModel, weights: Weights, tangents: Sequence[Vector], batch: Any) -> Tensor:
    """Differentiate B samples' losses along T tangents by forward-mode differentiation.

    Args:
        model: The model.
        weights: Where.
        tangents: T vectors; a missing name is zero.
        batch: A batch of B samples.

    Returns:
        Derivatives of shape ``(B, T)``.
    """
    columns = []
    for tangent in tangents:
        full = {
            n: tangent[n].to(p.dtype) if n in tangent else torch.zeros_like(p) for n, p in weights.trainable.items()
        }
        columns.append(pushed(model, lambda p: model.losses(p, weights.fixed, batch), weights.trainable, full))
    return torch.stack(columns, dim=1)


def central(
    model: SampleModel,
    weights: Weights,
    tangents: Sequence[Vector],
    batch: Any,
    step: float = 1e-6,
    dtype: torch.dtype | None = None,
) -> Tensor:
    r"""Differentiate by central differences, :math:`(l_i(\theta + h v) - l_i(\theta - h v)) / 2h`.

    Args:
        model: The model.
        weights: Where.
        tangents: T vectors.
        batch: A batch of B samples.
        step: Length of ``h v`` in units of the norm of the parameters.
        dtype: Precision of the two passes, else that of the weights.

    Returns:
        Derivatives of shape ``(B, T)``.
    """
    if dtype is not None:
        weights = weights.to(dtype)
        batch = mapped(lambda leaf: leaf.to(dtype) if _is_float(leaf) else leaf, batch)
    reach = step * (weights.norm or 1.0)
    columns = []
    for tangent in tangents:
        length = norm(tangent)
        h = reach / length if length else 0.0
        sides = []
        for sign in (h, -h):
            moved = weights.moved({n: t.to(weights.trainable[n].dtype) for n, t in tangent.items()}, sign)
            # Detached from any graph, accumulated in fp64: the difference is far smaller than its terms.
            sides.append(model.losses(moved.trainable, moved.fixed, batch).double())
        columns.append((sides[0] - sides[1]) / (2 * h) if h else torch.zeros_like(sides[0]))
    return torch.stack(columns, dim=1)


def one_sided(
    model: SampleModel,
    weights: Weights,
    tangents: Sequence[Vector],
    batch: Any,
    step: float = 1e-5,
    losses: Tensor | None = None,
) -> Tensor:
    r"""Differentiate by forward differences, :math:`(l_i(\theta + h v) - l_i(\theta)) / h`.

    Args:
        model: The model.
        weights: Where.
        tangents: T vectors.
        batch: A batch of B samples.
        step: Length of ``h v`` in units of the norm of the parameters.
        losses: Of the batch at ``weights``, shape ``(B,)``, where they are known.

    Returns:
        Derivatives of shape ``(B, T)``.
    """
    before = (model.losses(weights.trainable, weights.fixed, batch) if losses is None else losses).double()
    reach = step * (weights.norm or 1.0)
    columns = []
    for tangent in tangents:
        length = norm(tangent)
        h = reach / length if length else 0.0
        moved = weights.moved({n: t.to(weights.trainable[n].dtype) for n, t in tangent.items()}, h)
        after = model.losses(moved.trainable, moved.fixed, batch).double() if h else before
        columns.append((after - before) / (h or 1.0))
    return torch.stack(columns, dim=1)


def _is_float(leaf: Any) -> bool:
    return isinstance(leaf, Tensor) and leaf.is_floating_point()


#: Signature shared by the ways to take a derivative.
Derivative = Callable[[SampleModel, Weights, Sequence[Vector], Any], Tensor]
