"""Whether a model's gradients come apart in its layers: found out on the first batch, watched on all others."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

from lightning_inf.data.batches import out_of_memory
from lightning_inf.model import gradients
from lightning_inf.model.capture import Captured, Uncaptured, capture
from lightning_inf.model.layers.tangents import Tangents
from lightning_inf.model.sample_model import SampleModel
from lightning_inf.model.weights import Weights

#: Samples whose gradients from the layers are compared with a backward pass of each.
_COMPARED = 4

#: What a model or a transform raises where it does not take a step.
REFUSALS = (RuntimeError, ValueError, TypeError, IndexError, NotImplementedError)


@dataclass
class Layered:
    """Captures batches, as long as what it makes of them is right.

    Attributes:
        model: The model.
        note: Takes sentences for the report.
        refused: Why gradients don't come apart in the layers, once that was found.
    """

    model: SampleModel
    note: Callable[[str], None]
    refused: str = ""
    _layers: list[tuple[str, ...]] | None = None
    _shared: frozenset[str] = field(default_factory=frozenset)

    def __call__(self, weights: Weights, batch: Any, size: int, half: bool = False) -> Captured | None:
        """Run a batch forward and backward, in bf16 if ``half``; None where the samples' gradients don't come apart."""
        if self.refused or self.model.mode == "single":
            return None
        try:
            first = self._first(weights, batch, size) if self._layers is None else None
            return first if first is not None and not half else self._further(weights, batch, size, half)
        except (Uncaptured, *REFUSALS) as error:
            if out_of_memory(error):
                raise
            if isinstance(error, IndexError) and self._layers is not None:
                raise  # a label out of range, say
            why = (str(error).splitlines() or [type(error).__name__])[0][:160]
            self.refused = self.refused or (why if self._layers is None else "")
            self.note(f"the gradients of single samples did not come apart in the layers ({why}).")
            return None

    def _first(self, weights: Weights, batch: Any, size: int) -> Captured:
        """Capture the first batch and compare it with a backward pass a sample.

        As many positions as there are samples look like one index a sample: both are tried.
        """
        captured = capture(self.model, weights, batch, size)
        try:
            self._compare(captured, weights, batch, size)
        except Uncaptured:
            doubtful = frozenset(name for use in captured.uses if use.ambiguous for name in use.names.values())
            if not doubtful:
                raise
            captured = capture(self.model, weights, batch, size, doubtful)
            self._compare(captured, weights, batch, size)
        self._layers = _layers(captured)
        self._learn(captured)
        return captured

    def _further(self, weights: Weights, batch: Any, size: int, half: bool) -> Captured:
        """Capture another batch, which must go the way of the first one."""
        captured = capture(self.model, weights, batch, size, self._shared, half)
        if _layers(captured) != self._layers:
            raise Uncaptured("a batch took another way through the layers than the first one")
        self._learn(captured)
        return captured

    def _learn(self, captured: Captured) -> None:
        """Remember which tables are looked up once for all samples: a batch of another size may not tell."""
        found = {name for use in captured.uses if use.kind == "shared" for name in use.names.values()}
        self._shared = self._shared | found

    def _compare(self, captured: Captured, weights: Weights, batch: Any, size: int) -> None:
        """Compare with a backward pass a sample, parameter by parameter."""
        count = min(size, _COMPARED)
        with torch.no_grad():
            losses = self.model.losses(weights.trainable, weights.fixed, batch)
        if not torch.allclose(captured.losses, losses, rtol=1e-4, atol=1e-5, equal_nan=True):
            raise Uncaptured("watching the layers changes the losses")
        rows = list(gradients.one_by_one(self.model, weights, batch, count))
        tangent = [weights.trainable]
        dots, _ = captured.answer(Tangents(tangent))
        pairs = [(dots[:count, 0], torch.cat([gradients.products(one, tangent) for _, one in rows])[:, 0])]
        for name in weights.trainable:
            exact = torch.stack([one[name][0].double().square().sum() for _, one in rows])
            pairs.append((captured.squared_norms(name)[:count], exact))
        largest = max(float(exact.nan_to_num(posinf=0.0, neginf=0.0).abs().max()) for _, exact in pairs[1:])
        for (found, exact), label in zip(pairs, ["the products", *weights.trainable], strict=True):
            scale = max(float(exact.nan_to_num(posinf=0.0, neginf=0.0).abs().max()), 1e-6 * largest)
            if not torch.allclose(found, exact, rtol=0.0, atol=2e-3 * scale + 1e-30, equal_nan=True):
                raise Uncaptured(f"a backward pass a sample says otherwise of {label}")


def _layers(captured: Captured) -> list[tuple[str, ...]]:
    """Name the layers that a batch went through, and how it did: sequences are of another length in every batch."""
    return [(type(use).__name__, use.kind.partition(":")[0], *use.names.values()) for use in captured.uses]
