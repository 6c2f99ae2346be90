"""The user's step as a module that ``functional_call`` takes, and the places in it that hold weights."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Sequence
from typing import Any

from lightning.pytorch import LightningModule
from torch import nn


class Step(nn.Module):
    """Makes a step of the LightningModule the ``forward`` that ``functional_call`` calls."""

    def __init__(self, inner: LightningModule, hook: str) -> None:
        super().__init__()
        self.inner = inner
        self.hook = hook
        parameters = inspect.signature(getattr(inner, hook)).parameters
        kinds = [p.kind for p in parameters.values()]
        self.takes_index = len(parameters) > 1 or inspect.Parameter.VAR_POSITIONAL in kinds
        self.train(inner.training)

    def forward(self, batch: Any, modes: Sequence[contextlib.AbstractContextManager[Any]], draw: int = 0) -> Any:
        """Run the step within modes, the last of them nearest to it; ``influence_step`` is told the draw."""
        index = draw if self.hook == "influence_step" else 0
        step = getattr(self.inner, self.hook)
        with contextlib.ExitStack() as stack:
            for mode in modes:
                stack.enter_context(mode)
            return step(batch, index) if self.takes_index else step(batch)


def slots(step: nn.Module, module: nn.Module) -> dict[str, str]:
    """Map every place in the step that holds a parameter or buffer, once, to the tensor's name in the module.

    A module that is registered under two names is one place, and tied weights are two places with one name.
    ``functional_call`` finds neither out right by itself when both occur.
    """
    names = {id(tensor): name for name, tensor in (*module.named_buffers(), *module.named_parameters())}
    slots = {}
    for prefix, part in step.named_modules():
        for name, tensor in (*part._parameters.items(), *part._buffers.items()):
            if tensor is not None:
                slots[f"{prefix}.{name}"] = names[id(tensor)]
    return slots
