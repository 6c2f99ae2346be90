"""Parameters that are added to every sample, multiplied with it, or repeated for it: positions, gains, class tokens."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from lightning_inf.model.layers.use import Unsupported, Use

#: Functions that take a parameter beside a tensor of samples, element by element.
ELEMENTWISE: frozenset[Callable[..., Any]] = frozenset(
    getattr(owner, name)
    for owner, names in (
        (torch, "add sub mul"),
        (Tensor, "add add_ sub mul mul_ __add__ __radd__ __iadd__ __sub__ __mul__ __rmul__ __imul__"),
    )
    for name in names.split()
)

#: Functions that repeat a parameter for every sample.
REPEATING: frozenset[Callable[..., Any]] = frozenset((Tensor.expand, Tensor.repeat))


class Broadcast(Use):
    """One parameter, once for each sample.

    Args:
        shape: Of the parameter.
        place: Position of the parameter among the arguments.
        rank: Dimensions of the tensor beside it.
        given: See :class:`~lightning_inf.model.layers.use.Use`.
    """

    def __init__(self, *given: Any, shape: torch.Size, place: int, rank: int, **kept: Any) -> None:
        super().__init__(*given, **kept)
        self.shape = shape
        self.place = place
        self.rank = rank

    @classmethod
    def of(cls, args: tuple[Any, ...], chosen: Mapping[int, str], size: int) -> Broadcast:
        """Recognise the call.

        Raises:
            Unsupported: If the parameter is not the same for every sample, or meets another parameter.
        """
        places = [i for i, value in enumerate(args[:2]) if id(value) in chosen]
        others = [value for value in args[:2] if isinstance(value, Tensor) and id(value) not in chosen]
        if len(places) != 1 or len(others) != 1:
            raise Unsupported("it does not meet a tensor of samples")
        parameter, other = args[places[0]], others[0]
        if other.dim() < max(parameter.dim(), 1) or len(other) != size:
            raise Unsupported(f"a tensor of shape {tuple(other.shape)} has not the batch's {size} samples in front")
        if parameter.dim() == other.dim() and len(parameter) != 1:
            raise Unsupported(f"a parameter of shape {tuple(parameter.shape)} has something else for every sample")
        names = {"weight": chosen[id(parameter)]}
        return cls(names, size, "broadcast", shape=parameter.shape, place=places[0], rank=other.dim())

    @classmethod
    def repeated(cls, parameter: Tensor, output: Tensor, name: str, size: int) -> Broadcast:
        """Recognise a repetition by what it returned.

        Raises:
            Unsupported: If it is not once for every sample.
        """
        same = parameter.dim() == output.dim() and parameter.shape[1:] == output.shape[1:]
        if not same or len(parameter) != 1 or len(output) != size:
            raise Unsupported(f"it is repeated to the shape {tuple(output.shape)} for {size} samples")
        return cls({"weight": name}, size, "broadcast", shape=parameter.shape, place=0, rank=output.dim())

    def spread(self, parameter: Tensor) -> Tensor:
        """Make a copy of the parameter for each sample, shape ``(B, ...)`` with :attr:`rank` dimensions."""
        aligned = parameter.reshape((1,) * (self.rank - parameter.dim()) + tuple(parameter.shape))
        return aligned.expand(self.size, *aligned.shape[1:]).clone()

    def bytes_a_sample(self, role: str) -> int:
        """Bytes of a sample's gradient."""
        return 4 * self.shape.numel()

    def gradients(self, role: str, part: slice) -> Tensor:
        """Gradients of some samples, shape ``(b, *shape)``."""
        assert self.delta is not None
        rows = self.delta[part]
        return rows.reshape(len(rows), *self.shape)
