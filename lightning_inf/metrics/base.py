"""What the metrics share: list states that survive chunking, merging and an idle worker, and JSON-safe numbers."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric


def number_or_none(value: Tensor | float) -> float | None:
    """Turn a scalar into a plain number, with ``None`` in place of NaN, which JSON cannot carry.

    Args:
        value: scalar tensor or number.

    Returns:
        The number, or ``None`` where it is NaN.

    Example:
        >>> number_or_none(torch.tensor(0.5)), number_or_none(float("nan"))
        (0.5, None)
    """
    number = float(value)
    return None if math.isnan(number) else number


class PooledMetric(Metric):
    """A metric that keeps what it was given and looks at all of it in ``compute``.

    Results are plain numbers, lists and dicts; an undefined one is ``None``. ``json.dumps`` turns the whole-number
    keys some of them have into strings.

    Example:
        >>> class Total(PooledMetric):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.add_pool("values", torch.float64)
        ...     def update(self, values):
        ...         self.keep("values", values)
        ...     def compute(self):
        ...         return number_or_none(self.pooled("values").sum())
        >>> metric = Total()
        >>> metric.update(torch.tensor([1.0, 2.0]))
        >>> metric.update(torch.tensor([3.0]))
        >>> metric.compute()
        6.0
    """

    is_differentiable: bool = False
    full_state_update: bool = False

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._pool_dtypes: dict[str, torch.dtype] = {}

    def add_pool(self, name: str, dtype: torch.dtype) -> None:
        """Declare a state that collects one-dimensional tensors of one dtype and is concatenated across workers.

        Args:
            name: attribute the list is kept under.
            dtype: dtype of every tensor appended to it.
        """
        self.add_state(name, default=[], dist_reduce_fx="cat")
        self._pool_dtypes[name] = dtype

    def keep(self, name: str, values: Tensor) -> None:
        """Append a chunk to a state, as a copy: the caller may go on to reuse its buffer.

        Args:
            name: a name given to ``add_pool``.
            values: tensor of any shape, kept flat.
        """
        getattr(self, name).append(values.to(self._pool_dtypes[name], copy=True).flatten())

    def pooled(self, name: str) -> Tensor:
        """Concatenate a state, in order of arrival.

        Args:
            name: a name given to ``add_pool``.

        Returns:
            Everything collected so far, shape ``(count,)``, empty when nothing was.
        """
        collected: list[Tensor] | Tensor = getattr(self, name)
        # after a sync across workers torchmetrics leaves one tensor in place of the list
        if isinstance(collected, Tensor):
            return collected
        if not collected:
            return torch.empty(0, dtype=self._pool_dtypes[name], device=self.device)
        return torch.cat(collected)

    def sync(self, *args: Any, **kwargs: Any) -> None:
        """Gather the states of all workers; see ``torchmetrics.Metric.sync``.

        torchmetrics stands in a float32 tensor for a worker that saw no data, whose dtype then differs from that of
        the others and breaks the gather. An empty tensor of the right dtype is put there first.
        """
        for name, dtype in self._pool_dtypes.items():
            collected: list[Tensor] | Tensor = getattr(self, name)
            if isinstance(collected, list) and not collected:
                collected.append(torch.empty(0, dtype=dtype, device=self.device))
        super().sync(*args, **kwargs)
