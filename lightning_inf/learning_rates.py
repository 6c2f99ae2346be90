"""The learning rate of every parameter, as it was in force at the last optimiser step."""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.optim import Optimizer


class LearningRates:
    """Remembers the learning rates of each optimiser's parameter groups.

    Schedulers step before Lightning's ``on_train_epoch_end``, so what stands in the optimiser there belongs to the
    *next* step. Call :meth:`observe` in ``on_before_optimizer_step`` instead: it sees schedulers by step and by epoch,
    warm-up in an overridden ``optimizer_step``, several groups and manual optimisation.

    Example:
        >>> import torch
        >>> net = torch.nn.Linear(2, 1)
        >>> rates = LearningRates()
        >>> rates.observe(torch.optim.SGD([{"params": [net.weight], "lr": 0.5}, {"params": [net.bias], "lr": 0.1}]))
        >>> rates.by_name(net)
        {'weight': 0.5, 'bias': 0.1}
    """

    def __init__(self) -> None:
        self._seen: dict[int, tuple[Optimizer, list[float]]] = {}

    def observe(self, optimizer: Optimizer) -> None:
        """Note the learning rates of ``optimizer`` right before it steps. Costs a list of floats."""
        self._seen[id(optimizer)] = (optimizer, [float(group["lr"]) for group in optimizer.param_groups])

    def by_name(self, module: nn.Module) -> dict[str, float]:
        """Map each trainable parameter's name to its learning rate; parameters of no optimiser are left out."""
        names = {id(parameter): name for name, parameter in module.named_parameters()}
        rates: dict[str, float] = {}
        for optimizer, values in self._seen.values():
            for group, rate in zip(optimizer.param_groups, values, strict=False):  # a group added since has not stepped
                rates.update({names[id(p)]: rate for p in group["params"] if id(p) in names})
        return rates

    def __getstate__(self) -> dict[str, Any]:
        # Copies (a deep copy of the module, a spawned process) start empty: optimisers are not ours to copy.
        return {}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._seen = {}
