"""K steps of gradient ascent on the references: Algorithm 1 of Ko et al. (CVPR 2024), and its normalised forms."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, TypeAlias

import torch

from lightning_inf.checkpoints.checkpoint import Checkpoint
from lightning_inf.data.references import Target
from lightning_inf.files import digest
from lightning_inf.model.output import Output
from lightning_inf.model.weights import Vector, norm
from lightning_inf.probes.curvature import Preconditioner
from lightning_inf.probes.gradient import mean_gradient, require_direction
from lightning_inf.probes.scene import Scene, Unavailable

#: How often a step that leaves finite numbers is halved before the ascent is given up.
RETRIES = 5

#: The kinds of steps.
Step: TypeAlias = Literal["normalized", "plain", "per_layer", "sign"]


@dataclass(frozen=True)
class Ascent:
    r"""The displacement :math:`\theta_K - \theta` after K steps that *raise* the references' mean loss.

    ``plain``: :math:`\theta_{k+1} = \theta_k + \alpha \nabla L(\theta_k, D_{ref})`, the paper's Algorithm 1.
    ``normalized``: :math:`\theta_{k+1} = \theta_k + \rho \lVert\theta\rVert \nabla L / \lVert\nabla L\rVert`, whose
    length doesn't depend on how well the model already knows the references.
    ``per_layer``: :math:`\theta_{k+1,p} = \theta_{k,p} + \rho \lVert\theta_p\rVert \nabla_p L / \lVert\nabla_p L\rVert`
    for each tensor p, so that no layer is left out because its gradients are small. Norms are those at the start; a
    tensor that is zero stays where it is.
    ``sign``: :math:`\theta_{k+1} = \theta_k + \alpha \, \mathrm{sign}(\nabla L)`, the first step of Adam, which the
    authors' code takes.

    With ``direction="descent"`` every step has the other sign, and *lowers* the loss. The target may as well be training
    samples.

    Attributes:
        checkpoint: Where it starts.
        target: The references, or training samples.
        steps: K, at least 1.
        step: The kind of step.
        size: ``alpha`` of a plain or sign step; ``radius`` of the others, in units of the norm of the parameters.
        output: What is raised: the mean loss, or minus the mean margin.
        direction: Up, or down.
        preconditioner: Undoes the curvature of the training loss in every gradient; that of the start, for all steps.
    """

    checkpoint: Checkpoint
    target: Target
    steps: int
    step: Step
    size: float
    output: Output = "loss"
    direction: Literal["ascent", "descent"] = "ascent"
    preconditioner: Preconditioner | None = None

    @cached_property
    def key(self) -> str:
        """Hash of all that the vector depends on."""
        where = (self.checkpoint.key, self.target.key, self.output)
        undone = self.preconditioner.key if self.preconditioner is not None else None
        return digest("ascent", *where, self.steps, self.step, self.size, self.direction, undone)

    def visits(self, samples: int) -> int:
        """How many samples' gradients it takes, of so many training samples; for the estimate of its cost."""
        solved = self.preconditioner.visits(samples) if self.preconditioner is not None else 0
        return (len(self.target.indices) + solved) * self.steps

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
        lengths = {name: norm({name: tensor}) for name, tensor in start.trainable.items()}
        weights = start
        for done in range(self.steps):
            gradient, loss = mean_gradient(scene, weights, self.target, self.output)
            try:
                require_direction(gradient)
                if self.preconditioner is not None:
                    gradient = self.preconditioner.precondition(scene, self.checkpoint, gradient)
                move = self._move(gradient, lengths, size)
            except Unavailable:
                if done == 0:
                    raise  # at the checkpoint itself: no smaller step will help
                return None
            if not math.isfinite(loss):
                return None
            weights = weights.moved(move, 1.0 if self.direction == "ascent" else -1.0)
        if not weights.finite:
            return None
        if not math.isfinite(mean_gradient(scene, weights, self.target, self.output)[1]):
            return None
        return {name: weights.trainable[name] - start.trainable[name] for name in start.trainable}

    def _move(self, gradient: Vector, lengths: dict[str, float], size: float) -> Vector:
        """Turn a gradient into one step upwards; ``lengths`` are the norms of the parameters by name."""
        length = require_direction(gradient)
        if self.step == "sign":
            return {name: size * torch.sign(tensor) for name, tensor in gradient.items()}
        if self.step == "plain":
            return {name: size * tensor for name, tensor in gradient.items()}
        if self.step == "normalized":
            whole = math.hypot(*lengths.values())
            return {name: size * whole / length * tensor for name, tensor in gradient.items()}
        own = {name: norm({name: tensor}) for name, tensor in gradient.items()}
        move = {name: size * lengths[name] / own[name] * t for name, t in gradient.items() if own[name] > 0}
        if not any(lengths[name] for name in move):
            raise Unavailable("every tensor with a gradient is zero, so a per_layer step has no length")
        return move
