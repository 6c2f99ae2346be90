"""Single samples' gradients of a whole batch, from one forward and one backward pass.

A ``TorchFunctionMode`` sees every call that takes a chosen parameter, keeps what goes in, and hooks the *output tensor* to
keep what comes back. Hooks of tensors stay right where hooks of modules are silently wrong: after an in-place ReLU, for a
module that is called twice, for tied weights and for functional calls. No gradient of a weight is computed on the way.
A parameter that is used in any other way is found out, because the losses then depend on a probe in its place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function
from torch.overrides import TorchFunctionMode, resolve_name
from torch.utils._pytree import tree_leaves, tree_map

from lightning_inf.model.layers.attention import attend
from lightning_inf.model.layers.broadcast import ELEMENTWISE, REPEATING, Broadcast
from lightning_inf.model.layers.calls import CALLS, recognised
from lightning_inf.model.layers.outer import Outer, Together
from lightning_inf.model.layers.tangents import Tangents
from lightning_inf.model.layers.use import Unsupported, Use, row_squares
from lightning_inf.model.output import Outputs, mean_outputs
from lightning_inf.model.sample_model import SampleModel
from lightning_inf.model.weights import Vector, Weights


class Uncaptured(Exception):
    """A batch whose single samples' gradients can't be had this way; the message says why."""


class _Tap(Function):
    """Lets a gradient come back to an output below which nothing is differentiated, and keeps it."""

    @staticmethod
    def forward(ctx: Any, output: Tensor, root: Tensor, use: Use) -> Tensor:
        ctx.use = use
        ctx.mark_dirty(output)
        return output

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[None, None, None]:
        ctx.use.keep(gradients[0])
        return None, None, None


class Watcher(TorchFunctionMode):
    """Watches one run of a step.

    Args:
        trainable: The chosen parameters, as the step will be given them.
        size: The batch's number of samples.
    """

    def __init__(self, trainable: Vector, size: int) -> None:
        super().__init__()
        self.size = size
        self._chosen = {id(tensor): name for name, tensor in trainable.items()}
        self._given = trainable
        self.root = torch.zeros((), requires_grad=True)
        self.uses: list[Use] = []
        self.probes: dict[str, Tensor] = {}
        self.reasons: dict[str, str] = {}

    def __enter__(self) -> Watcher:
        """Begin anew: a run may be made twice."""
        self.uses, self.probes, self.reasons = [], {}, {}
        super().__enter__()
        return self

    def __torch_function__(
        self, func: Callable[..., Any], types: Iterable[type], args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Let every function pass; hook the output of those that take a chosen parameter."""
        kwargs = kwargs or {}
        taken = [name for name in map(self._named, tree_leaves((args, kwargs))) if name is not None]
        if not taken:
            return func(*args, **kwargs)
        try:
            if func is F.multi_head_attention_forward:
                return attend(args, kwargs, self._chosen, self._project)
            if func in ELEMENTWISE:
                spread = Broadcast.of(args, self._chosen, self.size)
                parts = list(args)
                parts[spread.place] = self._hooked(spread.spread(parts[spread.place]), spread)
                return func(*parts, **kwargs)
            if func in REPEATING:
                output = func(*args, **kwargs)
                return self._hooked(output.clone(), Broadcast.repeated(args[0], output, taken[0], self.size))
            use = recognised(func, args, kwargs, self._chosen, self.size)
        except Unsupported as reason:
            return self._probed(func, args, kwargs, taken, str(reason))
        return self._hooked(use.result(func(*args, **kwargs)), use)

    def _project(self, taken: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Compute a projection and watch it."""
        output = F.linear(taken, weight, bias)
        if not any(id(tensor) in self._chosen for tensor in (weight, bias)):
            return output
        return self._hooked(output, recognised(F.linear, (taken, weight, bias), {}, self._chosen, self.size))

    def _named(self, leaf: Any) -> str | None:
        return self._chosen.get(id(leaf)) if isinstance(leaf, Tensor) else None

    def _hooked(self, output: Tensor, use: Use) -> Tensor:
        """Keep the gradient that comes back to an output."""
        if not torch.is_grad_enabled():
            return output  # the user's code wants none
        self.uses.append(use)
        if output._is_view():
            # Writing into a view replaces its place in the graph, and the hook would stay behind.
            output = output.clone()
        if output.requires_grad:
            output.register_hook(use.keep)
            return output
        tapped: Tensor = _Tap.apply(output, self.root, use)
        return tapped

    def _probed(
        self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: Any, taken: Sequence[str], reason: str
    ) -> Any:
        """Run a function with probes in the place of parameters; what it returns may not matter for the losses."""
        plain = func(*args, **kwargs) if func not in CALLS and _asks(func) else None
        if plain is not None and not any(isinstance(leaf, Tensor) for leaf in tree_leaves(plain)):
            return plain  # a shape, a type
        for name in taken:
            self.probes.setdefault(name, self._given[name].detach().requires_grad_())
            self.reasons.setdefault(name, f"{name} is used by {_title(func)}: {reason}")
        swap = lambda leaf: self.probes.get(self._named(leaf) or "", leaf)  # noqa: E731
        return func(*tree_map(swap, args), **tree_map(swap, kwargs))


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
        for name in self._by_name:
            products, squares = self._terms(name, tangents, bool(scales))
            for index, columns in products:
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


def capture(model: SampleModel, weights: Weights, batch: Any, size: int) -> Captured:
    """Run a batch forward and backward.

    Args:
        model: The model.
        weights: Where.
        batch: A batch of ``size`` samples, on the weights' device.
        size: B.

    Returns:
        What single samples' gradients can be made of.

    Raises:
        Uncaptured: If the losses depend on a parameter in a way that can't be taken apart into samples, or the step
            writes into what a layer has taken.
    """
    draws = model.apart()
    found = [_run(one, weights, batch, size, 1 / len(draws)) for one in draws]
    losses = found[0][0] if len(found) == 1 else torch.stack([loss for loss, _, _ in found]).mean(dim=0)
    return Captured(
        losses, mean_outputs([outputs for _, outputs, _ in found]), [u for _, _, uses in found for u in uses]
    )


def _run(
    model: SampleModel, weights: Weights, batch: Any, size: int, share: float
) -> tuple[Tensor, Outputs, list[Use]]:
    """Run one draw of a batch forward, and its share of the mean over draws backward."""
    trainable = dict(weights.trainable)
    watcher = Watcher(trainable, size)
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


def _asks(func: Callable[..., Any]) -> bool:
    """Whether a function only asks for a property of a tensor."""
    return _title(func).rpartition(".")[2] in (
        "__get__",
        "size",
        "dim",
        "numel",
        "stride",
        "is_floating_point",
        "get_device",
    )


def _title(func: Callable[..., Any]) -> str:
    name = resolve_name(func)
    return name or getattr(func, "__name__", repr(func))
