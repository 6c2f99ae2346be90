"""Answering measurements on one batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from lightning_inf.model.compiled import Compiled
from lightning_inf.model.output import Output
from lightning_inf.model.sample_model import SampleModel
from lightning_inf.model.weights import Vector, Weights
from lightning_inf.sweep.differentiate import Differentiator
from lightning_inf.sweep.displaced import losses_at
from lightning_inf.sweep.looks import look
from lightning_inf.sweep.measurements import (
    DerivativeAt,
    GradientNormAt,
    LossAt,
    Measurement,
    RenormalizedAt,
    SelfAscentAt,
)
from lightning_inf.sweep.self_ascent import positions, rises
from lightning_inf.sweep.ways import Backend, Ways

#: One batch's answers: by measurement, then by column.
Answers = dict[str, dict[str, Tensor]]


@dataclass
class Evaluator:
    """Evaluates measurements that share their weights.

    Attributes:
        model: The model.
        backend: How derivatives are taken.
        used: The backend that each kind of measurement was answered with, for the report.
        notes: What was found out on the first batch, for the report.
        ways: Which way to a derivative is the cheapest; set once it has been measured.
        compiled: Runs the model forward, where the user wants it compiled; of the loss alone.
        half: Whether the user lets passes run in bf16, where products in the layers are taken of them.
    """

    model: SampleModel
    backend: Backend = "auto"
    used: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    ways: Ways = field(default_factory=Ways)
    compiled: Compiled | None = None
    half: bool = False
    _displaces: bool = True
    _others: dict[Output, Evaluator] = field(default_factory=dict)
    _differentiator: Differentiator | None = None
    _by_draw: list[Differentiator] = field(default_factory=list)

    @property
    def differentiator(self) -> Differentiator:
        """Takes derivatives of this output."""
        if self._differentiator is None:
            self._differentiator = Differentiator(self.model, self.backend, self.ways, self.used, self.notes)
        self._differentiator.ways = self.ways
        return self._differentiator

    @property
    def _forward(self) -> Compiled | None:
        """What is compiled, where that was found to pay."""
        return self.compiled if self.ways.compiled else None

    def giving(self, output: Output) -> Evaluator:
        """Return the evaluator of another output, which finds out for itself what works; notes are shared."""
        if output == self.model.output:
            return self
        if output not in self._others:
            self._others[output] = Evaluator(self.model.giving(output), self.backend, self.used, self.notes)
        self._others[output].ways = self.ways
        return self._others[output]

    def halved(self, output: Output) -> tuple[float, Evaluator] | None:
        """Return the step of the latest differences of losses, and an evaluator that takes half of it.

        None where the latest derivatives were not taken so.
        """
        own = self.giving(output).differentiator
        kind = self.used.get("derivative", "").partition(" ")[0]
        if own.step is None or kind not in ("central", "one-sided"):
            return None
        step, dtype = own.step
        other = Evaluator(own.model, "central" if kind == "central" else "one_sided")
        other.differentiator.step = (step / 2, dtype)
        return step, other

    def forget(self) -> None:
        """Let go of what was prepared for a pass."""
        for evaluator in (self, *self._others.values()):
            for differentiator in (evaluator.differentiator, *evaluator._by_draw):
                differentiator.forget()

    def __call__(
        self,
        weights: Weights,
        measurements: Sequence[Measurement],
        vectors: dict[str, Vector],
        batch: Any,
        size: int,
        indices: Sequence[int] = (),
    ) -> Answers:
        """Measure a batch of ``size`` samples.

        Args:
            weights: The weights, already displaced.
            measurements: All at these weights.
            vectors: Tangents by key.
            batch: On the device.
            size: B.
            indices: Of the training samples in the batch, where a measurement is of some of them only.

        Returns:
            Columns of shape ``(B, ...)``.
        """
        answers: Answers = {}
        self.model.share(weights, batch)
        outputs: list[Output] = [measurement.output for measurement in measurements]
        for output in dict.fromkeys(outputs):
            same = [m for m in measurements if m.output == output]
            evaluator = self.giving(output)
            answers |= evaluator._answer(weights, same, vectors, batch, size, indices)
            even = [m for m in same if isinstance(m, RenormalizedAt) and m.tangent.key in vectors]
            if even:
                columns = evaluator._renormalized(weights, [vectors[m.tangent.key] for m in even], batch, size)
                answers |= {m.key: {"renormalized": column} for m, column in zip(even, columns, strict=True)}
            for measurement in same:
                if isinstance(measurement, SelfAscentAt):
                    answers[measurement.key] = evaluator._self_ascent(weights, measurement, batch, size, indices)
        return answers

    def displaced(self, weights: Weights, asked: Sequence[LossAt], vectors: dict[str, Vector], batch: Any) -> Answers:
        """Measure losses at many displacements of the same weights, all at once where the batch's trunk is shared.

        Args:
            weights: Not displaced.
            asked: Each with its displacement.
            vectors: Displacements by key; what has none is not answered.
            batch: On the device.

        Returns:
            What could be answered so; the rest is to be asked one by one.
        """
        answers: Answers = {}
        if not asked:
            return answers
        self.model.share(weights, batch)
        for output in dict.fromkeys(measurement.output for measurement in asked):
            same = [m for m in asked if m.output == output and m.moved is not None and m.moved.key in vectors]
            evaluator = self.giving(output)
            steps = [vectors[m.moved.key] for m in same if m.moved is not None]
            losses = losses_at(evaluator.model, weights, steps, batch) if evaluator._displaces else None
            if losses is not None:
                answers |= {m.key: {"loss": row} for m, row in zip(same, losses, strict=True)}
            elif len(steps) > 1 and self.model.trunk.of(weights.fixed, batch) is not None:
                evaluator._displaces = False  # `vmap` doesn't take the step; one displacement after the other, then
        return answers

    def _answer(
        self,
        weights: Weights,
        measurements: Sequence[Measurement],
        vectors: dict[str, Vector],
        batch: Any,
        size: int,
        indices: Sequence[int],
    ) -> Answers:
        """Answer all measurements of one output but those that move each sample's own weights."""
        along = [m for m in measurements if isinstance(m, DerivativeAt) and m.tangent.key in vectors]
        norms = [m for m in measurements if isinstance(m, GradientNormAt)]
        if not along and not norms:
            return look(self.model, weights, measurements, vectors, batch, indices, compiled=self._forward)
        answers: Answers = {}
        known = None
        if self.backend == "one_sided":  # which starts from the losses, where somebody asks for them
            answers = look(self.model, weights, measurements, vectors, batch, indices, compiled=self._forward)
            known = next((columns["loss"] for columns in answers.values() if "loss" in columns), None)
        tangents, scales = [vectors[m.tangent.key] for m in along], [m.scale for m in norms]
        found = self.differentiator.answer(weights, tangents, scales, batch, size, known)
        if self.backend != "one_sided":
            answers = look(self.model, weights, measurements, vectors, batch, indices, found.captured, self._forward)
        for norm, column in zip(norms, found.norms, strict=True):
            answers[norm.key] = {"squared_norm": column}
        for j, measurement in enumerate(along):
            assert found.derivatives is not None
            answers[measurement.key] = {"derivative": found.derivatives[:, j]}
        return answers

    def _renormalized(self, weights: Weights, tangents: list[Vector], batch: Any, size: int) -> list[Tensor]:
        """Divide each draw's products by the length of its gradient; a column a tangent."""
        draws = self.model.apart()
        if len(self._by_draw) != len(draws):
            self._by_draw = [Differentiator(one, self.backend, self.ways, self.used, self.notes) for one in draws]
        total = torch.zeros(size, len(tangents), dtype=torch.float64)
        known = torch.zeros(size, dtype=torch.bool)
        for differentiator in self._by_draw:
            differentiator.ways = self.ways
            found = differentiator.answer(weights, tangents, [None], batch, size)
            assert found.derivatives is not None
            lengths = found.norms[0].double().sqrt().cpu()
            moves = lengths != 0  # a length that is not finite stays: the sample is to be reported
            total += (
                torch.where(moves, 1 / torch.where(moves, lengths, 1.0), 0.0)[:, None]
                * found.derivatives.double().cpu()
            )
            known |= moves
        return [torch.where(known, column / len(draws), torch.nan) for column in total.unbind(dim=1)]

    def _self_ascent(
        self, weights: Weights, measurement: SelfAscentAt, batch: Any, size: int, indices: Sequence[int]
    ) -> dict[str, Tensor]:
        """Move the weights for each asked sample of the batch."""
        chosen = positions(measurement, indices, size)
        if not chosen:  # nor is anything found out on samples that nobody asks about
            return {"rise": torch.full((size,), float("nan"), dtype=torch.float64)}
        vectorize = self.differentiator.vectorizes(weights, batch, size)
        self.used["rise"] = "vmap over samples" if vectorize else "one sample after the other"
        return {"rise": rises(self.model, weights, measurement, batch, size, chosen, vectorize)}

    def derivatives(self, weights: Weights, tangents: Sequence[Vector], batch: Any, size: int) -> Tensor:
        """Take derivatives along tangents, shape ``(B, T)``, as a pass would."""
        found = self.differentiator.answer(weights, tangents, [], batch, size).derivatives
        assert found is not None
        return found

    def norms(self, weights: Weights, batch: Any, size: int) -> Tensor:
        """Take squared norms of the samples' gradients, shape ``(B,)``, as a pass would."""
        return self.differentiator.answer(weights, [], [None], batch, size).norms[0]
