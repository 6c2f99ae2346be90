"""Which way to a derivative is taken, by what each costs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

#: How derivatives are taken. ``auto``: the cheapest exact way. ``layers``: products in the layers, from one backward pass a
#: batch. ``vmap``: each sample's gradient, materialised. ``jvp``: forward-mode differentiation. ``central`` and
#: ``one_sided``: differences of losses.
Backend = Literal["auto", "layers", "jvp", "central", "one_sided", "vmap"]

#: How images and kernels lie in memory.
Layout = Literal["contiguous", "channels_last"]

#: From this many tangents on gradients pay, where nothing was measured.
_MANY = 5


@dataclass(frozen=True)
class Ways:
    """What is to be had, and for how much. Decided once, on the first batches, by the first process.

    Attributes:
        layers: Whether the model's gradients come apart in its layers; None where it has yet to be found out.
        reason: Why they don't.
        captured: Seconds a sample of the backward pass that products in the layers need.
        product: Seconds a sample of each such product.
        derivative: Seconds a sample of a derivative along one tangent without gradients.
        gradient: Seconds a sample of its gradient, materialised.
        layout: How images and kernels lie in memory.
        forward: Seconds a sample of a forward pass, by layout, for the report.
    """

    layers: bool | None = None
    reason: str | None = None
    captured: float = 0.0
    product: float = 0.0
    derivative: float = 0.0
    gradient: float = 0.0
    layout: Layout = "contiguous"
    forward: Mapping[str, float] | None = None

    def pick(self, tangents: int, norms: bool, backend: Backend = "auto") -> Literal["layers", "vmap", "jvp"]:
        """Pick the cheapest exact way.

        Args:
            tangents: How many derivatives of a sample are asked.
            norms: Whether its gradient's length is asked as well.
            backend: The user's choice; what it can't answer is chosen for them.
        """
        through = "vmap" if backend == "vmap" or self.layers is False else "layers"
        if norms or backend in ("layers", "vmap"):
            return through  # type: ignore[return-value]
        costs = self.costs(tangents)
        if backend == "jvp" or not costs[through] or not costs["jvp"]:  # or nothing was measured
            return "jvp" if backend == "jvp" or (through == "vmap" and tangents < _MANY) else through  # type: ignore[return-value]
        return through if costs[through] <= costs["jvp"] else "jvp"  # type: ignore[return-value]

    def costs(self, tangents: int) -> dict[str, float]:
        """Seconds a sample of each way to some derivatives; 0 where it was not measured."""
        return {
            "layers": self.captured and self.captured + tangents * self.product,
            "vmap": self.gradient,
            "jvp": tangents * self.derivative,
        }

    def described(self) -> dict[str, Any]:
        """Return plain values for the manifest, from which it can be made again."""
        return asdict(self)
