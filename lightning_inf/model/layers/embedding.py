"""Calls of ``torch.nn.functional.embedding``."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lightning_inf.model.layers.tangents import Tangents
from lightning_inf.model.layers.use import Use, by_sample


class Embedding(Use):
    """A lookup; keeps ``input``, indices of shape ``(B, ...)``.

    Args:
        shape: Of the table, ``(rows, E)``.
        padding: The row that gets no gradient, None for none.
        given: See :class:`~lightning_inf.model.layers.use.Use`.
    """

    def __init__(self, *given: Any, shape: torch.Size, padding: int | None, **kept: Any) -> None:
        super().__init__(*given, **kept)
        self.shape = shape
        self.padding = None if padding is None else padding % shape[0]

    @property
    def ambiguous(self) -> bool:
        """Whether there are as many indices as samples: one each, or positions that all samples have."""
        return self.kind == "rows" and self.kept["input"].dim() == 1 and self.size > 1

    def result(self, output: Tensor) -> Tensor:
        """Give every sample rows of its own where one lookup serves all, of positions, say."""
        if self.kind != "shared":
            return output
        rows = output if len(output) == 1 else output.unsqueeze(0)
        return rows.expand(self.size, *rows.shape[1:]).clone()

    @property
    def _index(self) -> Tensor:
        """Indices of shape ``(B, P)``."""
        if self.kind == "shared":
            return self.kept["input"].reshape(1, -1).expand(self.size, -1)
        return by_sample(self.kept["input"], self.size).reshape(self.size, -1)

    def _back(self, part: slice) -> Tensor:
        """Gradients with respect to the looked up rows of some samples, shape ``(b, P, E)``; 0 for the padding."""
        assert self.delta is not None
        rows = by_sample(self.delta, self.size)[part]
        back = rows.reshape(len(rows), -1, self.shape[1])
        if self.padding is None:
            return back
        return back * (self._index[part] != self.padding).unsqueeze(2)

    def bytes_a_sample(self, role: str) -> int:
        """Bytes of a sample's gradient."""
        return 4 * self.shape.numel()

    def gradients(self, role: str, part: slice) -> Tensor:
        """Make the gradients of some samples, shape ``(b, rows, E)``."""
        back, index = self._back(part), self._index[part]
        table = back.new_zeros(len(back), *self.shape)
        return table.scatter_add_(1, index.unsqueeze(2).expand_as(back), back)

    def terms(
        self, role: str, tangents: Tangents | None, squares: bool
    ) -> tuple[dict[tuple[int, ...], Tensor], Tensor | None]:
        """Look the directions up; for norms, add up what comes back to one row, by comparing positions."""
        products: dict[tuple[int, ...], Tensor] = {}
        everything = slice(0, self.size)
        index, stack = tangents.stack(self.names[role]) if tangents is not None else ((), None)
        if stack is not None:
            back, places = self._back(everything), self._index
            columns = [(one.to(back.dtype)[places] * back).sum(dim=(1, 2)) for one in stack]
            products[index] = torch.stack(columns, dim=1)
        return products, self._squares() if squares else None

    def _squares(self) -> Tensor:
        """Sum products of what comes back to equal rows, shape ``(B,)`` in fp64."""
        found, positions = [], self._index.shape[1]
        each = max(1, (32 << 20) // max(8 * positions**2, 1))
        for start in range(0, self.size, each):
            part = slice(start, start + each)
            back, index = self._back(part), self._index[part]
            same = index.unsqueeze(2) == index.unsqueeze(1)
            found.append(((back @ back.transpose(1, 2)).double() * same).sum(dim=(1, 2)))
        return torch.cat(found)
