"""What is made of a parameter alone, once for the whole batch, and then meets every sample: relative positions, say."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from lightning_inf.model.layers.use import Use

#: Functions of one tensor that only lay it out anew.
LAYOUTS: frozenset[Callable[..., Any]] = frozenset(
    getattr(owner, name)
    for owner, names in (
        (torch, "permute transpose unsqueeze squeeze reshape"),
        (
            Tensor,
            "permute transpose unsqueeze squeeze reshape view contiguous to float flatten unflatten __getitem__",
        ),
    )
    for name in names.split()
)


class Shared(Use):
    """A tensor with one row for all samples, of which each was given a copy.

    Args:
        made: The tensor, of shape ``(1, ...)``, with the graph of how it was made.
        leaf: Stands for the parameter in that graph.
        given: See :class:`~lightning_inf.model.layers.use.Use`.
    """

    def __init__(self, *given: Any, made: Tensor, leaf: Tensor, **kept: Any) -> None:
        super().__init__(*given, **kept)
        self.made = made
        self.leaf = leaf

    def bytes_a_sample(self, role: str) -> int:
        """Bytes of a sample's gradient, and of what came back to its copy."""
        return 4 * (self.leaf.numel() + self.made.numel())

    def gradients(self, role: str, part: slice) -> Tensor:
        """Carry what came back to the copies of some samples on to the parameter, shape ``(b, *shape)``."""
        assert self.delta is not None
        back = self.delta[part].unsqueeze(1)
        found: Tensor = torch.autograd.grad(self.made, self.leaf, back, retain_graph=True, is_grads_batched=True)[0]
        return found
