"""Small functions of logits in NumPy, and the minimiser that fits a few numbers to them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

Array = NDArray[np.float64]


def minimum(loss: Callable[[Array], tuple[float, Array]], start: Array, rounds: int = 60) -> Array:
    """Minimise a smooth function that returns its value and gradient (L-BFGS)."""
    theta = torch.tensor(start, dtype=torch.float64, requires_grad=True)
    solver = torch.optim.LBFGS([theta], max_iter=rounds, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        value, slope = loss(theta.detach().numpy())
        theta.grad = torch.from_numpy(np.asarray(slope, dtype=np.float64))
        return torch.tensor(value, dtype=torch.float64)

    solver.step(closure)
    return theta.detach().numpy().copy()


def normalised(values: Array) -> tuple[Array, Array]:
    """Softmax over the last dimension, and the logarithm of the sum of exponentials that it divides by."""
    most = values.max(axis=-1, keepdims=True)
    raised = np.exp(values - most)
    # A product with ones: rows of few classes are added up several times faster than by `sum`.
    total = (raised @ np.ones(raised.shape[-1]))[..., None]
    raised /= total
    return raised, (most + np.log(total))[..., 0]


def softmax(values: Array) -> Array:
    """Softmax over the last dimension."""
    return normalised(values)[0]


def log_sum(values: Array) -> Array:
    """Logarithm of the sum of exponentials over the last dimension."""
    most = values.max(axis=-1)
    total: Array = most + np.log(np.exp(values - most[..., None]) @ np.ones(values.shape[-1]))
    return total


def sigmoid(values: Array) -> Array:
    """The logistic function, without overflow."""
    found: Array = 0.5 * (1 + np.tanh(values / 2))
    return found
