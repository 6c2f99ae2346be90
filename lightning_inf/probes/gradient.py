"""The gradient of the references' mean loss."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch

from lightning_inf.checkpoints.checkpoint import Checkpoint
from lightning_inf.data.references import Target
from lightning_inf.files import digest
from lightning_inf.model.weights import Vector, norm
from lightning_inf.probes.scene import Scene, Unavailable


@dataclass(frozen=True)
class Gradient:
    r"""The gradient :math:`\nabla L(\theta, D_{ref})`, optionally times the learning rate of each parameter.

    Attributes:
        checkpoint: Where it is taken.
        target: The references.
        learning_rate: By parameter name; a parameter without one was not trained and gets zero. None: the plain
            gradient.
    """

    checkpoint: Checkpoint
    target: Target
    learning_rate: dict[str, float] | None = None

    @cached_property
    def key(self) -> str:
        """Hash of all that the vector depends on."""
        return digest("gradient", self.checkpoint.key, self.target.key, self.learning_rate)

    def make(self, scene: Scene) -> Vector:
        """Compute the vector.

        Raises:
            Unavailable: If the gradient vanishes or is not finite.
        """
        gradient, _ = scene.gradient(scene.weights(self.checkpoint), self.target.indices)
        require_direction(gradient)
        if self.learning_rate is None:
            return gradient
        return {name: tensor * self.learning_rate.get(name, 0.0) for name, tensor in gradient.items()}


def require_direction(gradient: Vector) -> float:
    """Return a gradient's norm, or raise :class:`Unavailable` where it gives no direction."""
    if not all(bool(torch.isfinite(tensor).all()) for tensor in gradient.values()):
        raise Unavailable("the reference's gradient is not finite")
    if (length := norm(gradient)) == 0.0:
        raise Unavailable("the reference's gradient vanishes: the model is certain of it, so no direction can be asked")
    return length
