"""What a solver is, and what it has to work with: the curvature of the training loss at one checkpoint."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

from lightning_inf.checkpoints.checkpoint import Checkpoint
from lightning_inf.data.training import TrainingBatches
from lightning_inf.files import digest
from lightning_inf.model.sample_model import SampleModel, device_of
from lightning_inf.model.weights import Vector, Weights
from lightning_inf.probes.scene import Scene, Unavailable

#: How many training samples the curvature is taken over unless the user says otherwise.
SUBSET = 5000

#: Without a damping of the user's, it is this part of the mean eigenvalue: kronfluence's rule for ``damping=None``.
RELATIVE_DAMPING = 0.1

#: What a solver takes over the training samples: tensors, numbers, strings, and lists and dicts of them, by name.
Statistics: TypeAlias = dict[str, Any]

#: Turns a vector g into (H + damping)^-1 g.
Inverse: TypeAlias = Callable[[Vector], Vector]


@dataclass
class Curvature:
    """The curvature of the mean training loss over a seeded part of the training samples.

    Attributes:
        model: The model as a function.
        weights: Where the curvature is taken.
        training: The training samples.
        damping: Added to every eigenvalue; None: a tenth of their mean.
        subset: How many training samples it is taken over.
    """

    model: SampleModel
    weights: Weights
    training: TrainingBatches
    damping: float | None = None
    subset: int = SUBSET

    @property
    def samples(self) -> int:
        """How many samples it is taken over."""
        return min(self.subset, len(self.training))

    def batches(self) -> Iterator[tuple[list[int], Any]]:
        """Yield ``(indices, batch on the device)`` of the part."""
        return self.training.batches(self.subset)

    def damped(self, mean_eigenvalue: float) -> float:
        """Return the damping.

        Raises:
            Unavailable: If it would be zero because the curvature is.
        """
        damping = RELATIVE_DAMPING * mean_eigenvalue if self.damping is None else self.damping
        if not damping > 0:
            raise Unavailable(
                "the training loss has no curvature at the checkpoint, so there is nothing to damp by; give damping=..."
            )
        return damping


class Solver(ABC):
    """A way to (H + damping)^-1 g. A new one is a subclass in a file of its own; YAML names it by ``class_path``."""

    @property
    def key(self) -> str:
        """Hash of the kind and its arguments."""
        return digest(type(self).__qualname__, {name: value for name, value in vars(self).items() if name[0] != "_"})

    def visits(self, samples: int) -> int:
        """How many samples' gradients one solution over so many takes, at most; for the estimate of its cost."""
        return samples

    def statistics(self, curvature: Curvature) -> Statistics:
        """Take over the training samples what depends neither on the vector nor on the size of a damping that is given.

        It is kept in the run directory, so that an analysis of other references at the same checkpoint need not take it
        again. A solver that keeps nothing has no statistics.

        Args:
            curvature: Where, and over which samples.

        Raises:
            Unavailable: If the curvature can't be had of this model.
        """
        return {}

    @abstractmethod
    def prepare(self, curvature: Curvature, statistics: Statistics) -> Inverse:
        """Make the function that solves for a vector.

        Args:
            curvature: Where, over which samples, and with which damping.
            statistics: Its own, taken now or by an earlier analysis.

        Returns:
            The function that solves for a vector.

        Raises:
            Unavailable: If the curvature can't be undone.
        """


@dataclass(frozen=True)
class Preconditioner:
    r"""Multiplies vectors by :math:`(H + \lambda)^{-1}`, H being the curvature of the training loss at a checkpoint.

    The part of the training samples is seeded with the run's seed; both are in the run's hash, so not in the key.

    Attributes:
        solver: How.
        damping: :math:`\lambda`; None: a tenth of the mean eigenvalue of H (of each layer's where a solver has those).
        subset: How many training samples H is taken over.

    Raises:
        ValueError: If a number is out of range.
    """

    solver: Solver
    damping: float | None = None
    subset: int = SUBSET

    def __post_init__(self) -> None:
        if self.damping is not None and not self.damping > 0:
            raise ValueError(
                f"damping={self.damping}: expected a number above 0, or null for a tenth of the mean eigenvalue; without"
                " damping the curvature of a neural network has no inverse."
            )
        if self.subset < 1:
            raise ValueError(f"subset={self.subset}: expected 1 training sample or more.")

    @cached_property
    def key(self) -> str:
        """Hash of all that it depends on besides the checkpoint and the training data."""
        return digest("preconditioner", self.solver.key, self.damping, self.subset)

    def visits(self, samples: int) -> int:
        """How many samples' gradients one solution takes, at most, of so many training samples."""
        return self.solver.visits(min(self.subset, samples))

    def precondition(self, scene: Scene, checkpoint: Checkpoint, vector: Vector) -> Vector:
        """Solve for a vector; what doesn't depend on it is computed once a checkpoint.

        Args:
            scene: Model, weights and training samples.
            checkpoint: Where the curvature is taken.
            vector: By parameter name; a missing name is zero.

        Returns:
            The solution by the name of every trainable parameter.

        Raises:
            Unavailable: If it can't be solved; the message says why.
        """
        solve: Inverse = scene.remember(digest(self.key, checkpoint.key), lambda: self._prepare(scene, checkpoint))
        return solve(vector)

    def _prepare(self, scene: Scene, checkpoint: Checkpoint) -> Inverse:
        if scene.training is None:
            raise Unavailable("there are no training samples to take the curvature over")
        # One draw a sample: the curvature is a mean over samples and draws alike, so more samples serve it better.
        model = scene.model.drawing(1)
        curvature = Curvature(model, scene.weights(checkpoint), scene.training, self.damping, self.subset)
        # Whether there is a damping decides what has to be taken; how large it is comes in afterwards.
        key = digest("curvature", self.solver.key, self.subset, self.damping is None, checkpoint.key)
        statistics = scene.keep(key, lambda: self.solver.statistics(curvature), device_of(curvature.weights))
        return self.solver.prepare(curvature, statistics)
