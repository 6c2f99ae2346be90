"""What a regression predicts for the references at a checkpoint."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from lightning_inf.checkpoints.checkpoint import Checkpoint
from lightning_inf.files import digest
from lightning_inf.model.weights import Vector
from lightning_inf.probes.scene import Scene, Unavailable


@dataclass(frozen=True)
class HeldOutPredictions:
    """Predictions for the references that are asked about together, and their targets.

    No direction in weight space, but made like one: on the first process, before the pass that asks it.

    Attributes:
        checkpoint: Under whose weights.
        references: Hash of the references.
    """

    checkpoint: Checkpoint
    references: str

    @cached_property
    def key(self) -> str:
        """Hash of all that it depends on."""
        return digest("held_out_predictions", self.checkpoint.key, self.references)

    def visits(self, samples: int) -> int:
        """How many samples' gradients would cost as much, for the estimate: references are few."""
        return 0

    def make(self, scene: Scene) -> Vector:
        """Run the references through the model.

        Returns:
            ``reference_prediction`` and ``reference_target``, shape ``(R,)``.

        Raises:
            Unavailable: If the model is no regression of one number a sample.
        """
        weights = scene.weights(self.checkpoint)
        said, given = [], []
        with torch.no_grad():
            for _, batch in scene.references.batches(scene.references.joint.indices):
                outputs = scene.model.outputs(weights, batch)
                if outputs.prediction is None or outputs.value is None:
                    raise Unavailable("the model is no regression of one number a sample")
                said.append(outputs.prediction)
                given.append(outputs.value)
        return {"reference_prediction": torch.cat(said), "reference_target": torch.cat(given)}

    @staticmethod
    def aside(vector: Vector) -> dict[str, np.ndarray]:
        """Return what stays with the answers when the rest is dropped: all of it."""
        return {name: tensor.cpu().numpy() for name, tensor in vector.items()}
