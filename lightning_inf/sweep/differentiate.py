"""Derivatives and lengths of single samples' gradients, by the way that was chosen, or by the next where it fails."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from lightning_inf.data.batches import out_of_memory
from lightning_inf.model import gradients
from lightning_inf.model.capture import Captured
from lightning_inf.model.layers.tangents import Tangents
from lightning_inf.model.sample_model import SampleModel
from lightning_inf.model.weights import Vector, Weights
from lightning_inf.sweep import backends
from lightning_inf.sweep.layered import REFUSALS, Layered
from lightning_inf.sweep.ways import Backend, Ways

_STEPS = (1e-6, 1e-5, 1e-4, 1e-3)
_TOLERANCE = 5e-3

#: The report's name of products in the layers.
LAYERS = "products in the layers"


@dataclass
class Found:
    """Answers about B samples.

    Attributes:
        derivatives: Shape ``(B, T)``.
        norms: Squared, of shape ``(B,)`` each.
        captured: Where a backward pass was made: what the forward pass said is known then.
    """

    derivatives: Tensor | None
    norms: list[Tensor]
    captured: Captured | None = None


@dataclass
class Differentiator:
    """Differentiates one output of a model.

    Attributes:
        model: The model.
        backend: The user's choice.
        ways: What was decided.
        used: How each column was answered, for the report.
        notes: What was found out on the first batch, for the report.
        step: Of differences of losses, and their precision, once it was found.
        layered: Captures batches where gradients come apart in the layers.
    """

    model: SampleModel
    backend: Backend
    ways: Ways
    used: dict[str, str]
    notes: list[str]
    step: tuple[float, torch.dtype | None] | None = None
    _jvp_works: bool | None = None
    _vmap_works: bool | None = None
    layered: Layered = field(init=False, repr=False)
    _prepared: dict[tuple[int, ...], Tangents] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        """Begin to find out what works."""
        self.layered = Layered(self.model, self._note)

    def answer(
        self,
        weights: Weights,
        tangents: Sequence[Vector],
        scales: Sequence[Mapping[str, float] | None],
        batch: Any,
        size: int,
        losses: Tensor | None = None,
    ) -> Found:
        """Differentiate along tangents, and measure gradients, as a pass asks for it.

        Args:
            weights: Where.
            tangents: T vectors.
            scales: One for each squared norm that is wanted: a factor by parameter, None for 1.
            batch: A batch of B samples.
            size: B.
            losses: Of the batch at these weights, where they are known.
        """
        differences = bool(tangents) and self.backend in ("central", "one_sided")
        if differences and not scales:
            return Found(self.along(weights, tangents, batch, size, losses), [])
        # A backend of the user's that takes no gradients answers its part beside the norms.
        apart = bool(scales) and (differences or self.backend == "jvp")
        shared = [] if apart else tangents
        way = self.ways.pick(len(tangents), bool(scales), self.backend)
        found = self._layered(weights, shared, scales, batch, size) if way == "layers" else None
        if way == "layers" and found is None:
            way = replace(self.ways, layers=False).pick(len(tangents), bool(scales), self.backend)
        if way == "jvp":
            return Found(self.along(weights, tangents, batch, size, losses), [])
        found = found or self.materialised(weights, shared, scales, batch, size)
        if tangents and apart:
            found.derivatives = self.along(weights, tangents, batch, size, losses)
        return found

    def forget(self) -> None:
        """Let go of prepared tangents: the pass that they belong to is over."""
        self._prepared.clear()

    def prepared(self, tangents: Sequence[Vector]) -> Tangents:
        """Prepare tangents for products in the layers, once for all batches."""
        key = tuple(map(id, tangents))
        if key not in self._prepared:
            self._prepared[key] = Tangents(tangents)  # which holds the vectors, so that their ids stay theirs
        return self._prepared[key]

    def _layered(
        self,
        weights: Weights,
        tangents: Sequence[Vector],
        scales: Sequence[Mapping[str, float] | None],
        batch: Any,
        size: int,
    ) -> Found | None:
        """Answer from the layers, None where the model's gradients don't come apart there."""
        captured = self.captured(weights, batch, size)
        if captured is None:
            return None
        dots, norms = captured.answer(self.prepared(tangents) if tangents else None, scales)
        name = f"{LAYERS}, of passes in bf16" if self.ways.half else LAYERS
        if tangents:
            self.used["derivative"] = name
        if scales:
            self.used["squared_norm"] = name
        # Losses and probabilities are never taken from a pass in halves.
        return Found(dots if tangents else None, norms, None if self.ways.half else captured)

    def captured(self, weights: Weights, batch: Any, size: int, half: bool | None = None) -> Captured | None:
        """Run a batch forward and backward, None where that is no use; ``half`` None: in the precision that was decided."""
        if self.ways.layers is False or self.backend == "vmap":
            return None
        return self.layered(weights, batch, size, bool(self.ways.half) if half is None else half)

    def materialised(
        self,
        weights: Weights,
        tangents: Sequence[Vector],
        scales: Sequence[Mapping[str, float] | None],
        batch: Any,
        size: int,
    ) -> Found:
        """Answer from per-sample gradients, which serve norms and products at once."""
        dots: list[Tensor] = []
        squares: list[list[Tensor]] = [[] for _ in scales]
        vectorize = self.vectorizes(weights, batch, size)
        for _, rows in gradients.per_sample_gradients(self.model, weights, batch, size, vectorize):
            if tangents:
                dots.append(gradients.products(rows, tangents))
            for column, scale in zip(squares, scales, strict=True):
                column.append(gradients.squared_norms(rows, scale))
        name = "vmap(grad)" if vectorize else "one backward pass a sample"
        if scales:
            self.used["squared_norm"] = name
        if tangents:
            self.used["derivative"] = name
        return Found(torch.cat(dots) if tangents else None, [torch.cat(column) for column in squares])

    def along(
        self, weights: Weights, tangents: Sequence[Vector], batch: Any, size: int, losses: Tensor | None = None
    ) -> Tensor:
        """Differentiate along few tangents without gradients, shape ``(B, T)``."""
        with torch.no_grad():
            if self.backend in ("central", "one_sided") or self._jvp_works is False:
                return self._difference(weights, tangents, batch, size, losses)
            try:
                result = backends.forward_mode(self.model, weights, tangents, batch)
            except (NotImplementedError, RuntimeError) as error:
                if self.backend == "jvp" or self._jvp_works or out_of_memory(error):
                    raise
                self._jvp_works = False
                self._note(
                    "forward-mode differentiation is not to be had for this model"
                    f" ({str(error).splitlines()[0][:120]}); derivatives are central differences."
                )
                return self._difference(weights, tangents, batch, size, losses)
            self._jvp_works = True
            self.used["derivative"] = "jvp, attention by its math kernel" if self.model.math_attention else "jvp"
            return result

    def _difference(
        self, weights: Weights, tangents: Sequence[Vector], batch: Any, size: int, losses: Tensor | None
    ) -> Tensor:
        """Take differences at a step that was checked on the first batch."""
        if self.step is None:
            self.step = self._find_step(weights, tangents, batch, size)
        step, dtype = self.step
        if self.backend == "one_sided":
            self.used["derivative"] = f"one-sided difference, step {step:g}"
            return backends.one_sided(self.model, weights, tangents, batch, step, losses)
        self.used["derivative"] = f"central difference, step {step:g}" + (" in fp64" if dtype is not None else "")
        return backends.central(self.model, weights, tangents, batch, step, dtype)

    def _find_step(
        self, weights: Weights, tangents: Sequence[Vector], batch: Any, size: int
    ) -> tuple[float, torch.dtype | None]:
        """Choose the step whose derivatives of the first samples are nearest to a backward pass of each.

        Small steps drown in rounding, large ones run into the kinks of ReLU and pooling, and where the balance lies
        depends on the model. Where no step in fp32 is good, the two passes of a central difference run in fp64.
        """
        probe, one = tangents[:4], self.backend == "one_sided"
        truth = gradients.exact(self.model, weights, probe, batch, min(size, 8))
        scale = float(truth.abs().max()) or 1.0
        trials: list[tuple[float, int, float, torch.dtype | None]] = []
        for step, dtype in [*((s, None) for s in _STEPS), (1e-8, torch.float64)]:
            if dtype is not None and (one or (trials and min(trials)[0] <= _TOLERANCE)):
                break
            try:
                if one:
                    found = backends.one_sided(self.model, weights, probe, batch, step)[: len(truth)]
                else:
                    found = backends.central(self.model, weights, probe, batch, step, dtype)[: len(truth)]
            except RuntimeError as problem:  # a module with an fp32 constant inside can't run in fp64
                if out_of_memory(problem):
                    raise
                continue
            error = float((found - truth).abs().max()) / scale
            trials.append((error, len(trials), step, dtype))
        error, _, step, dtype = min(trials, key=lambda trial: trial[:2])
        if one or error > 2e-2:
            kind = "one-sided" if one else "central"
            self._note(f"{kind} differences are off by {error:.2g} of the largest derivative on the first batch.")
        return step, dtype

    def vectorizes(self, weights: Weights, batch: Any, size: int) -> bool:
        """Find out on the first batch whether ``vmap`` takes the model, and agrees with its losses."""
        if self.model.mode == "single":
            return False
        if self._vmap_works is None:
            with torch.no_grad():
                expected = self.model.losses(weights.trainable, weights.fixed, batch)
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", UserWarning)  # "performance drop" of an operator without a rule
                    slices = gradients.per_sample_gradients(self.model, weights, batch, size)
                    losses = torch.cat([loss for loss, _ in slices])
                self._vmap_works = torch.allclose(losses, expected, rtol=1e-4, atol=1e-5, equal_nan=True)
                reason = "it changes the losses"
            except REFUSALS as error:
                self._vmap_works = False
                reason = str(error).splitlines()[0][:120]
            if not self._vmap_works:
                self._note(f"vmap does not take this model ({reason}); each sample had a backward pass of its own.")
        return self._vmap_works

    def _note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)
