r"""Gradients that are sums of outer products over positions: linear layers and convolutions.

.. math:: g_i = \sum_p d_{ip} \, a_{ip}^\top

With V a direction, :math:`\langle g_i, V \rangle = \sum_p d_{ip}^\top V a_{ip}`, and the squared norm is
:math:`\sum_{pq} (a_{ip}^\top a_{iq}) (d_{ip}^\top d_{iq})`. Neither needs the gradient itself, but with many positions
or directions it is cheaper to have it.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

import torch
from torch import Tensor

from lightning_inf.model.layers.tangents import Factors, Tangents
from lightning_inf.model.layers.use import Use, row_products, row_squares

#: Products of shape (B, t) by the positions of their directions.
Products = dict[tuple[int, ...], Tensor]


class Outer(Use):
    """A use whose weight's gradient is a sum of outer products, and whose bias's is the sum of what comes back.

    With B samples, G groups, P positions, K inputs and O outputs (both of a group), subclasses give the factors.
    """

    outer: ClassVar[bool] = True

    @property
    @abstractmethod
    def sizes(self) -> tuple[int, int, int, int]:
        """G, P, K and O."""

    @abstractmethod
    def inputs(self, part: slice) -> Tensor:
        """Inputs of some samples, shape ``(b, G, P, K)``."""

    @abstractmethod
    def outputs(self, part: slice) -> Tensor:
        """Gradients with respect to the outputs of some samples, shape ``(b, G, P, O)``."""

    @abstractmethod
    def ordered(self, stack: Tensor) -> Tensor:
        """Bring directions of shape ``(T, *shape of the weight)`` to ``(T, G, K, O)``, in the order of the factors."""

    @abstractmethod
    def restored(self, gradients: Tensor) -> Tensor:
        """Bring gradients of shape ``(b, G, K, O)`` to ``(b, *shape of the weight)``."""

    def gradients(self, role: str, part: slice) -> Tensor:
        """Make the gradients of some samples."""
        if role == "bias":
            return self.outputs(part).sum(dim=2).flatten(1)
        return self.restored(summed(self.inputs(part), self.outputs(part)))

    def bytes_a_sample(self, role: str) -> int:
        """Bytes of a sample's gradient, and of its unfolded inputs."""
        groups, positions, width, outputs = self.sizes
        element = 4 if self.delta is None else self.delta.element_size()
        return element * groups * (outputs if role == "bias" else width * (outputs + positions))

    def factors(self, tangents: Tangents) -> Factors | None:
        """Directions of the weight, as outer products where these help; None where all are zero."""
        index, stack = tangents.stack(self.names["weight"])
        if stack is None:
            return None
        _, _, width, outputs = self.sizes
        nobody = torch.zeros(0, dtype=torch.long, device=stack.device)
        return Factors((), nobody, stack.new_zeros(0, outputs), stack.new_zeros(0, width), index, stack)

    def terms(self, role: str, tangents: Tangents | None, squares: bool) -> tuple[Products, Tensor | None]:
        """Multiply, without making the gradients where that takes fewer multiplications."""
        if role == "bias":
            return super().terms(role, tangents, squares)
        factors = None if tangents is None else self.factors(tangents)
        _, positions, width, outputs = self.sizes
        dense = 0 if factors is None else len(factors.rest_index)
        whole = positions * width * outputs
        without = dense * (whole if self.direct else positions * whole) + int(squares) * self._gram
        # Making them takes a copy of the unfolded inputs on top.
        made = whole + positions * width * int(positions > 1) + (dense + int(squares)) * width * outputs
        if without > made:
            return self._made(factors, tangents, squares)
        products = {} if factors is None else self._factored(factors)
        if factors is not None and factors.rest is not None:
            products[factors.rest_index] = self.along(factors.rest)
        return products, self._squares() if squares else None

    @property
    def direct(self) -> bool:
        """Whether :meth:`along` runs at full speed."""
        return True

    @property
    def _gram(self) -> int:
        """Multiplications a sample and group of a norm from the factors."""
        _, positions, width, outputs = self.sizes
        return positions**2 * (width + outputs)

    def along(self, stack: Tensor) -> Tensor:
        """Multiply with directions of shape ``(T, *shape of the weight)`` without gradients, shape ``(B, T)``."""
        everything = slice(0, self.size)
        inputs, outputs = self.inputs(everything), self.outputs(everything)
        columns = [
            (torch.matmul(inputs, one.to(inputs.dtype)) * outputs).sum(dim=(1, 2, 3)) for one in self.ordered(stack)
        ]
        return torch.stack(columns, dim=1)

    def _factored(self, factors: Factors) -> Products:
        """Multiply with directions that are few outer products each."""
        if not factors.index:
            return {}
        everything = slice(0, self.size)
        inputs, outputs = self.inputs(everything)[:, 0], self.outputs(everything)[:, 0]
        left = outputs @ factors.left.T.to(outputs.dtype)
        right = inputs @ factors.right.T.to(inputs.dtype)
        each = (left * right).sum(dim=1)
        found = each.new_zeros(self.size, len(factors.index)).index_add_(1, factors.owner, each)
        return {factors.index: found}

    def _squares(self) -> Tensor:
        """Compute squared norms from the factors, shape ``(B,)`` in fp64."""
        if self.sizes[1] == 1:
            everything = slice(0, self.size)
            pair = (self.inputs(everything).flatten(2), self.outputs(everything).flatten(2))
            rows = [row_squares(factor.flatten(0, 1)).reshape(self.size, -1) for factor in pair]
            return (rows[0] * rows[1]).sum(dim=1)
        found = []
        for part in self.slices("weight"):
            inputs, back = self.inputs(part), self.outputs(part)
            found.append(
                ((inputs @ inputs.transpose(2, 3)).double() * (back @ back.transpose(2, 3)).double()).sum(dim=(1, 2, 3))
            )
        return torch.cat(found)

    def _made(
        self, factors: Factors | None, tangents: Tangents | None, squares: bool
    ) -> tuple[Products, Tensor | None]:
        """Make the gradients in slices."""
        products = {} if factors is None else self._factored(factors)
        stack: Tensor | None = None
        if factors is not None and factors.rest is not None:
            assert tangents is not None
            rest = factors.rest
            key = ("columns", self.names["weight"], factors.rest_index, self.layout)
            stack = tangents.cached(key, lambda: self.ordered(rest).flatten(1).contiguous())
        dots, norms = [], []
        for part in self.slices("weight"):
            rows = summed(self.inputs(part), self.outputs(part)).flatten(1)
            if stack is not None:
                dots.append(row_products(rows, stack))
            if squares:
                norms.append(row_squares(rows))
        if factors is not None and dots:
            products[factors.rest_index] = torch.cat(dots)
        return products, torch.cat(norms) if squares else None

    @property
    def layout(self) -> str:
        """Names the order of K, which may depend on the call."""
        return "as it is"


class Together(Outer):
    """Several calls with one weight: their positions side by side.

    Args:
        calls: With equal G, K and O.
    """

    def __init__(self, calls: list[Outer]) -> None:
        first = calls[0]
        super().__init__({"weight": first.names["weight"]}, first.size, first.kind)
        self.calls = calls
        self.delta = first.delta

    @property
    def sizes(self) -> tuple[int, int, int, int]:
        """G, P of all calls, K and O."""
        groups, _, width, outputs = self.calls[0].sizes
        return groups, sum(call.sizes[1] for call in self.calls), width, outputs

    def inputs(self, part: slice) -> Tensor:
        """Inputs of some samples."""
        return torch.cat([call.inputs(part) for call in self.calls], dim=2)

    def outputs(self, part: slice) -> Tensor:
        """Gradients with respect to the outputs of some samples."""
        return torch.cat([call.outputs(part) for call in self.calls], dim=2)

    def ordered(self, stack: Tensor) -> Tensor:
        """Bring directions to the order of the factors."""
        return self.calls[0].ordered(stack)

    def restored(self, gradients: Tensor) -> Tensor:
        """Bring gradients to the weight's shape."""
        return self.calls[0].restored(gradients)


def summed(inputs: Tensor, outputs: Tensor) -> Tensor:
    """Sum outer products over positions.

    Args:
        inputs: Shape ``(b, G, P, K)``.
        outputs: Shape ``(b, G, P, O)``.

    Returns:
        Shape ``(b, G, K, O)``.
    """
    size, groups, _, width = inputs.shape
    found = torch.bmm(inputs.flatten(0, 1).transpose(1, 2), outputs.flatten(0, 1))
    return found.reshape(size, groups, width, outputs.shape[3])
