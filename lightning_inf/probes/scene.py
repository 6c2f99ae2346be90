"""What a probe works with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from lightning_inf.checkpoints.checkpoint import Checkpoint
from lightning_inf.data.references import References
from lightning_inf.model.sample_model import SampleModel
from lightning_inf.model.weights import Vector, Weights


class Unavailable(Exception):
    """A vector that can't be made; the message is the reason that the report gives."""


@dataclass
class Scene:
    """The model, its checkpoints and the references.

    Attributes:
        model: The model as a function.
        references: The held-out samples.
        weights: Loads the weights of a checkpoint.
    """

    model: SampleModel
    references: References
    weights: Callable[[Checkpoint], Weights]

    def gradient(self, weights: Weights, indices: Sequence[int]) -> tuple[Vector, float]:
        """Compute the gradient of the mean loss of some references, and that loss.

        Args:
            weights: Where.
            indices: Which references.

        Returns:
            The gradient by parameter name, zero where the loss doesn't depend on a parameter, and the mean loss.
        """
        leaves = {name: tensor.detach().requires_grad_() for name, tensor in weights.trainable.items()}
        total = {name: torch.zeros_like(tensor) for name, tensor in weights.trainable.items()}
        loss_sum = 0.0
        with torch.enable_grad():
            for _, batch in self.references.batches(indices):
                loss = self.model.losses(leaves, weights.fixed, batch).sum()
                for name, grad in zip(leaves, _grad(loss, list(leaves.values())), strict=True):
                    if grad is not None:
                        total[name] += grad
                loss_sum += float(loss.detach())
        count = len(indices)
        return {name: tensor / count for name, tensor in total.items()}, loss_sum / count


def _grad(loss: torch.Tensor, leaves: list[torch.Tensor]) -> tuple[torch.Tensor | None, ...]:
    """Differentiate; a loss that depends on no parameter has no gradient, which is not an error here."""
    if not loss.requires_grad:
        return (None,) * len(leaves)
    return torch.autograd.grad(loss, leaves, allow_unused=True)
