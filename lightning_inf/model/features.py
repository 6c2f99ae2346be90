"""What the last module of a model looks at: the features of a sample."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn


@dataclass
class Features:
    """The input of the head at its last call, one row a sample.

    Attributes:
        rows: Shape ``(B, d)``: dimensions between the first and the one that holds channels are averaged; None before
            the head was called.
    """

    rows: Tensor | None = None
    _seen: list[Any] = field(default_factory=list, repr=False)

    def keep(self, module: nn.Module, inputs: tuple[Any, ...]) -> None:
        """Note the input of a call; a hook for ``register_forward_pre_hook``."""
        if inputs and isinstance(inputs[0], Tensor) and inputs[0].dim() >= 2:
            self.rows = flat(inputs[0].detach(), isinstance(module, nn.modules.conv._ConvNd))


def head(module: nn.Module) -> nn.Module | None:
    """Find the last module that has trainable parameters of its own, None where there are none.

    In the order of registration, which is that of use in nearly every model; the same rule as ``parameters="head"``.

    Example:
        >>> net = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1))
        >>> head(net) is net[2]
        True
    """
    owner = None
    for part in module.modules():
        if any(parameter.requires_grad for parameter in part.parameters(recurse=False)):
            owner = part
    return owner


@contextlib.contextmanager
def watching_features(module: nn.Module) -> Iterator[Features]:
    """Note the features of the batch that runs inside the block.

    Args:
        module: The isolated module.

    Yields:
        The features, filled in once the head has been called.
    """
    found = Features()
    owner = head(module)
    handle = owner.register_forward_pre_hook(found.keep) if owner is not None else None
    try:
        yield found
    finally:
        if handle is not None:
            handle.remove()


def flat(value: Tensor, channels_first: bool) -> Tensor:
    """Average what lies between samples and channels: positions of an image, tokens of a sequence.

    Args:
        value: Shape ``(B, d)``, ``(B, T, d)``, or ``(B, d, ...)`` with ``channels_first``.
        channels_first: Whether the channels are the second dimension.

    Returns:
        Shape ``(B, d)``.

    Example:
        >>> import torch
        >>> flat(torch.arange(6.0).reshape(1, 3, 2), channels_first=False).tolist()
        [[2.0, 3.0]]
    """
    if value.dim() == 2:
        return value
    return value.flatten(2).mean(dim=2) if channels_first else value.flatten(1, -2).mean(dim=1)
