"""Watching the loss functions that a ``training_step`` calls, or replacing their reduction."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor
from torch.overrides import TorchFunctionMode

from lightning_inf.model.drawing import Seen
from lightning_inf.model.losses import OBSERVED, LossCall, take_apart


@dataclass
class Trace:
    """One run of the user's step: what it returned, the loss calls and the random numbers it made."""

    returned: Any
    calls: list[LossCall] = field(default_factory=list)
    seen: list[Seen] = field(default_factory=list)


class LossObserver(TorchFunctionMode):
    """While active, keeps an unreduced copy of every loss computed with ``torch.nn.functional``.

    The user's code gets its own value, so ``.item()``, ``isfinite``, sums of terms and logging work as ever.

    Args:
        replace: Give the user's code the losses of the samples, shape ``(B,)``, in place of their mean or sum.
        once: Compute each loss once (see :func:`~lightning_inf.model.losses.take_apart`).
        samples: B, where the loss of sequences is flattened over their positions; None where each row is a sample.

    Attributes:
        calls: The calls seen, in order.

    Example:
        >>> import torch
        >>> with LossObserver() as observer:
        ...     loss = torch.nn.functional.mse_loss(torch.tensor([1.0, 3.0]), torch.zeros(2))
        >>> loss.item(), observer.calls[0].loss.tolist()
        (5.0, [1.0, 9.0])
    """

    def __init__(self, replace: bool = False, once: bool = False, samples: int | None = None) -> None:
        super().__init__()
        self.replace = replace
        self.once = once
        self.samples = samples
        self.calls: list[LossCall] = []

    def __torch_function__(
        self, func: Callable[..., Any], types: Iterable[type], args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Let every function pass; take the loss functions apart on the way."""
        if func not in OBSERVED:
            return func(*args, **(kwargs or {}))
        call = take_apart(func, args, kwargs or {}, self.once, self.samples)
        self.calls.append(call)
        return call.loss if self.replace else call.reduced


def step_loss(output: Any) -> Tensor | None:
    """Return the loss in what a ``training_step`` returned: a tensor, a mapping with ``loss``, or None."""
    if isinstance(output, dict):
        output = output.get("loss")
    return output if isinstance(output, Tensor) else None
