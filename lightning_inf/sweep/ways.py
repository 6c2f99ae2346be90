"""Which way to a derivative is taken, by what each costs."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import asdict, dataclass
from typing import Any, Literal

from lightning_inf.data.batches import Layout

#: How derivatives are taken. ``auto``: the cheapest exact way. ``layers``: products in the layers, from one backward pass a
#: batch. ``vmap``: each sample's gradient, materialised. ``jvp``: forward-mode differentiation. ``central`` and
#: ``one_sided``: differences of losses.
Backend = Literal["auto", "layers", "jvp", "central", "one_sided", "vmap"]

Way = Literal["layers", "vmap", "jvp"]

#: From this many tangents on gradients pay, where nothing was measured.
_MANY = 5


@dataclass(frozen=True)
class Ways:
    """What is to be had, and for how much. Decided once, on the first batches, by the first process.

    Attributes:
        layers: Whether the model's gradients come apart in its layers; None where it has yet to be found out.
        reason: Why they don't.
        captured: Seconds a sample of the forward and backward pass that products in the layers need.
        product: Seconds a sample of each such product.
        derivative: Seconds a sample of a derivative along one tangent without gradients.
        gradient: Seconds a sample of its gradient's length, as it is taken.
        layout: How images lie in memory.
        materialised: Seconds a sample of its gradient, materialised, with its products; 0 where it was not measured, for it
            can't be cheaper than the layers.
        contiguous: Seconds a sample of a forward pass in the usual layout, 0 where it was not measured.
        channels_last: The same with the channels last, 0 where the model has no use for it.
        compiled: Seconds a sample of a compiled forward pass, 0 where it is not used.
        compiled_reason: Why it is used, or why not.
        half: Whether the passes that products in the layers need run in bf16.
        half_reason: Why they do, or why not, with how far the products are off.
    """

    layers: bool | None = None
    reason: str | None = None
    captured: float = 0.0
    product: float = 0.0
    derivative: float = 0.0
    gradient: float = 0.0
    layout: Layout = "contiguous"
    contiguous: float = 0.0
    channels_last: float = 0.0
    materialised: float = 0.0
    compiled: float = 0.0
    compiled_reason: str = "it was not asked for (compile=True)"
    half: bool = False
    half_reason: str = "it was not asked for (bf16=True)"

    def pick(self, tangents: int, norms: bool, backend: Backend = "auto") -> Way:
        """Pick the cheapest exact way.

        Args:
            tangents: How many derivatives of a sample are asked.
            norms: Whether its gradient's length is asked as well.
            backend: The user's choice; what it can't answer is chosen for them.
        """
        through: Way = "vmap" if backend == "vmap" or self.layers is False else "layers"
        if norms or backend in ("layers", "vmap"):
            return through
        if backend == "jvp":
            return "jvp"
        costs = {way: cost for way, cost in self.costs(tangents).items() if cost}
        if through not in costs:  # nothing was measured
            return "jvp" if through == "vmap" and tangents < _MANY else through
        return min(costs, key=lambda way: costs[way])

    def costs(self, tangents: int) -> dict[Way, float]:
        """Seconds a sample of each way to some derivatives; 0 where it was not measured."""
        return {
            "layers": self.captured and self.captured + tangents * self.product,
            "vmap": self.materialised if self.layers else self.gradient,
            "jvp": tangents * self.derivative,
        }

    def cheapest(self, tangents: Collection[int] | None) -> bool:
        """Whether products in the layers cost less than as many forward passes, which no other way can do without.

        Args:
            tangents: How many derivatives may be asked at a set of weights; None: any number.
        """
        if not self.layers or tangents is None:
            return False
        forward = self.channels_last if self.layout == "channels_last" else self.contiguous
        return all(self.costs(count)["layers"] <= count * forward for count in tangents if count)

    def described(self) -> dict[str, Any]:
        """Return plain values for the manifest, from which it can be made again."""
        return asdict(self)

    def explained(self, asked: Iterable[tuple[int, bool]], backend: Backend) -> dict[str, Any]:
        """Say what was chosen and why, for the summary.

        Args:
            asked: For each set of weights, how many derivatives are asked there, and whether lengths are.
            backend: The user's choice.
        """
        return {
            "layout": self.layout,
            "layout_reason": self._layout_reason(),
            "compiled": bool(self.compiled),
            "compiled_reason": self.compiled_reason,
            "bf16": self.half,
            "bf16_reason": self.half_reason,
            "derivatives": [self._choice(*one, backend) for one in sorted(set(asked)) if any(one)],
        }

    def _layout_reason(self) -> str:
        if not self.contiguous:
            return "nothing was asked for which it was worth measuring"
        if not self.channels_last:
            return "the model has no two-dimensional convolutions, or does not take images with their channels last"
        return (
            f"with the channels last a forward pass takes {self.channels_last / self.contiguous:.2f} of the usual time"
        )

    def _choice(self, tangents: int, norms: bool, backend: Backend) -> dict[str, Any]:
        """Describe what is chosen for one set of weights, with costs in forward passes."""
        differences = backend in ("central", "one_sided")
        forward = self.channels_last if self.layout == "channels_last" else self.contiguous
        costs = {way: round(cost / forward, 2) for way, cost in self.costs(tangents).items() if cost and forward}
        if differences and tangents:
            reason = f"backend={backend!r} was asked for"
        elif backend != "auto":
            reason = f"backend={backend!r} was asked for, where it can answer"
        elif self.layers is False:
            reason = f"the gradients don't come apart in the layers: {self.reason}"
        elif norms:
            reason = "lengths of gradients are asked, and one backward pass a batch gives both"
        else:
            reason = "it is the cheapest exact way"
        way = backend if differences and not norms else self.pick(tangents, norms, backend)
        return {"tangents": tangents, "norms": norms, "way": way, "reason": reason, "forward_passes": costs}
