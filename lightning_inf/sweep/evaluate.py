"""Answering measurements on one batch."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from lightning_inf.model.output import Output
from lightning_inf.model.sample_model import SampleModel
from lightning_inf.model.weights import Vector, Weights
from lightning_inf.sweep import backends
from lightning_inf.sweep.describe import describe
from lightning_inf.sweep.measurements import (
    DerivativeAt,
    GradientNormAt,
    LossAt,
    Measurement,
    OutputsAt,
    SelfAscentAt,
)
from lightning_inf.sweep.self_ascent import positions, rises

#: How derivatives are taken; ``auto`` decides on the first batch.
Backend = Literal["auto", "jvp", "central", "vmap"]

_STEPS = (1e-6, 1e-5, 1e-4, 1e-3)
_TOLERANCE = 5e-3

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
    """

    model: SampleModel
    backend: Backend = "auto"
    used: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    _step: tuple[float, torch.dtype | None] | None = None
    _jvp_works: bool | None = None
    _vmap_works: bool | None = None
    _others: dict[Output, Evaluator] = field(default_factory=dict)

    def giving(self, output: Output) -> Evaluator:
        """Return the evaluator of another output, which finds out for itself what works; notes are shared."""
        if output == self.model.output:
            return self
        if output not in self._others:
            self._others[output] = Evaluator(self.model.giving(output), self.backend, self.used, self.notes)
        return self._others[output]

    def halved(self, output: Output) -> tuple[float, Evaluator] | None:
        """Return the step of the latest central differences, and an evaluator that takes half of it.

        None where the latest derivatives were not taken by central differences.
        """
        own = self.giving(output)
        if own._step is None or not self.used.get("derivative", "").startswith("central"):
            return None
        step, dtype = own._step
        return step, Evaluator(own.model, "central", _step=(step / 2, dtype))

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
        outputs: list[Output] = [measurement.output for measurement in measurements]
        for output in dict.fromkeys(outputs):
            same = [m for m in measurements if m.output == output]
            evaluator = self.giving(output)
            answers |= evaluator._answer(weights, same, vectors, batch, size)
            for measurement in same:
                if isinstance(measurement, SelfAscentAt):
                    answers[measurement.key] = evaluator._self_ascent(weights, measurement, batch, size, indices)
        return answers

    def _answer(
        self, weights: Weights, measurements: Sequence[Measurement], vectors: dict[str, Vector], batch: Any, size: int
    ) -> Answers:
        """Answer all measurements of one output but those that move each sample's own weights."""
        answers: Answers = {}
        along = [m for m in measurements if isinstance(m, DerivativeAt) and m.tangent.key in vectors]
        norms = [m for m in measurements if isinstance(m, GradientNormAt)]
        looks = [m for m in measurements if isinstance(m, (OutputsAt, LossAt))]
        if looks:
            with torch.no_grad():
                if self.model.output == "loss":
                    columns = describe(self.model.outputs(weights, batch))
                else:
                    columns = {"loss": self.model.losses(weights.trainable, weights.fixed, batch)}
            for look in looks:
                answers[look.key] = columns if isinstance(look, OutputsAt) else {"loss": columns["loss"]}
        tangents = [vectors[m.tangent.key] for m in along]
        if norms or (along and self._choose(len(tangents)) == "vmap"):
            self._gradients(answers, weights, along, tangents, norms, batch, size)
        elif along:
            derivatives = self.derivatives(weights, tangents, batch, size)
            for j, measurement in enumerate(along):
                answers[measurement.key] = {"derivative": derivatives[:, j]}
        return answers

    def _gradients(
        self,
        answers: Answers,
        weights: Weights,
        along: Sequence[DerivativeAt],
        tangents: Sequence[Vector],
        norms: Sequence[GradientNormAt],
        batch: Any,
        size: int,
    ) -> None:
        """Answer from per-sample gradients, which serve norms and products at once."""
        shares = bool(along) and self.backend in ("auto", "vmap")
        dots: list[Tensor] = []
        squares: list[list[Tensor]] = [[] for _ in norms]
        vectorize = self._vectorizes(weights, batch, size)
        for _, gradients in backends.per_sample_gradients(self.model, weights, batch, size, vectorize):
            if shares:
                dots.append(backends.products(gradients, tangents))
            for column, of_norm in zip(squares, norms, strict=True):
                column.append(backends.squared_norms(gradients, of_norm.scale))
        for column, of_norm in zip(squares, norms, strict=True):
            answers[of_norm.key] = {"squared_norm": torch.cat(column)}
        name = "vmap(grad)" if vectorize else "one backward pass a sample"
        if norms:
            self.used["squared_norm"] = name
        if shares:
            self.used["derivative"] = name
        derivatives = torch.cat(dots) if shares else None
        if along and derivatives is None:
            derivatives = self.derivatives(weights, tangents, batch, size)
        for j, measurement in enumerate(along):
            assert derivatives is not None
            answers[measurement.key] = {"derivative": derivatives[:, j]}

    def _self_ascent(
        self, weights: Weights, measurement: SelfAscentAt, batch: Any, size: int, indices: Sequence[int]
    ) -> dict[str, Tensor]:
        """Move the weights for each asked sample of the batch."""
        chosen = positions(measurement, indices, size)
        if not chosen:  # nor is anything found out on samples that nobody asks about
            return {"rise": torch.full((size,), float("nan"), dtype=torch.float64)}
        vectorize = self._vectorizes(weights, batch, size)
        self.used["rise"] = "vmap over samples" if vectorize else "one sample after the other"
        return {"rise": rises(self.model, weights, measurement, batch, size, chosen, vectorize)}

    def derivatives(self, weights: Weights, tangents: Sequence[Vector], batch: Any, size: int) -> Tensor:
        """Take derivatives along few tangents, shape ``(B, T)``, as a pass would."""
        with torch.no_grad():
            return self._derivatives(weights, tangents, batch, size)

    def norms(self, weights: Weights, batch: Any, size: int) -> Tensor:
        """Take squared norms of the samples' gradients, shape ``(B,)``, as a pass would."""
        vectorize = self._vectorizes(weights, batch, size)
        slices = backends.per_sample_gradients(self.model, weights, batch, size, vectorize)
        return torch.cat([backends.squared_norms(gradients, None) for _, gradients in slices])

    def _choose(self, tangents: int) -> str:
        """Pick the backend: the user's; else ``jvp`` for up to four tangents where it works, ``vmap`` for more."""
        if self.backend != "auto":
            return self.backend
        return "vmap" if tangents > 4 else "jvp"

    def _derivatives(self, weights: Weights, tangents: Sequence[Vector], batch: Any, size: int) -> Tensor:
        """Take derivatives along tangents without per-sample gradients."""
        if self.backend == "central" or self._jvp_works is False:
            return self._central(weights, tangents, batch, size)
        try:
            result = backends.forward_mode(self.model, weights, tangents, batch)
        except (NotImplementedError, RuntimeError) as error:
            if self.backend == "jvp" or self._jvp_works:
                raise
            self._jvp_works = False
            self.notes.append(
                f"forward-mode differentiation is not to be had for this model ({str(error).splitlines()[0][:120]});"
                " derivatives are central differences."
            )
            return self._central(weights, tangents, batch, size)
        self._jvp_works = True
        self.used["derivative"] = "jvp"
        return result

    def _central(self, weights: Weights, tangents: Sequence[Vector], batch: Any, size: int) -> Tensor:
        """Take central differences at a step that was checked on the first batch."""
        if self._step is None:
            self._step = self._find_step(weights, tangents, batch, size)
        step, dtype = self._step
        self.used["derivative"] = f"central difference, step {step:g}" + (" in fp64" if dtype is not None else "")
        return backends.central(self.model, weights, tangents, batch, step, dtype)

    def _find_step(
        self, weights: Weights, tangents: Sequence[Vector], batch: Any, size: int
    ) -> tuple[float, torch.dtype | None]:
        """Choose the step whose derivatives of the first samples are nearest to a backward pass of each.

        Small steps drown in rounding, large ones run into the kinks of ReLU and pooling, and where the balance lies
        depends on the model. Where no step in fp32 is good, the two passes run in fp64.
        """
        probe = tangents[:4]
        truth = backends.exact(self.model, weights, probe, batch, min(size, 8))
        scale = float(truth.abs().max()) or 1.0
        trials: list[tuple[float, int, float, torch.dtype | None]] = []
        for step, dtype in [*((s, None) for s in _STEPS), (1e-8, torch.float64)]:
            if dtype is not None and trials and min(trials)[0] <= _TOLERANCE:
                break
            try:
                found = backends.central(self.model, weights, probe, batch, step, dtype)[: len(truth)]
            except RuntimeError:  # a module with an fp32 constant inside can't run in fp64
                continue
            error = float((found - truth).abs().max()) / scale
            trials.append((error, len(trials), step, dtype))
        error, _, step, dtype = min(trials, key=lambda trial: trial[:2])
        if error > 2e-2:
            self.notes.append(
                f"central differences are off by {error:.1%} of the largest derivative on the first batch."
            )
        return step, dtype

    def _vectorizes(self, weights: Weights, batch: Any, size: int) -> bool:
        """Find out on the first batch whether ``vmap`` takes the model, and agrees with its losses."""
        if self.model.mode == "single":
            return False
        if self._vmap_works is None:
            with torch.no_grad():
                expected = self.model.losses(weights.trainable, weights.fixed, batch)
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", UserWarning)  # "performance drop" of an operator without a rule
                    slices = backends.per_sample_gradients(self.model, weights, batch, size)
                    losses = torch.cat([loss for loss, _ in slices])
                self._vmap_works = torch.allclose(losses, expected, rtol=1e-4, atol=1e-5, equal_nan=True)
                reason = "it changes the losses"
            except (RuntimeError, ValueError, TypeError, IndexError, NotImplementedError) as error:
                self._vmap_works = False
                reason = str(error).splitlines()[0][:120]
            if not self._vmap_works:
                self.notes.append(
                    f"vmap does not take this model ({reason}); each sample had a backward pass of its own."
                )
        return self._vmap_works
