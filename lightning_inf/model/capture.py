"""Single samples' gradients of a whole batch, from one forward and one backward pass.

A ``TorchFunctionMode`` sees every call that takes a chosen parameter, keeps what goes in, and hooks the *output tensor* to
keep what comes back. Hooks of tensors stay right where hooks of modules are silently wrong: after an in-place ReLU, for a
module that is called twice, for tied weights and for functional calls. No gradient of a weight is computed on the way.
A parameter that is used in any other way is found out, because the losses then depend on a probe in its place.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from lightning_inf.model.layers.outer import Outer, Together
from lightning_inf.model.layers.tangents import Tangents
from lightning_inf.model.layers.use import Use, row_squares
from lightning_inf.model.output import Outputs, mean_outputs
from lightning_inf.model.sample_model import SampleModel, device_of
from lightning_inf.model.watcher import Watcher
from lightning_inf.model.weights import Vector, Weights


class Uncaptured(Exception):
    """A batch whose single samples' gradients can't be had this way; the message says why."""


@dataclass
class Captured:
    """What a batch of B samples left behind.

    Attributes:
        losses: Of each sample (or what stands in their place), shape ``(B,)``.
        outputs: What the model says of them.
        uses: Calls that took chosen parameters, in order.
    """

    losses: Tensor
    outputs: Outputs
    uses: list[Use]
    _by_name: dict[str, list[tuple[Use, str]]] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Sort the calls by parameter."""
        self._by_name = {}
        for use in self.uses:
            for role, name in use.names.items():
                if use.delta is not None:
                    self._by_name.setdefault(name, []).append((use, role))

    @torch.no_grad()  # what went into the layers may still hang on the graph
    def answer(
        self, tangents: Tangents | None, scales: Sequence[Mapping[str, float] | None] = ()
    ) -> tuple[Tensor, list[Tensor]]:
        """Multiply the samples' gradients with directions, and with themselves.

        Args:
            tangents: T directions, None for none.
            scales: For each squared norm that is wanted, a factor by parameter; a name without one counts nothing.
                None: all count once.

        Returns:
            Products of shape ``(B, T)`` and squared norms of shape ``(B,)``, in fp64.
        """
        size, device = len(self.losses), self.losses.device
        total = torch.zeros(size, 0 if tangents is None else len(tangents), dtype=torch.float64, device=device)
        norms = [torch.zeros(size, dtype=torch.float64, device=device) for _ in scales]
        every = tuple(range(total.shape[1]))
        for name in self._by_name:
            products, squares = self._terms(name, tangents, bool(scales))
            for index, columns in products:
                if index == every:
                    total += columns
                else:
                    total[:, list(index)] += columns.double()
            if squares is not None:
                for norm, scale in zip(norms, scales, strict=True):
                    norm += (1.0 if scale is None else scale.get(name, 0.0)) * squares
        return total, norms

    @torch.no_grad()
    def squared_norms(self, name: str) -> Tensor:
        """Squared norms of the samples' gradients of one parameter, shape ``(B,)`` in fp64."""
        if name not in self._by_name:
            return torch.zeros(len(self.losses), dtype=torch.float64, device=self.losses.device)
        squares = self._terms(name, None, True)[1]
        assert squares is not None
        return squares

    def _terms(
        self, name: str, tangents: Tangents | None, squares: bool
    ) -> tuple[list[tuple[tuple[int, ...], Tensor]], Tensor | None]:
        """Answer for one parameter; what several calls contribute adds up before it is squared."""
        calls = self._by_name[name]
        outer = [use for use, role in calls if isinstance(use, Outer) and role == "weight"]
        if (
            len(outer) > 1
            and len(outer) == len(calls)
            and len({(u.sizes[0], *u.sizes[2:], u.layout) for u in outer}) == 1
        ):
            calls = [(Together(outer), "weight")]
        alone = len(calls) == 1
        products: list[tuple[tuple[int, ...], Tensor]] = []
        norms = None
        for use, role in calls:
            found, norms = use.terms(role, tangents, squares and alone)
            products += found.items()
        if squares and not alone:
            parts = min((use.slices(role) for use, role in calls), key=lambda s: s[0].stop)
            summed = (sum(use.gradients(role, part) for use, role in calls) for part in parts)
            norms = torch.cat([row_squares(rows.flatten(1)) for rows in summed])  # type: ignore[union-attr]
        return products, norms

    def gradients(self, part: slice, like: Vector) -> Vector:
        """Make the gradients of some samples, by parameter name with shape ``(b, *shape)``.

        Args:
            part: Of the samples.
            like: The parameters; one that the losses don't depend on gets zero.
        """
        found = {}
        for name, tensor in like.items():
            count = len(self.losses[part])
            zero = tensor.new_zeros(count, *tensor.shape)
            found[name] = sum((use.gradients(role, part) for use, role in self._by_name.get(name, [])), zero)
        return found


def capture(
    model: SampleModel, weights: Weights, batch: Any, size: int, shared: Collection[str] = (), half: bool = False
) -> Captured:
    """Run a batch forward and backward.

    Args:
        model: The model.
        weights: Where.
        batch: A batch of ``size`` samples, on the weights' device.
        size: B.
        shared: Parameters that are looked up once for all samples where shapes leave that open.
        half: Run in bf16 what torch's automatic mixed precision runs in halves; products are taken in fp32 all the same.

    Returns:
        What single samples' gradients can be made of.

    Raises:
        Uncaptured: If the losses depend on a parameter in a way that can't be taken apart into samples, or the step
            writes into what a layer has taken.
    """
    draws = model.apart()
    device = device_of(weights).type
    # Without its cache, weights that were cast once would stay for as long as the mode does.
    with torch.autocast(device, torch.bfloat16, cache_enabled=False) if half else contextlib.nullcontext():
        found = [_run(one, weights, batch, size, 1 / len(draws), shared) for one in draws]
    if half:
        for _, _, uses in found:
            for use in uses:
                use.widen()
    losses = found[0][0] if len(found) == 1 else torch.stack([loss for loss, _, _ in found]).mean(dim=0)
    return Captured(
        losses, mean_outputs([outputs for _, outputs, _ in found]), [u for _, _, uses in found for u in uses]
    )


def _run(
    model: SampleModel, weights: Weights, batch: Any, size: int, share: float, shared: Collection[str]
) -> tuple[Tensor, Outputs, list[Use]]:
    """Run one draw of a batch forward, and its share of the mean over draws backward."""
    trainable = dict(weights.trainable)
    watcher = Watcher(trainable, size, shared)
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # it would hide a layer's calls from us
    try:
        with torch.enable_grad():
            trace = model.trace(trainable, weights.fixed, batch, watcher=watcher)
            losses = model.objective(trace)
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
    if losses.requires_grad:
        leaves = [watcher.root, *watcher.probes.values()]
        found = torch.autograd.grad(losses, leaves, torch.full_like(losses, share), allow_unused=True)
        for name, gradient in zip(watcher.probes, found[1:], strict=True):
            if gradient is not None:
                raise Uncaptured(watcher.reasons[name])
    if not all(use.intact for use in watcher.uses):
        raise Uncaptured("the step writes into what a layer has taken")
    return losses.detach(), model.read(trace), watcher.uses
