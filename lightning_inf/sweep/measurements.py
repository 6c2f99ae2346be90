"""What a method may ask of every training sample."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Protocol, TypeAlias

from lightning_inf.checkpoints.checkpoint import Checkpoint
from lightning_inf.files import digest


class Direction(Protocol):
    """A vector in parameter space that somebody makes before a pass starts."""

    @property
    def key(self) -> str:
        """Hash of all that the vector depends on."""
        ...


@dataclass(frozen=True)
class LossAt:
    """The loss of each sample at a checkpoint, optionally displaced. Column ``loss``."""

    checkpoint: Checkpoint
    moved: Direction | None = None

    @cached_property
    def key(self) -> str:
        """Identity: equal measurements are made once."""
        return digest("loss", self.checkpoint.key, self.moved.key if self.moved else None)


@dataclass(frozen=True)
class OutputsAt:
    """What the model says of each sample.

    Columns ``loss``; for single-label classifiers also ``label`` (-1 where ignored), ``probability`` of it, ``margin``
    (its log-odds, z_y - logsumexp of the others), ``gap`` (z_y - largest other logit), and ``probabilities`` of shape
    ``(n, C)``, or the 16 largest as ``top`` and ``top_label`` where there are more than 64 classes.
    """

    checkpoint: Checkpoint
    moved = None

    @cached_property
    def key(self) -> str:
        """Identity: equal measurements are made once."""
        return digest("outputs", self.checkpoint.key)


@dataclass(frozen=True)
class DerivativeAt:
    """The directional derivative of each sample's loss along a tangent. Column ``derivative``."""

    checkpoint: Checkpoint
    tangent: Direction
    moved = None

    @cached_property
    def key(self) -> str:
        """Identity: equal measurements are made once."""
        return digest("derivative", self.checkpoint.key, self.tangent.key)


@dataclass(frozen=True)
class GradientNormAt:
    """The squared norm of each sample's gradient, each parameter's part times its scale. Column ``squared_norm``."""

    checkpoint: Checkpoint
    scale: dict[str, float] | None = None
    moved = None

    @cached_property
    def key(self) -> str:
        """Identity: equal measurements are made once."""
        return digest("squared_norm", self.checkpoint.key, self.scale)


Measurement: TypeAlias = "LossAt | OutputsAt | DerivativeAt | GradientNormAt"


def directions(measurement: Measurement) -> list[Direction]:
    """Return the vectors that a measurement needs."""
    found = [getattr(measurement, "moved", None), getattr(measurement, "tangent", None)]
    return [direction for direction in found if direction is not None]
