"""Calls of ``torch.nn.functional.linear``, of vectors or of sequences of them, and of plain matrix products."""

from __future__ import annotations

from torch import Tensor

from lightning_inf.model.layers.outer import Outer
from lightning_inf.model.layers.tangents import Factors, Tangents
from lightning_inf.model.layers.use import by_sample


class Linear(Outer):
    """A call ``linear(input, weight, bias)``; keeps ``input`` of shape ``(B, ..., K)``."""

    @property
    def sizes(self) -> tuple[int, int, int, int]:
        """1, P, K and O."""
        taken = self.kept["input"]
        assert self.delta is not None
        width = taken.shape[-1]
        return 1, taken.numel() // (self.size * max(width, 1)), width, self.delta.shape[-1]

    def inputs(self, part: slice) -> Tensor:
        """Inputs of some samples, shape ``(b, 1, P, K)``."""
        return self._rows(self.kept["input"], part)

    def outputs(self, part: slice) -> Tensor:
        """Gradients with respect to the outputs of some samples, shape ``(b, 1, P, O)``."""
        assert self.delta is not None
        return self._rows(self.delta, part)

    def _rows(self, tensor: Tensor, part: slice) -> Tensor:
        rows = by_sample(tensor, self.size)[part]
        return rows.reshape(len(rows), 1, -1, tensor.shape[-1])

    def ordered(self, stack: Tensor) -> Tensor:
        """Bring directions of shape ``(T, O, K)`` to ``(T, 1, K, O)``."""
        return stack.transpose(1, 2).unsqueeze(1)

    def restored(self, gradients: Tensor) -> Tensor:
        """Bring gradients to ``(b, O, K)``."""
        return gradients.squeeze(1).transpose(1, 2)

    def factors(self, tangents: Tangents) -> Factors | None:
        """Directions of the weight; single samples' gradients are few outer products."""
        _, positions, width, outputs = self.sizes
        if 8 * positions * (width + outputs) > width * outputs:
            return super().factors(tangents)
        return tangents.factors(self.names["weight"])


class Product(Linear):
    """A call ``addmm(bias, input, weight)`` or ``matmul(input, weight)``: the weight lies the other way round."""

    @property
    def layout(self) -> str:
        """Tells it from a linear layer with the same square weight."""
        return "transposed"

    def ordered(self, stack: Tensor) -> Tensor:
        """Bring directions of shape ``(T, K, O)`` to ``(T, 1, K, O)``."""
        return stack.unsqueeze(1)

    def restored(self, gradients: Tensor) -> Tensor:
        """Bring gradients to ``(b, K, O)``."""
        return gradients.squeeze(1)

    def factors(self, tangents: Tangents) -> Factors | None:
        """Directions of the weight, as they are."""
        return Outer.factors(self, tangents)
