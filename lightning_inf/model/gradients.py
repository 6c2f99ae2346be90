"""Single samples' gradients, materialised: by ``vmap(grad)`` in slices, or by a backward pass each, which takes any model.

:mod:`~lightning_inf.model.capture` gets along without where it knows the layers; it is checked by these.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.func import grad_and_value, vmap

from lightning_inf.containers import flattened
from lightning_inf.model.layers.use import row_products, row_squares
from lightning_inf.model.sample_model import SampleModel
from lightning_inf.model.weights import Vector, Weights

#: Bytes of per-sample gradients that are held at once.
GRADIENT_BYTES = 256 << 20


def per_sample_gradients(
    model: SampleModel, weights: Weights, batch: Any, size: int, vectorize: bool = True
) -> Iterator[tuple[Tensor, Vector]]:
    """Yield ``(losses (b,), gradients (b, *shape) by name)`` of consecutive slices of a batch of ``size`` samples.

    Args:
        model: The model.
        weights: Where.
        batch: The batch; with ``vectorize``, its tensors have the samples in their first dimension.
        size: B.
        vectorize: By ``vmap``; else by one backward pass a sample, which takes any model.
    """
    if not vectorize:
        yield from one_by_one(model, weights, batch, size)
        return
    each = max(1, min(size, GRADIENT_BYTES // max(4 * sum(p.numel() for p in weights.trainable.values()), 1)))
    leaves, mapped, loss = of_one(model, weights, batch, size)
    gradient = vmap(grad_and_value(loss), in_dims=(None, [0 if m else None for m in mapped]))
    for start in range(0, size, each):
        part = [leaf[start : start + each] if m else leaf for leaf, m in zip(leaves, mapped, strict=True)]
        grads, losses = gradient(weights.trainable, part)
        yield losses, grads


def of_one(
    model: SampleModel, weights: Weights, batch: Any, size: int, trunk: Sequence[Tensor] | None = None
) -> tuple[list[Any], list[bool], Callable[[Vector, list[Any]], Tensor]]:
    """Make the loss of one sample a function of the weights and of the sample's part of a batch and of its trunk.

    Args:
        model: The model.
        weights: Have the fixed tensors.
        batch: Of ``size`` samples.
        size: B.
        trunk: What the batch's runs share; None: what is shared at present and can be cut into samples.

    Returns:
        All samples' parts, which of them have the samples in their first dimension, and the function, for ``vmap``.
    """
    if trunk is None:
        check = partial(_cuts_well, model, weights, batch, size)
        trunk = model.trunk.cuts(weights.fixed, batch, size, check)
    inputs, again = flattened(batch)
    leaves = [*inputs, *trunk]
    mapped = [isinstance(leaf, Tensor) and leaf.dim() > 0 and len(leaf) == size for leaf in leaves]

    def loss(trainable: Vector, parts: list[Any]) -> Tensor:
        one = [part.unsqueeze(0) if m else part for part, m in zip(parts, mapped, strict=True)]
        with model.trunk.cut(one[len(inputs) :]):
            return model.losses(trainable, weights.fixed, again(one[: len(inputs)])).squeeze(0)

    return leaves, mapped, loss


def _cuts_well(model: SampleModel, weights: Weights, batch: Any, size: int, trunk: Sequence[Tensor]) -> bool:
    """Whether the losses of single samples, made from the batch's trunk, are those of the batch."""
    leaves, mapped, loss = of_one(model, weights, batch, size, trunk)
    with torch.no_grad():
        expected = model.losses(weights.trainable, weights.fixed, batch)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # "performance drop" of an operator without a rule
                found = vmap(loss, in_dims=(None, [0 if m else None for m in mapped]))(weights.trainable, leaves)
        except (RuntimeError, ValueError, TypeError, IndexError, NotImplementedError):
            return False  # whether `vmap` takes the step in full is found out by who asks for gradients
    return torch.allclose(found, expected, rtol=1e-4, atol=1e-5, equal_nan=True)


def one_by_one(model: SampleModel, weights: Weights, batch: Any, size: int) -> Iterator[tuple[Tensor, Vector]]:
    """Take each sample's gradient by a backward pass of its own."""
    params = {name: tensor.detach().requires_grad_() for name, tensor in weights.trainable.items()}
    with torch.enable_grad():  # not around the yields: a generator's context would leak to its caller
        losses = model.losses(params, weights.fixed, batch).unbind()
    for i in range(size):
        grads: Sequence[Tensor | None] = [None] * len(params)
        if losses[i].requires_grad:
            leaves = list(params.values())
            grads = torch.autograd.grad(losses[i], leaves, retain_graph=True, allow_unused=True)
        pairs = zip(params.items(), grads, strict=True)
        yield (
            losses[i].detach().unsqueeze(0),
            {n: (torch.zeros_like(p) if g is None else g)[None] for (n, p), g in pairs},
        )


def products(gradients: Vector, tangents: Sequence[Vector]) -> Tensor:
    """Multiply b per-sample gradients with T tangents: shape ``(b, T)``."""
    count = len(next(iter(gradients.values())))
    total = torch.zeros(count, len(tangents), dtype=torch.float64, device=next(iter(gradients.values())).device)
    for name, gradient in gradients.items():
        stack = [t[name].reshape(-1) if name in t else torch.zeros_like(gradient[0]).reshape(-1) for t in tangents]
        total += row_products(gradient.reshape(count, -1), torch.stack(stack)).double()
    return total


def squared_norms(gradients: Vector, scale: Mapping[str, float] | None) -> Tensor:
    """Sum ``scale`` times the squared norm of b per-sample gradients over the parameters: shape ``(b,)``."""
    parts = [
        (1.0 if scale is None else scale.get(name, 0.0)) * row_squares(gradient.reshape(len(gradient), -1))
        for name, gradient in gradients.items()
    ]
    return torch.stack(parts).sum(dim=0)


def exact(model: SampleModel, weights: Weights, tangents: Sequence[Vector], batch: Any, count: int) -> Tensor:
    """Derivatives of a batch's first ``count`` samples by one backward pass each: what the others are checked by."""
    rows = []
    for _, gradient in one_by_one(model, weights, batch, count):
        rows.append(products(gradient, tangents))
    return torch.cat(rows)
