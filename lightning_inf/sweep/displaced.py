"""The losses of a batch at many displaced heads at once."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.func import vmap

from lightning_inf.data.batches import out_of_memory
from lightning_inf.model.sample_model import SampleModel
from lightning_inf.model.weights import Vector, Weights

#: Bytes of intermediate results that are held at once.
BYTES = 256 << 20


def losses_at(model: SampleModel, weights: Weights, steps: Sequence[Vector], batch: Any) -> Tensor | None:
    """Compute the losses of B samples at each of M displacements of the weights.

    Only for a batch whose trunk is shared (see :meth:`~lightning_inf.model.sample_model.SampleModel.share`): what is left
    of the step is then small, and mostly the time it takes to start it, so ``vmap`` starts it once for many.

    Args:
        model: The model.
        weights: Where the displacements start.
        steps: M displacements; a missing name is zero.
        batch: A batch of B samples.

    Returns:
        Shape ``(M, B)``; None where there is no trunk, only one displacement, or a step that ``vmap`` doesn't take.
    """
    record = model.trunk.of(weights.fixed, batch)
    if record is None or len(steps) < 2:
        return None
    held = record.after + sum(t.nbytes for t in weights.trainable.values())
    each = max(1, BYTES // max(2 * held, 1))
    with torch.no_grad():
        alone = model.losses(weights.moved(steps[0]).trainable, weights.fixed, batch)
        try:
            parts = [_together(model, weights, steps[i : i + each], batch) for i in range(0, len(steps), each)]
        except (RuntimeError, ValueError, TypeError, IndexError, NotImplementedError) as error:
            if out_of_memory(error):
                raise
            return None
    found = torch.cat(parts)
    # One in M is looked at on every batch; where `vmap` makes something else of the step, it is not used.
    same = found.shape[1:] == alone.shape and torch.allclose(found[0], alone, rtol=1e-4, atol=1e-5, equal_nan=True)
    return found if same else None


def _together(model: SampleModel, weights: Weights, steps: Sequence[Vector], batch: Any) -> Tensor:
    """Vectorise over displacements."""
    stacked = {
        name: torch.add(tensor, torch.stack([step.get(name, torch.zeros_like(tensor)) for step in steps]))
        for name, tensor in weights.trainable.items()
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # "performance drop" of an operator without a rule
        found: Tensor = vmap(lambda trainable: model.losses(trainable, weights.fixed, batch))(stacked)
    return found
