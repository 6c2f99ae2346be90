"""The package's scores of a model in memory: its own methods, probes and evaluator, without a Trainer around them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from lightning.pytorch import LightningModule
from torch import Tensor
from torch.utils.data import TensorDataset, default_collate

from lightning_inf.checkpoints.checkpoint import Checkpoint
from lightning_inf.data.references import References, Target
from lightning_inf.data.sources import Samples
from lightning_inf.data.training import TrainingBatches
from lightning_inf.methods.method import Method, Setting
from lightning_inf.model.sample_model import SampleModel
from lightning_inf.model.weights import Weights, fingerprint
from lightning_inf.probes.scene import Scene
from lightning_inf.sweep.evaluate import Evaluator
from lightning_inf.sweep.measurements import DerivativeAt, LossAt


class Mirror:
    """A trained model, its training samples, and references to ask about.

    Args:
        module: The trained module; its ``training_step`` makes one call of a loss function.
        x: Training inputs, shape ``(n, ...)``.
        y: Training labels, shape ``(n,)``.
        reference_x: Reference inputs, shape ``(q, ...)``.
        reference_y: Reference labels, shape ``(q,)``.
    """

    def __init__(self, module: LightningModule, x: Tensor, y: Tensor, reference_x: Tensor, reference_y: Tensor) -> None:
        module.eval()
        self.batch, self.count = [x, y], len(y)
        self.weights = Weights.of(module)
        self.checkpoint = Checkpoint(Path("memory"), 0, 0, None, fingerprint(module.state_dict()))
        held_out = Samples(TensorDataset(reference_x, reference_y), default_collate, "references", len(reference_y))
        trained = Samples(TensorDataset(x, y), default_collate, "training samples", self.count)
        self.scene = Scene(
            SampleModel(module),
            References(held_out, lambda batch: batch, list(range(len(reference_y))), len(reference_y)),
            lambda _: self.weights,
            TrainingBatches(trained, lambda batch: batch, self.count),
        )
        self.evaluator = Evaluator(self.scene.model)

    def scores(self, method: Method, references: Sequence[int]) -> np.ndarray:
        """Score every training sample for the mean loss of some references.

        Args:
            method: A method about references.
            references: Their indices.

        Returns:
            Scores, positive where the sample helps, shape ``(n,)``.
        """
        target = Target(tuple(references), "references-" + "-".join(map(str, references)))
        (question,) = method.ask(Setting([self.checkpoint], self.checkpoint, target))
        answers: dict[str, dict[str, np.ndarray]] = {}
        for measurement in question.measurements:
            weights, vectors = self.weights, {}
            if isinstance(measurement, LossAt) and measurement.moved is not None:
                weights = weights.moved(measurement.moved.make(self.scene))  # type: ignore[attr-defined]
            if isinstance(measurement, DerivativeAt):
                vectors = {measurement.tangent.key: measurement.tangent.make(self.scene)}  # type: ignore[attr-defined]
            found = self.evaluator(weights, [measurement], vectors, self.batch, self.count)
            answers[measurement.key] = {name: column.numpy() for name, column in found[measurement.key].items()}
        return np.asarray(question.score(answers, np.arange(self.count))[method.name])
