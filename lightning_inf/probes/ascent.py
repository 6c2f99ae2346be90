"""K steps of gradient ascent on the references: Algorithm 1 of Ko et al. (CVPR 2024), and its normalised form."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from lightning_inf.checkpoints.checkpoint import Checkpoint
from lightning_inf.data.references import Target
from lightning_inf.files import digest
from lightning_inf.model.weights import Vector
from lightning_inf.probes.gradient import require_direction
from lightning_inf.probes.scene import Scene, Unavailable

#: How often a step that leaves finite numbers is halved before the ascent is given up.
RETRIES = 5


@dataclass(frozen=True)
class Ascent:
    r"""The displacement :math:`\theta_K - \theta` after K steps that *raise* the references' mean loss.

    ``plain``: :math:`\theta_{k+1} = \theta_k + \alpha \nabla L(\theta_k, D_{ref})`, the paper's Algorithm 1.
    ``normalized``: :math:`\theta_{k+1} = \theta_k + \rho \lVert\theta\rVert \nabla L / \lVert\nabla L\rVert`, whose
    length doesn't depend on how well the model already knows the references.

    Attributes:
        checkpoint: Where it starts.
        target: The references.
        steps: K, at least 1.
        step: The kind of step.
        size: ``alpha`` of a plain step; ``radius`` of a normalised one, in units of the norm of the parameters.
    """

    checkpoint: Checkpoint
    target: Target
    steps: int
    step: Literal["normalized", "plain"]
    size: float

    @cached_property
    def key(self) -> str:
        """Hash of all that the vector depends on."""
        return digest("ascent", self.checkpoint.key, self.target.key, self.steps, self.step, self.size)

    def make(self, scene: Scene) -> Vector:
        """Climb; halve the step where the loss or a gradient leaves finite numbers.

        Raises:
            Unavailable: If the first gradient vanishes, or no step of :data:`RETRIES` halvings stays finite.
        """
        size = self.size
        for _ in range(RETRIES + 1):
            displacement = self._climb(scene, size)
            if displacement is not None:
                return displacement
            size /= 2
        raise Unavailable(f"the ascent left finite numbers at every step size from {self.size:g} down to {size * 2:g}")

    def _climb(self, scene: Scene, size: float) -> Vector | None:
        """Take the steps; None where numbers stop being finite on the way."""
        start = scene.weights(self.checkpoint)
        radius = size * start.norm
        weights = start
        for done in range(self.steps):
            gradient, loss = scene.gradient(weights, self.target.indices)
            try:
                length = require_direction(gradient)
            except Unavailable:
                if done == 0:
                    raise  # at the checkpoint itself: no smaller step will help
                return None
            if not math.isfinite(loss):
                return None
            weights = weights.moved(gradient, size if self.step == "plain" else radius / length)
        if not weights.finite or not math.isfinite(scene.gradient(weights, self.target.indices)[1]):
            return None
        return {name: weights.trainable[name] - start.trainable[name] for name in start.trainable}
