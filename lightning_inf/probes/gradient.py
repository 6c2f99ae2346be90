"""The gradient of the references' mean loss."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from lightning_inf.checkpoints.checkpoint import Checkpoint
from lightning_inf.data.references import Target
from lightning_inf.files import digest
from lightning_inf.model.output import Output
from lightning_inf.model.weights import Vector, Weights, norm
from lightning_inf.probes.optimizer import Optimizer, factors, state_key
from lightning_inf.probes.scene import Scene, Unavailable


@dataclass(frozen=True)
class Gradient:
    r"""The gradient :math:`\nabla L(\theta, D_{ref})`, as the optimiser would take it if asked to.

    .. math:: v = \eta \odot \hat g, \qquad g = P \, \nabla L(\theta, D_{ref}), \qquad
        \hat g = g \text{ or } g / \lVert g \rVert

    Attributes:
        checkpoint: Where it is taken.
        target: The references.
        learning_rate: :math:`\eta` by parameter name; a parameter without one was not trained and gets zero. None: the
            plain gradient.
        output: What is differentiated: the mean loss, or minus the mean margin.
        optimizer: P: see :mod:`lightning_inf.probes.optimizer`.
        unit: Divide by the length, before the learning rates.
    """

    checkpoint: Checkpoint
    target: Target
    learning_rate: dict[str, float] | None = None
    output: Output = "loss"
    optimizer: Optimizer = "sgd"
    unit: bool = False

    @cached_property
    def key(self) -> str:
        """Hash of all that the vector depends on."""
        state = None if self.optimizer == "sgd" else state_key(self.checkpoint)
        where = (self.checkpoint.key, self.target.key, self.output)
        return digest("gradient", *where, self.learning_rate, self.optimizer, state, self.unit)

    def visits(self, samples: int) -> int:
        """How many samples' gradients it takes, for the estimate of its cost."""
        return len(self.target.indices)

    def make(self, scene: Scene) -> Vector:
        """Compute the vector.

        Raises:
            Unavailable: If the gradient vanishes or is not finite.
        """
        weights = scene.weights(self.checkpoint)
        vector, _ = mean_gradient(scene, weights, self.target, self.output)
        require_direction(vector)
        vector = _times(vector, factors(self.checkpoint, self.optimizer, vector))
        if self.unit:
            vector = _times(vector, dict.fromkeys(vector, 1 / require_direction(vector)))
        return vector if self.learning_rate is None else _times(vector, self.learning_rate)


def mean_gradient(scene: Scene, weights: Weights, target: Target, output: Output) -> tuple[Vector, float]:
    """Compute the gradient of a target's mean loss, or of minus its mean margin, and the mean itself."""
    return replace(scene, model=scene.model.giving(output)).gradient(weights, target)


def _times(vector: Vector, scale: Mapping[str, Any]) -> Vector:
    """Multiply each parameter's part; one without a scale gets zero."""
    moved = {n: s.to(vector[n]) if isinstance(s, Tensor) else s for n, s in scale.items() if n in vector}
    return {name: tensor * moved.get(name, 0.0) for name, tensor in vector.items()}


def require_direction(gradient: Vector) -> float:
    """Return a gradient's norm, or raise :class:`Unavailable` where it gives no direction."""
    if not all(bool(torch.isfinite(tensor).all()) for tensor in gradient.values()):
        raise Unavailable("the reference's gradient is not finite")
    if (length := norm(gradient)) == 0.0:
        raise Unavailable("the reference's gradient vanishes: the model is certain of it, so no direction can be asked")
    return length
