"""A method's questions, put to a part of the training samples at one checkpoint; nothing is stored."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from lightning_inf.checkpoints.checkpoint import Checkpoint
from lightning_inf.data.batches import out_of_memory
from lightning_inf.data.references import References, Target
from lightning_inf.data.training import TrainingBatches
from lightning_inf.files import digest
from lightning_inf.methods.method import Answers, Method, Question, Setting
from lightning_inf.model.weights import Vector
from lightning_inf.probes.scene import Scene, Unavailable
from lightning_inf.sweep.culprit import culprit
from lightning_inf.sweep.evaluate import Evaluator
from lightning_inf.sweep.ledger import to_numpy
from lightning_inf.sweep.measurements import Measurement, directions
from lightning_inf.sweep.plan import Pass, plan

#: How many training samples answer.
POOL = 1024


@dataclass
class Trial:
    """A seeded part of the training samples, and all that is needed to score it.

    Directions come from the same probes as in the sweep, answers from the same evaluator, scores from the method. What
    is asked at the checkpoint itself, such as the losses before a step, is answered once.

    Attributes:
        scene: What the probes work with; its ``training`` is where the samples come from.
        evaluator: Answers measurements on a batch.
        checkpoint: Where everything is asked, or what is asked of the analysed weights alone.
        size: How many training samples answer.
        checkpoints: Where else, in the order of training and the analysed one last; empty: nowhere.
        chosen: The samples that answer, in the place of a seeded part.
    """

    scene: Scene
    evaluator: Evaluator
    checkpoint: Checkpoint
    size: int = POOL
    checkpoints: Sequence[Checkpoint] = ()
    chosen: Sequence[int] | None = None
    _known: dict[str, dict[str, np.ndarray]] = field(default_factory=dict, repr=False)
    _most: int | None = None

    @property
    def training(self) -> TrainingBatches:
        """The training samples that the part is of."""
        if self.scene.training is None:
            raise ValueError("Trial: expected a scene with training samples, found one without.")
        return self.scene.training

    @cached_property
    def indices(self) -> np.ndarray:
        """The samples that answer, in a random order; the first few are a fair sample, too. Shape ``(pool,)``."""
        if self.chosen is not None:
            return np.asarray(self.chosen, dtype=np.int64)
        return np.asarray([index for part in self.training.lists(self.size) for index in part], dtype=np.int64)

    def among_themselves(self) -> Trial:
        """Return the trial in which the samples that answer are the references as well."""
        training = self.training
        samples = training.samples.as_references()
        own = References(samples, training.transfer, sorted(self.indices.tolist()), 1, digest("training"))
        return replace(self, scene=replace(self.scene, references=own), _known={})

    def setting(self, target: Target, *others: Target) -> Setting:
        """What a method may ask about."""
        checkpoints = list(self.checkpoints) or [self.checkpoint]
        return Setting(checkpoints, self.checkpoint, target, others, samples=self.indices.tolist())

    def questions(self, method: Method, target: Target) -> list[Question]:
        """What the method asks about the target."""
        return method.ask(self.setting(target))

    def scores(self, method: Method, target: Target) -> np.ndarray:
        """Score the samples.

        Args:
            method: A method that asks the training samples.
            target: References of the scene.

        Returns:
            Scores in fp64 in the order of :attr:`indices`; NaN where the method has nothing to say.
        """
        return self.table(method, [target])[0]

    def table(self, method: Method, targets: Sequence[Target]) -> np.ndarray:
        """Score the samples for several targets, which share passes over them.

        Returns:
            Shape ``(targets, pool)``; NaN where the method has nothing to say.
        """
        asked = list(targets)
        questions = [q for q in method.ask(self.setting(*asked)) if q.target is None or q.target in asked]
        answers = self.answers([m for question in questions for m in question.measurements])
        found = np.full((len(targets), len(self.indices)), np.nan)
        for question in questions:
            columns = question.score(answers, self.indices)
            if method.score_column in columns:
                rows = slice(None) if question.target is None else asked.index(question.target)
                found[rows] = columns[method.score_column]
        return found

    def answers(self, measurements: Sequence[Measurement]) -> Answers:
        """Answer all measurements whose directions can be made."""
        here = [m for m in measurements if not directions(m)]
        self._known.update(self._pass([m for m in here if m.key not in self._known]))
        moved = self._pass([m for m in measurements if directions(m)])
        return {**{m.key: self._known[m.key] for m in here}, **moved}

    def _pass(self, measurements: Sequence[Measurement]) -> dict[str, dict[str, np.ndarray]]:
        """Make the directions and measure every batch; where memory runs out, in smaller ones from then on."""
        found: dict[str, dict[str, np.ndarray]] = {}
        size = 4 * sum(t.numel() for t in self.scene.weights(self.checkpoint).trainable.values())
        for work in plan(measurements, size):
            vectors = self._vectors(work)
            while True:
                try:
                    parts = [self._batch(work, vectors, indices) for indices in self.lists()]
                    break
                except (MemoryError, RuntimeError) as error:
                    if self._most == 1 or not out_of_memory(error):
                        raise
                    self._most = max((self._most or self.training.batch_size) // 2, 1)
            self.evaluator.forget()
            for key, columns in parts[0].items():
                found[key] = {name: np.concatenate([part[key][name] for part in parts]) for name in columns}
        return found

    def lists(self) -> Iterator[list[int]]:
        """Cut the samples into batches."""
        each = self._most or self.training.batch_size
        for start in range(0, len(self.indices), each):
            yield self.indices[start : start + each].tolist()

    def _vectors(self, work: Pass) -> dict[str, Vector]:
        """Run the probes; a direction that can't be made is left out."""
        vectors = {}
        for key, direction in work.directions.items():
            try:
                vectors[key] = self.scene.in_memory(lambda d=direction: d.make(self.scene))  # type: ignore[misc]
            except Unavailable:
                continue
        return vectors

    def _batch(self, work: Pass, vectors: dict[str, Vector], indices: list[int]) -> dict[str, dict[str, np.ndarray]]:
        """Measure one batch at every point."""
        training = self.training
        batch = training.batch(indices)
        found: dict[str, dict[str, np.ndarray]] = {}
        for point in work.points:
            if point.moved is not None and point.moved.key not in vectors:
                continue
            weights = self.scene.weights(point.checkpoint)
            here = weights if point.moved is None else weights.moved(vectors[point.moved.key])
            try:
                answers = self.evaluator(here, point.measurements, vectors, batch, len(indices), indices)
            except IndexError as error:
                model = self.evaluator.model
                raise culprit(model, here, training.samples, training.transfer, indices, error) from error
            found.update({key: to_numpy(columns) for key, columns in answers.items()})
        return found
