"""Products with the generalised Gauss-Newton matrix of the training loss, without ever forming it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_inf.data.batches import out_of_memory
from lightning_inf.model.forward_mode import pushed
from lightning_inf.model.losses import LossCall
from lightning_inf.model.weights import Vector
from lightning_inf.probes.curvature import Curvature
from lightning_inf.probes.scene import Unavailable

#: Loss functions that are convex in what they are called with, so that the matrix has no negative eigenvalue.
CONVEX = ("cross_entropy", "nll_loss", "binary_cross_entropy_with_logits", "mse_loss", "huber_loss", "smooth_l1_loss")

#: Directions of the estimated trace.
_PROBES = 8


@dataclass
class GaussNewton:
    r"""The generalised Gauss-Newton matrix (GGN; Schraudolph, Neural Computation 2002) of the mean training loss.

    .. math:: G = \frac{1}{n} \sum_i J_i^\top \, \nabla_z^2 \ell(z_i, y_i) \, J_i, \qquad
        J_i = \frac{\partial z_i}{\partial \theta}

    z is what the one loss function of the step is called with. G is the Hessian where z is linear in the parameters, has
    no negative eigenvalue, and for cross-entropy and squared errors is the Fisher information matrix. Vectors are flat
    and in fp64; a product is computed in the precision of the weights and summed over batches in fp64.

    Attributes:
        curvature: Where, and over which samples.

    Raises:
        Unavailable: If the losses of the samples don't come from one call of a convex loss function.
    """

    curvature: Curvature
    _lists: list[list[int]] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._lists = self.curvature.training.lists(self.curvature.subset)
        require_one_call(self.curvature, self.curvature.training.batch(self._lists[0]))

    @property
    def batches(self) -> int:
        """How many batches the samples make."""
        return len(self._lists)

    def product(self, vector: Tensor, batches: Sequence[int] | None = None) -> Tensor:
        """Multiply a vector.

        Args:
            vector: Flat, fp64.
            batches: Numbers of the batches that stand for all; None: every one. Drawn at random, they give a product
                that is right on average.

        Returns:
            ``G @ vector``, flat, fp64.
        """
        direction, total = self.unflat(vector), torch.zeros_like(vector)
        chosen = range(self.batches) if batches is None else batches
        for number in chosen:
            total += self.flat(self._of_batch(self.curvature.training.batch(self._lists[number]), direction))
        return total * (self.batches / len(chosen) / self.curvature.samples)

    def mean_eigenvalue(self) -> float:
        """Estimate the trace over the number of parameters by seeded random signs (Hutchinson 1989)."""
        generator = torch.Generator().manual_seed(0)
        total = 0.0
        size = sum(tensor.numel() for tensor in self.curvature.weights.trainable.values())
        for _ in range(_PROBES):
            signs = (torch.randint(0, 2, (size,), generator=generator) * 2 - 1).double().to(self._device)
            total += float(signs @ self.product(signs))
        return total / (_PROBES * size)

    def largest_eigenvalue(self, iterations: int = 30, tolerance: float = 1e-3) -> float:
        """Find the largest eigenvalue by power iteration from a seeded vector; from below, to about ``tolerance``."""
        size = sum(tensor.numel() for tensor in self.curvature.weights.trainable.values())
        vector = torch.randn(size, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(self._device)
        vector /= vector.norm()
        found = 0.0
        for _ in range(iterations):
            product = self.product(vector)
            before, found = found, float(product.norm())
            if found == 0.0 or abs(found - before) <= tolerance * found:
                break
            vector = product / found
        return found

    def flat(self, vector: Vector) -> Tensor:
        """Lay a vector out in the order of the parameters, in fp64; a missing name is zero."""
        trainable = self.curvature.weights.trainable
        return torch.cat(
            [vector.get(n, torch.zeros_like(p)).detach().reshape(-1).double() for n, p in trainable.items()]
        )

    def unflat(self, vector: Tensor) -> Vector:
        """Undo :meth:`flat`, in the precision of the weights."""
        trainable = self.curvature.weights.trainable
        parts = vector.split([p.numel() for p in trainable.values()])
        return {n: v.reshape(p.shape).to(p.dtype) for (n, p), v in zip(trainable.items(), parts, strict=True)}

    @property
    def _device(self) -> torch.device:
        return next(iter(self.curvature.weights.trainable.values())).device

    def _of_batch(self, batch: Any, direction: Vector) -> Vector:
        """Sum over a batch's samples: J v forward, then the loss's Hessian, then J^T backward."""
        model, weights = self.curvature.model, self.curvature.weights

        def prediction(trainable: Vector) -> Tensor:
            return model.trace(trainable, weights.fixed, batch).calls[0].input

        with torch.no_grad():
            try:
                moves = pushed(model, prediction, weights.trainable, direction)
            except (NotImplementedError, RuntimeError) as error:
                if out_of_memory(error):
                    raise  # a smaller batch will do
                first = str(error).strip().splitlines()[0]
                raise Unavailable(
                    "the model has no forward-mode derivative, which products with the Gauss-Newton matrix need:"
                    f" {first}; use solver EKFAC or DiagonalFisher"
                ) from error
        leaves = {name: tensor.detach().requires_grad_() for name, tensor in weights.trainable.items()}
        with torch.enable_grad():
            call = model.trace(leaves, weights.fixed, batch).calls[0]
        if not call.input.requires_grad:
            return {}
        curved = _curved(call, moves.detach())
        back = torch.autograd.grad(call.input, list(leaves.values()), curved, allow_unused=True)
        return {name: tensor for name, tensor in zip(leaves, back, strict=True) if tensor is not None}


def require_one_call(curvature: Curvature, batch: Any, among: Sequence[str] = CONVEX) -> LossCall:
    """Return the loss call whose losses are those of the samples.

    Raises:
        Unavailable: If there is none, or several, or it is none of ``among``.
    """
    model, weights = curvature.model, curvature.weights
    with torch.no_grad():
        calls = model.trace(weights.trainable, weights.fixed, batch).calls
        losses = model.losses(weights.trainable, weights.fixed, batch)
    if len(calls) != 1:
        raise Unavailable(
            f"the Gauss-Newton matrix needs exactly one call of a loss of torch.nn.functional in {model.loss_name},"
            f" found {len(calls)}; use solver DiagonalFisher, which needs the losses alone"
        )
    (call,) = calls
    if call.name not in among:
        raise Unavailable(f"expected a loss function among {', '.join(among)}, found {call.name}; use DiagonalFisher")
    again = _losses_of(call, call.input)
    if again.shape != losses.shape or not torch.allclose(again, losses, rtol=1e-4, atol=1e-6, equal_nan=True):
        raise Unavailable(
            f"the losses of the samples are not those of the one {call.name} in {model.loss_name}: something is added to"
            " it or multiplied with it; use solver DiagonalFisher, which needs the losses alone"
        )
    return call


def _curved(call: LossCall, moves: Tensor) -> Tensor:
    """Multiply by the Hessian of the samples' losses, backward twice: not every loss has a second derivative forward."""
    point = call.input.detach().requires_grad_()
    with torch.enable_grad():
        (slope,) = torch.autograd.grad(_losses_of(call, point).sum(), point, create_graph=True)
    return torch.autograd.grad(slope, point, moves)[0]


def _losses_of(call: LossCall, prediction: Tensor) -> Tensor:
    """The samples' losses as a function of what the loss was called with.

    ``nll_loss`` is linear in log-probabilities; their normalisation, which changes nothing in their values, holds the
    curvature that cross-entropy has.
    """
    return call.losses_of(F.log_softmax(prediction, dim=1) if call.name == "nll_loss" else prediction)
