"""Watching one run of a step: every call that takes a chosen parameter, what goes in, and what will come back."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
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
from lightning_inf.model.layers.shared import LAYOUTS, Shared
from lightning_inf.model.layers.use import Unsupported, Use
from lightning_inf.model.weights import Vector


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
        shared: Parameters whose ambiguous calls serve all samples at once.
    """

    def __init__(self, trainable: Vector, size: int, shared: Collection[str] = ()) -> None:
        super().__init__()
        self.size = size
        self._shared = shared
        self._chosen = {id(tensor): name for name, tensor in trainable.items()}
        self._given = trainable
        self.root = torch.zeros((), requires_grad=True)
        self.uses: list[Use] = []
        self.probes: dict[str, Tensor] = {}
        self.reasons: dict[str, str] = {}
        self._alone: dict[int, tuple[Tensor, Tensor, str]] = {}

    def __enter__(self) -> Watcher:
        """Begin anew: a run may be made twice."""
        self.uses, self.probes, self.reasons, self._alone = [], {}, {}, {}
        super().__enter__()
        return self

    def __torch_function__(
        self, func: Callable[..., Any], types: Iterable[type], args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Let every function pass; hook the output of those that take a chosen parameter."""
        kwargs = kwargs or {}
        taken = [name for name in map(self._named, tree_leaves((args, kwargs))) if name is not None]
        if not taken:
            return self._met(func, args, kwargs) if self._alone else func(*args, **kwargs)
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
            known = any(name in self._shared for name in use.names.values())
            if known and func is F.embedding and use.kind == "rows" and use.kept["input"].dim() > 1:
                return self._derived(func, args, kwargs, taken[0])  # as many positions as samples, by chance
            if use.ambiguous and known:
                use.kind = "shared"
        except Unsupported as reason:
            if func is F.embedding and len(taken) == 1:
                return self._derived(func, args, kwargs, taken[0])
            return self._probed(func, args, kwargs, taken, str(reason))
        return self._hooked(use.result(func(*args, **kwargs)), use)

    def _derived(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: Any, name: str) -> Tensor:
        """Look up what belongs to no sample: it is followed until it meets the samples."""
        leaf = self._given[name].detach().requires_grad_()
        swap = lambda one: leaf if self._named(one) == name else one  # noqa: E731
        made: Tensor = func(*tree_map(swap, args), **tree_map(swap, kwargs))
        self._alone[id(made)] = (made, leaf, name)
        return made

    def _met(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: Any) -> Any:
        """Give every sample its copy of what was made of a parameter alone."""
        found = {id(one): self._alone[id(one)] for one in tree_leaves((args, kwargs)) if id(one) in self._alone}
        if not found or _asks(func):
            return func(*args, **kwargs)
        if func in LAYOUTS and len(found) == 1:
            output = func(*args, **kwargs)
            self._alone[id(output)] = (output, *next(iter(found.values()))[1:])
            return output
        copies = {}
        for key, (made, leaf, name) in found.items():
            if len(made) == 1 and made.dim() > 1:
                copy = made.detach().expand(self.size, *made.shape[1:]).clone()
                copies[key] = self._hooked(copy, Shared({"weight": name}, self.size, "shared", made=made, leaf=leaf))
            else:  # not with the samples in front: refused if the losses depend on it
                self.probes.setdefault(name, leaf)
                self.reasons.setdefault(name, f"{name} meets the samples in {_title(func)} with no dimension for them")
        swap = lambda one: copies.get(id(one), one)  # noqa: E731
        return func(*tree_map(swap, args), **tree_map(swap, kwargs))

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
            if (whole := _whole(output)) is not None:
                shape = output.shape
                whole.register_hook(lambda gradient: use.keep(gradient.reshape(shape)))
                return output
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


def _whole(view: Tensor) -> Tensor | None:
    """Return the tensor that a layer's output is another shape of, which nobody else has; None where there is none to hook.

    A linear layer multiplies matrices, and shapes the result for sequences. What is written into the view later goes into
    the graph behind its base: hooks of the base are of what the layer returned.
    """
    base = view._base
    if base is None or not base.requires_grad or base.numel() != view.numel():
        return None
    return base if base.is_contiguous() and view.is_contiguous() else None


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
