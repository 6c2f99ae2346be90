"""What a method may ask of every training sample."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, Protocol, TypeAlias

from lightning_inf.checkpoints.checkpoint import Checkpoint
from lightning_inf.files import digest
from lightning_inf.model.output import Output


class Direction(Protocol):
    """A vector in parameter space that somebody makes before a pass starts."""

    @property
    def key(self) -> str:
        """Hash of all that the vector depends on."""
        ...


@dataclass(frozen=True)
class LossAt:
    """The loss of each sample at a checkpoint, optionally displaced. Column ``loss``.

    With the output ``margin`` the column holds *minus* the log-odds of the given label: what stands in the place of
    the loss (see :meth:`~lightning_inf.model.sample_model.SampleModel.giving`).
    """

    checkpoint: Checkpoint
    moved: Direction | None = None
    output: Output = "loss"

    @cached_property
    def key(self) -> str:
        """Identity: equal measurements are made once."""
        return digest("loss", self.checkpoint.key, self.moved.key if self.moved else None, self.output)


@dataclass(frozen=True)
class OutputsAt:
    """What the model says of each sample.

    Columns ``loss``; for single-label classifiers also ``label`` (-1 where ignored), ``probability`` of it, ``margin``
    (its log-odds, z_y - logsumexp of the others), ``gap`` (z_y - largest other logit), and ``probabilities`` of shape
    ``(n, C)``, or the 16 largest as ``top`` and ``top_label`` where there are more than 64 classes. For regressions of one
    number a sample also ``prediction`` and ``target``.
    """

    checkpoint: Checkpoint
    moved = None
    output: ClassVar[Output] = "loss"

    @cached_property
    def key(self) -> str:
        """Identity: equal measurements are made once."""
        return digest("outputs", self.checkpoint.key)


@dataclass(frozen=True)
class DerivativeAt:
    """The directional derivative of each sample's loss, or minus its margin, along a tangent. Column ``derivative``."""

    checkpoint: Checkpoint
    tangent: Direction
    output: Output = "loss"
    moved = None

    @cached_property
    def key(self) -> str:
        """Identity: equal measurements are made once."""
        return digest("derivative", self.checkpoint.key, self.tangent.key, self.output)


@dataclass(frozen=True)
class GradientNormAt:
    """The squared norm of each sample's gradient, each parameter's part times its scale. Column ``squared_norm``."""

    checkpoint: Checkpoint
    scale: dict[str, float] | None = None
    output: Output = "loss"
    moved = None

    @cached_property
    def key(self) -> str:
        """Identity: equal measurements are made once."""
        return digest("squared_norm", self.checkpoint.key, self.scale, self.output)


@dataclass(frozen=True)
class RenormalizedAt:
    r"""The derivative along a tangent with each draw's gradient at length 1. Column ``renormalized``.

    .. math:: \frac{1}{D} \sum_k \langle \nabla \ell_{ik}, v \rangle / \lVert \nabla \ell_{ik} \rVert

    :math:`\ell_{ik}` is the sample's loss under the k-th draw of random numbers, in a diffusion model at the k-th
    timestep. A draw whose gradient vanishes adds nothing; NaN where all of them do.
    """

    checkpoint: Checkpoint
    tangent: Direction
    output: Output = "loss"
    moved = None

    @cached_property
    def key(self) -> str:
        """Identity: equal measurements are made once."""
        return digest("renormalized", self.checkpoint.key, self.tangent.key, self.output)


@dataclass(frozen=True)
class SelfAscentAt:
    r"""How each sample's loss answers to K steps of ascent on itself. Column ``rise``.

    The column is :math:`\ell_i(\theta_K^{(i)}) - \ell_i(\theta)`; NaN where the sample's gradient vanishes, and for
    samples that are not asked.

    Attributes:
        checkpoint: Where every sample starts.
        steps: K.
        radius: Length of a step in units of the norm of the parameters.
        output: What is raised and differenced.
        samples: The training samples that are asked, ascending; None for all.
    """

    checkpoint: Checkpoint
    steps: int
    radius: float
    output: Output = "loss"
    samples: tuple[int, ...] | None = None
    moved = None

    @cached_property
    def key(self) -> str:
        """Identity: equal measurements are made once."""
        return digest("self_ascent", self.checkpoint.key, self.steps, self.radius, self.output, self.samples)


@dataclass(frozen=True)
class BeliefsAt:
    """What other training samples say of each sample's label, by their features at a checkpoint.

    Columns ``linear``, the classes read out of the features by a ridge regression that the sample was left out of, and
    ``votes``, the shares of its nearest neighbours' labels; both of shape ``(n, C)``, fp16. They never look at the
    sample's own label, though features that were trained on it do. Beside the answers stands what the same sources
    say of the references (see :meth:`~lightning_inf.probes.neighbourhood.Neighbourhood.aside`).

    Attributes:
        checkpoint: Where the features are taken.
        neighbourhood: The samples that are asked.
    """

    checkpoint: Checkpoint
    neighbourhood: Direction
    output: ClassVar[Output] = "loss"
    moved = None

    @cached_property
    def key(self) -> str:
        """Identity: equal measurements are made once."""
        return digest("beliefs", self.checkpoint.key, self.neighbourhood.key)


@dataclass(frozen=True)
class PredictionAt:
    """The number that a regression predicts for each sample. Columns ``prediction`` and ``target``.

    Beside the answers stands what it predicts for the references
    (see :meth:`~lightning_inf.probes.held_out.HeldOutPredictions.aside`). Where the model is no regression of one number
    a sample, nothing is answered.

    Attributes:
        checkpoint: Under whose weights.
        held_out: The references.
    """

    checkpoint: Checkpoint
    held_out: Direction
    output: ClassVar[Output] = "loss"
    moved = None

    @cached_property
    def key(self) -> str:
        """Identity: equal measurements are made once."""
        return digest("prediction", self.checkpoint.key, self.held_out.key)


Measurement: TypeAlias = (
    "LossAt | OutputsAt | DerivativeAt | GradientNormAt | RenormalizedAt | SelfAscentAt | BeliefsAt | PredictionAt"
)


def directions(measurement: Measurement) -> list[Direction]:
    """Return what must be made before a measurement: vectors in weight space, a neighbourhood, or what references say."""
    found = [getattr(measurement, name, None) for name in ("moved", "tangent", "neighbourhood", "held_out")]
    return [direction for direction in found if direction is not None]
