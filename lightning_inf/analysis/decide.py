"""What an analysis asks: which references, at how many checkpoints, within which budget."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from lightning_inf.analysis.budget import Extent, fit_budget
from lightning_inf.analysis.preflight import Subject
from lightning_inf.analysis.settings import Settings
from lightning_inf.checkpoints.checkpoint import Checkpoint
from lightning_inf.data.chunks import Chunks
from lightning_inf.files import digest, read_json
from lightning_inf.model.weights import Weights
from lightning_inf.sweep.cost import UnitCosts, measure
from lightning_inf.sweep.culprit import culprit
from lightning_inf.sweep.evaluate import Evaluator
from lightning_inf.sweep.plan import Pass
from lightning_inf.sweep.run import out_of_memory


@dataclass
class Decider:
    """Decides on rank 0, before anything is swept.

    Attributes:
        subject: What is analysed.
        settings: The user's.
        manifest: Where an earlier analysis of the same run wrote down what it had decided.
        chunks: The index range.
        evaluator: As the sweep will use it.
        weights: Loads a checkpoint's weights.
        plan: The passes of an extent.
        world: Processes that share the work.
    """

    subject: Subject
    settings: Settings
    manifest: Path
    chunks: Chunks
    evaluator: Evaluator
    weights: Callable[[Checkpoint], Weights]
    plan: Callable[[Extent], list[Pass]]
    world: int

    def decide(self, checkpoints: list[Checkpoint], epoch_seconds: float | None) -> dict[str, Any]:
        """Choose references and extent.

        Args:
            checkpoints: In the order of training, the analysed one last.
            epoch_seconds: How long a training epoch took, where it is known.

        Returns:
            Plain values: ``excluded`` references with reasons, the ``extent``, and its ``estimate``.

        Raises:
            MisconfigurationException: If no reference has a finite loss.
        """
        references = self.subject.references
        losses = self._reference_losses(checkpoints[-1])
        references.excluded = {i: "its loss is not finite" for i, loss in losses.items() if not math.isfinite(loss)}
        if len(references.excluded) == len(losses):
            raise MisconfigurationException(
                f"No reference of {references.samples.origin} has a finite loss; check its inputs and labels."
            )
        hardest = sorted((i for i in losses if i not in references.excluded), key=lambda i: (-losses[i], i))
        wanted = Extent(checkpoints, hardest[: self.settings.individual_references])
        budget = self.settings.budget_seconds(epoch_seconds)
        units = self._measure(checkpoints[-1])
        extent = self._earlier(wanted) or fit_budget(wanted, lambda extent: self._seconds(units, extent), budget)
        passes = self.plan(extent)
        return {
            "excluded": {str(i): why for i, why in references.excluded.items()},
            "extent": {
                "asked": self._asked(wanted),
                "keys": [checkpoint.key for checkpoint in extent.checkpoints],
                "individual": extent.individual,
                "left_out": extent.left_out,
            },
            "estimate": {
                "estimated_seconds": round(self._seconds(units, extent), 3),
                "budget_seconds": budget,
                "passes": len(passes),
                "disk_bytes": units.disk(passes, self.chunks.scored),
            },
        }

    def _measure(self, checkpoint: Checkpoint) -> UnitCosts:
        """Time each kind of work on two batches, of half the size where memory runs out."""
        subject = self.subject
        weights, indices, size = self.weights(checkpoint), self.chunks.indices, subject.batch_size
        while True:
            try:
                return measure(self.evaluator, subject.train, subject.transfer, weights, size, indices)
            except (MemoryError, RuntimeError) as error:
                if size == 1 or not out_of_memory(error):
                    raise
                size //= 2

    def _seconds(self, units: UnitCosts, extent: Extent) -> float:
        """Estimate the sweep and the probes, which take a gradient a reference and direction."""
        passes = self.plan(extent)
        directions = [d for work in passes for d in work.directions.values()]
        samples = len(self.subject.train)
        visits = sum(d.visits(samples) for d in directions if hasattr(d, "visits"))
        return units.seconds(passes, self.chunks.scored, self.world) + 3 * units.forward * visits

    def _reference_losses(self, checkpoint: Checkpoint) -> dict[int, float]:
        """Compute the loss of each reference of the pool."""
        weights, references, model = self.weights(checkpoint), self.subject.references, self.subject.model
        losses: dict[int, float] = {}
        for indices, batch in references.batches(references.pool):
            try:
                with torch.no_grad():
                    values = model.losses(weights.trainable, weights.fixed, batch)
            except IndexError as error:
                samples, transfer = references.samples, self.subject.transfer
                raise culprit(model, weights, samples, transfer, indices, error, "reference") from error
            losses.update(zip(indices, values.tolist(), strict=True))
        return losses

    def _asked(self, wanted: Extent) -> str:
        """Hash of what was asked for before the budget."""
        methods: Sequence[Any] = [(m.name, type(m).__qualname__, m.arguments()) for m in self.settings.methods]
        keys = [checkpoint.key for checkpoint in wanted.checkpoints]
        return digest(methods, keys, wanted.individual, self.settings.budget, self.settings.max_samples)

    def _earlier(self, wanted: Extent) -> Extent | None:
        """Return what an earlier analysis of the same things decided.

        How long work takes depends on what else the machine does. An analysis that is resumed or repeated must not
        decide anew, or its chunks would be of other passes.
        """
        found = read_json(self.manifest).get("extent") if self.manifest.is_file() else None
        if found is None or found["asked"] != self._asked(wanted):
            return None
        kept = [checkpoint for checkpoint in wanted.checkpoints if checkpoint.key in found["keys"]]
        return Extent(kept, found["individual"], found["left_out"])
