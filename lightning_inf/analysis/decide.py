"""What an analysis asks: which references, at how many checkpoints, within which budget."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lightning.pytorch.utilities.exceptions import MisconfigurationException

from lightning_inf.analysis.budget import Extent, fit_budget
from lightning_inf.analysis.heldout import held_out
from lightning_inf.analysis.preflight import Subject
from lightning_inf.analysis.settings import Settings
from lightning_inf.analysis.tune import Tuner, expected
from lightning_inf.audit.heldout import HeldOut
from lightning_inf.checkpoints.checkpoint import Checkpoint
from lightning_inf.data.batches import out_of_memory
from lightning_inf.data.chunks import Chunks
from lightning_inf.files import Damaged, digest, read_sealed
from lightning_inf.methods.method import Method
from lightning_inf.methods.trial import Trial
from lightning_inf.methods.tuning import with_chosen
from lightning_inf.model.weights import Weights
from lightning_inf.sweep.cost import Asked, UnitCosts, asked_of, measure
from lightning_inf.sweep.evaluate import Evaluator
from lightning_inf.sweep.plan import Pass
from lightning_inf.sweep.ways import Ways


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
        plan: The passes of an extent, as methods ask for them.
        world: Processes that share the work.
        trial: A part of the training samples at the analysed checkpoint, on which methods are tuned.
        depends: Hash of all that tuning depends on besides methods and checkpoints: what scores do, and the budget.
        held_out: The references under the analysed weights, once it was decided.
    """

    subject: Subject
    settings: Settings
    manifest: Path
    chunks: Chunks
    evaluator: Evaluator
    weights: Callable[[Checkpoint], Weights]
    plan: Callable[[Extent, Sequence[Method]], list[Pass]]
    world: int
    trial: Trial
    depends: str
    held_out: HeldOut | None = None

    def decide(self, checkpoints: list[Checkpoint], epoch_seconds: float | None) -> dict[str, Any]:
        """Choose references, what methods leave open, and extent.

        Args:
            checkpoints: In the order of training, the analysed one last.
            epoch_seconds: How long a training epoch took, where it is known.

        Returns:
            Plain values: ``excluded`` references with reasons, the ``tuning`` of methods, the ``extent``, and its
            ``estimate``.

        Raises:
            MisconfigurationException: If no reference has a finite loss.
        """
        references = self.subject.references
        count, transfer = self.settings.individual_references, self.subject.transfer
        # Timed before it is known which references are asked alone, which does not change what they cost: images may go
        # through a model in half the time in another layout, and the references are the first that gain by it.
        units = self._measure(checkpoints[-1], self._asked_for(Extent(checkpoints, references.pool[:count])))
        transfer.layout = self.kept("ways").get("layout", units.ways.layout)
        wanted = Extent(checkpoints, self._hardest(checkpoints[-1])[:count])
        budget = self.settings.budget_seconds(epoch_seconds)
        # As with the extent: an analysis that is resumed goes on in the way in which it began.
        ways = self._earlier_ways(wanted) or units.ways
        self.evaluator.ways, units = ways, replace(units, ways=ways)
        transfer.layout = ways.layout
        tuning, spent = Tuner(self.trial, self.depends, self.kept("tuning")).tune(self.settings.methods, budget)
        methods = with_chosen(self.settings.methods, tuning)
        beside = spent + self._diagnosing(units, methods)
        cost = lambda extent: beside + self._seconds(units, extent, methods)  # noqa: E731
        extent = self._earlier(wanted) or fit_budget(wanted, cost, budget)
        passes = self.plan(extent, methods)
        return {
            "excluded": {str(i): why for i, why in references.excluded.items()},
            "tuning": tuning,
            "extent": {
                "asked": self._asked(wanted),
                "keys": [checkpoint.key for checkpoint in extent.checkpoints],
                "individual": extent.individual,
                "left_out": extent.left_out,
            },
            "ways": ways.described(),
            "estimate": {
                "estimated_seconds": round(cost(extent), 3),
                "tuning_seconds": round(spent, 3),
                "budget_seconds": budget,
                "passes": len(passes),
                "disk_bytes": units.disk(passes, self.chunks.scored),
                "ways": ways.explained(
                    [asked_of(point) for work in passes for point in work.points], self.settings.backend
                ),
            },
        }

    def _hardest(self, checkpoint: Checkpoint) -> list[int]:
        """Evaluate the references, in smaller batches where memory runs out; rank those with a loss, the highest first.

        The report tells what is found here, which is not computed again.
        """
        references = self.subject.references
        found = self.trial.scene.in_memory(lambda: held_out(self.subject, self.weights(checkpoint)))
        losses = dict(zip(found.index.tolist(), found.loss.tolist(), strict=True))
        references.excluded = {i: "its loss is not finite" for i, loss in losses.items() if not math.isfinite(loss)}
        if len(references.excluded) == len(losses):
            raise MisconfigurationException(
                f"No reference of {references.samples.origin} has a finite loss; check its inputs and labels."
            )
        self.held_out = found
        return sorted((i for i in losses if i not in references.excluded), key=lambda i: (-losses[i], i))

    def _measure(self, checkpoint: Checkpoint, asked: Asked | None) -> UnitCosts:
        """Time each kind of work on two batches, of half the size where memory runs out."""
        subject = self.subject
        weights, indices, size = self.weights(checkpoint), self.chunks.indices, subject.batch_size
        while True:
            try:
                return measure(self.evaluator, subject.train, subject.transfer, weights, size, indices, asked)
            except (MemoryError, RuntimeError) as error:
                if size == 1 or not out_of_memory(error):
                    raise
                size //= 2

    def _asked_for(self, wanted: Extent) -> Asked | None:
        """Say what will be asked; None where a method has yet to choose that."""
        methods = self.settings.methods
        return None if any(method.candidates() for method in methods) else Asked.of(self.plan(wanted, methods))

    def _diagnosing(self, units: UnitCosts, methods: Sequence[Method]) -> float:
        """Estimate what it takes to halve the steps afterwards: a part of the samples is scored twice."""
        stepping = [method for method in methods if method.halved() is not None]
        return sum(2 * expected(units, self.trial, method, self.subject.references.joint) for method in stepping)

    def _seconds(self, units: UnitCosts, extent: Extent, methods: Sequence[Method]) -> float:
        """Estimate the sweep and the probes, which take a gradient a reference and direction."""
        passes = self.plan(extent, methods)
        directions = [d for work in passes for d in work.directions.values()]
        samples = len(self.subject.train)
        visits = sum(d.visits(samples) for d in directions if hasattr(d, "visits"))
        return units.seconds(passes, self.chunks.scored, self.world) + 3 * units.forward * visits

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
        found = self.kept("extent")
        if not found or found["asked"] != self._asked(wanted):
            return None
        kept = [checkpoint for checkpoint in wanted.checkpoints if checkpoint.key in found["keys"]]
        return Extent(kept, found["individual"], found["left_out"])

    def _earlier_ways(self, wanted: Extent) -> Ways | None:
        """Return how an earlier analysis of the same things took derivatives."""
        found = self.kept("ways")
        return Ways(**found) if found and self.kept("extent").get("asked") == self._asked(wanted) else None

    def kept(self, name: str) -> dict[str, Any]:
        """Read a part of the manifest of an earlier analysis; empty where there is none."""
        try:
            found: dict[str, Any] = read_sealed(self.manifest).get(name, {}) if self.manifest.is_file() else {}
        except Damaged:  # decided anew, as if there were none; what was computed for another choice is not used
            return {}
        return found
