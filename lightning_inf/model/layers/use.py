"""One call of a function that takes chosen parameters."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from lightning_inf.model.layers.tangents import Tangents

#: Bytes of unfolded inputs and single samples' gradients that a layer holds at once. Small enough for a processor's cache
#: to be of use, large enough that starting an operation doesn't count.
SLICE_BYTES = 32 << 20

_BLOCK = 1024


class Unsupported(Exception):
    """A call whose samples can't be told apart; the message says why."""


class Use(ABC):
    """What went into a call and what came back, of B samples.

    Args:
        names: Names of the chosen parameters it takes, by role (``weight``, ``bias``).
        size: B.
        kind: How the samples lie in the input: see :func:`kind_of`.
        kept: The tensors of the call that are needed afterwards.

    Attributes:
        delta: Gradient of the samples' losses with respect to the call's output; None before the backward pass, and
            where the losses don't depend on it.
    """

    #: Whether the gradient is a sum of outer products, so that several calls' can be put side by side.
    outer: ClassVar[bool] = False

    def __init__(self, names: Mapping[str, str], size: int, kind: str, **kept: Any) -> None:
        self.names = dict(names)
        self.size = size
        self.kind = kind
        self.delta: Tensor | None = None
        self.kept = kept
        self._versions = {key: _version(value) for key, value in kept.items()}

    @property
    def ambiguous(self) -> bool:
        """Whether the shapes leave open what is a sample's: then the call may serve all samples at once."""
        return False

    def keep(self, gradient: Tensor) -> None:
        """Take what comes back; a hook of the output tensor."""
        self.delta = gradient if self.delta is None else self.delta + gradient

    def result(self, output: Tensor) -> Tensor:
        """Return what the step is to get for a call's output."""
        return output

    @property
    def intact(self) -> bool:
        """Whether nobody has written into the call's tensors since."""
        return all(_version(value) == self._versions[key] for key, value in self.kept.items())

    def widen(self) -> None:
        """Bring what went in and came back in halves to fp32, in which products are taken."""
        self.kept = {key: _wide(value) for key, value in self.kept.items()}
        self.delta = _wide(self.delta)

    def terms(
        self, role: str, tangents: Tangents | None, squares: bool
    ) -> tuple[dict[tuple[int, ...], Tensor], Tensor | None]:
        """Multiply each sample's gradient of one parameter with tangents, and with itself.

        Args:
            role: Of the parameter.
            tangents: T directions, or None.
            squares: Whether squared norms are wanted.

        Returns:
            Products of shape ``(B, t)`` by the positions of their tangents, those that are zero left out, and squared
            norms of shape ``(B,)`` in fp64.
        """
        index, stack = tangents.stack(self.names[role]) if tangents is not None else ((), None)
        products, norms = [], []
        for part in self.slices(role):
            rows = self.gradients(role, part).flatten(1)
            if stack is not None:
                products.append(row_products(rows, stack.flatten(1)))
            if squares:
                norms.append(row_squares(rows))
        return ({index: torch.cat(products)} if products else {}), (torch.cat(norms) if squares else None)

    @abstractmethod
    def gradients(self, role: str, part: slice) -> Tensor:
        """Make the gradients of some samples, shape ``(b, *shape of the parameter)``."""

    @abstractmethod
    def bytes_a_sample(self, role: str) -> int:
        """Bytes that :meth:`gradients` holds for each sample."""

    def slices(self, role: str) -> list[slice]:
        """Cut the samples so that :meth:`gradients` stays within :data:`SLICE_BYTES`."""
        each = max(1, SLICE_BYTES // max(self.bytes_a_sample(role), 1))
        return [slice(start, min(start + each, self.size)) for start in range(0, self.size, each)]


def kind_of(tensor: Tensor, size: int) -> str:
    """Say how B samples lie in a tensor: ``rows``, one each in the first dimension, or ``flat:r``, r rows each.

    Raises:
        Unsupported: If neither.
    """
    count = len(tensor) if tensor.dim() else 0
    if count == size:
        return "rows"
    if count and count % size == 0:
        return f"flat:{count // size}"
    raise Unsupported(f"its input of shape {tuple(tensor.shape)} has not the batch's {size} samples in front")


def by_sample(tensor: Tensor, size: int) -> Tensor:
    """Put B samples in front: from ``(B r, ...)`` to ``(B, r, ...)``; what has B rows stays."""
    return tensor if len(tensor) == size else tensor.reshape(size, -1, *tensor.shape[1:])


def row_products(rows: Tensor, stack: Tensor) -> Tensor:
    """Multiply rows with directions.

    Few directions and many rows: a processor's libraries are up to three times faster with the directions on the left.

    Args:
        rows: Shape ``(b, d)``.
        stack: Shape ``(T, d)``.

    Returns:
        Shape ``(b, T)``.
    """
    return (stack.to(rows.dtype) @ rows.T).T


def row_squares(rows: Tensor) -> Tensor:
    """Sum the squares of each row in fp64, without a copy of the rows in fp64.

    Blocks of 1,024 keep fp32's rounding at 1e-7, which one long sum would not.

    Args:
        rows: Shape ``(b, d)``.

    Returns:
        Shape ``(b,)``.
    """
    whole = rows.shape[1] // _BLOCK * _BLOCK
    blocks = (
        torch.linalg.vector_norm(rows[:, :whole].reshape(len(rows), -1, _BLOCK), dim=2).double().square().sum(dim=1)
    )
    return blocks + rows[:, whole:].double().square().sum(dim=1)


def _wide(value: Any) -> Any:
    return value.float() if isinstance(value, Tensor) and value.dtype in (torch.bfloat16, torch.float16) else value


def _version(value: Any) -> int:
    return value._version if isinstance(value, Tensor) and not value.is_inference() else -1
