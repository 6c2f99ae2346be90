"""The training samples among which a sample's neighbours are sought, and what they say of the references."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lightning_inf.checkpoints.checkpoint import Checkpoint
from lightning_inf.files import digest
from lightning_inf.model.beliefs import Bank, narrow
from lightning_inf.model.features import watching_features
from lightning_inf.model.weights import Vector, Weights
from lightning_inf.probes.scene import Scene, Unavailable

#: The most training samples among which neighbours are sought.
POOL = 5_000


@dataclass(frozen=True)
class Neighbourhood:
    """Features and labels of a seeded part of the training samples at a checkpoint.

    No direction in weight space, but made like one: on the first process, before the pass that asks it.

    Attributes:
        checkpoint: Where the features are taken.
        size: How many training samples it holds; the seed of the part is the run's.
        references: Hash of the references that are asked as well.
    """

    checkpoint: Checkpoint
    size: int = POOL
    references: str = ""

    @cached_property
    def key(self) -> str:
        """Hash of all that it depends on."""
        return digest("neighbourhood", self.checkpoint.key, self.size, self.references)

    def visits(self, samples: int) -> int:
        """How many samples' gradients would cost as much, for the estimate: a third of the forward passes."""
        return min(self.size, samples) // 3

    def make(self, scene: Scene) -> Vector:
        """Compute the bank, and what it says of the references.

        Returns:
            The parts of a :class:`~lightning_inf.model.beliefs.Bank`; ``index``, the samples in it, with ``own_linear``
            and ``own_votes``, what the bank says of them; and ``reference_linear``, ``reference_votes`` of shape
            ``(R, C)`` with ``reference_label`` of shape ``(R,)``.

        Raises:
            Unavailable: If the model is no single-label classifier, or its head takes no features.
        """
        if scene.training is None:
            raise Unavailable("there are no training samples to seek neighbours among")
        weights = scene.weights(self.checkpoint)
        rows, labels, index, classes = _collect(scene, weights, scene.training.batches(self.size))
        order = torch.argsort(index)
        inside = order[(labels[order] >= 0) & (labels[order] < classes)]
        if len(inside) < 2:
            raise Unavailable("fewer than two training samples have a label")
        bank = Bank.of(rows[inside], labels[inside], classes)
        held, given, _, _ = _collect(scene, weights, scene.references.batches(scene.references.joint.indices))
        nowhere = torch.full((len(held),), -1, device=held.device)
        features = bank.prepared(held)
        said = {
            "reference_linear": bank.linear(features, nowhere),
            "reference_votes": bank.votes(features, nowhere),
            "reference_label": given,
        }
        places = torch.arange(len(inside), device=held.device)
        own = {"own_linear": bank.linear(bank.features, places), "own_votes": bank.votes(bank.features, places)}
        return {**bank.tensors(), "index": index[inside], **own, **said}

    @staticmethod
    def aside(vector: Vector) -> dict[str, np.ndarray]:
        """Return what stays with the answers when the bank is dropped."""
        return {name: t.cpu().numpy() for name, t in vector.items() if name.startswith("reference_")}


def _collect(
    scene: Scene, weights: Weights, batches: Iterable[tuple[list[int], Any]]
) -> tuple[Tensor, Tensor, Tensor, int]:
    """Run batches and gather features ``(m, d)``, labels ``(m,)``, indices ``(m,)`` and the number of classes."""
    rows: list[Tensor] = []
    labels: list[Tensor] = []
    index: list[Tensor] = []
    classes = 0
    with torch.no_grad(), watching_features(scene.model.module) as features:
        for indices, batch in batches:
            features.rows = None
            outputs = scene.model.outputs(weights, batch)
            if outputs.logits is None or outputs.target is None or outputs.logits.dim() != 2:
                raise Unavailable("the model is no single-label classifier, so neighbours have no labels to compare")
            if features.rows is None or len(features.rows) != len(indices):
                raise Unavailable("the last module takes no features of one row a sample")
            rows.append(narrow(features.rows))
            labels.append(outputs.target)
            index.append(torch.tensor(indices, device=outputs.target.device))
            classes = outputs.logits.shape[1]
    return torch.cat(rows), torch.cat(labels), torch.cat(index), classes
