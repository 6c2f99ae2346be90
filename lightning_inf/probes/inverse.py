"""Where the weights would go without the references: H^-1 g / n."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch

from lightning_inf.checkpoints.checkpoint import Checkpoint
from lightning_inf.data.references import Target
from lightning_inf.files import digest
from lightning_inf.model.weights import Vector, norm
from lightning_inf.probes.curvature import Preconditioner
from lightning_inf.probes.gradient import require_direction
from lightning_inf.probes.scene import Scene, Unavailable


@dataclass(frozen=True)
class InverseGradient:
    r"""The direction :math:`\frac{1}{n} (H + \lambda)^{-1} \nabla L(\theta, D_{ref})` (Eq. 3-6 of Ko et al.).

    To first order it is how far the weights would move if a reference with this gradient were taken out of n training
    samples; by the symmetry of H, the derivative of a training sample's loss along it is the influence function of that
    sample on the references.

    Attributes:
        checkpoint: Where gradient and curvature are taken.
        target: The references.
        preconditioner: How the curvature is undone.
    """

    checkpoint: Checkpoint
    target: Target
    preconditioner: Preconditioner

    @cached_property
    def key(self) -> str:
        """Hash of all that the vector depends on."""
        return digest("inverse", self.checkpoint.key, self.target.key, self.preconditioner.key)

    def visits(self, samples: int) -> int:
        """How many samples' gradients it takes, of so many training samples; for the estimate of its cost."""
        return len(self.target.indices) + self.preconditioner.visits(samples)

    def make(self, scene: Scene) -> Vector:
        """Compute the vector.

        Raises:
            Unavailable: If the gradient vanishes, or the curvature can't be had or undone.
        """
        gradient, _ = scene.gradient(scene.weights(self.checkpoint), self.target)
        require_direction(gradient)
        solved = self.preconditioner.precondition(scene, self.checkpoint, gradient)
        if not all(bool(torch.isfinite(tensor).all()) for tensor in solved.values()) or norm(solved) == 0.0:
            raise Unavailable("H^-1 g is not finite or vanishes; use a larger damping")
        assert scene.training is not None  # or there would be no curvature
        samples = len(scene.training)
        return {name: tensor / samples for name, tensor in solved.items()}
