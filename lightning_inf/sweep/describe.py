"""What a model says of a batch, as columns."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_inf.model.sample_model import Outputs

#: Up to this many classes all probabilities are kept, else the largest.
MANY_CLASSES = 64
TOP = 16


def describe(outputs: Outputs) -> dict[str, Tensor]:
    """Turn a model's outputs into the columns of :class:`~lightning_inf.sweep.measurements.OutputsAt`.

    Args:
        outputs: Of B samples.

    Returns:
        Columns by name; only ``loss`` where there are no classes.
    """
    columns: dict[str, Tensor] = {"loss": outputs.loss.detach()}
    if outputs.logits is None or outputs.target is None:
        return columns
    logits = outputs.logits.detach()
    classes = logits.shape[1]
    valid = (outputs.target >= 0) & (outputs.target < classes)
    label = torch.where(valid, outputs.target, 0)[:, None]
    given = logits.gather(1, label).squeeze(1)
    others = logits.scatter(1, label, float("-inf"))
    probabilities = logits.softmax(dim=1)
    nothing = torch.full_like(given, float("nan"))
    columns["label"] = torch.where(valid, outputs.target, -1)
    columns["probability"] = torch.where(valid, probabilities.gather(1, label).squeeze(1), nothing)
    columns["margin"] = torch.where(valid, given - others.logsumexp(dim=1), nothing)
    columns["gap"] = torch.where(valid, given - others.max(dim=1).values, nothing)
    if classes <= MANY_CLASSES:
        columns["probabilities"] = probabilities
    else:
        columns["top"], columns["top_label"] = probabilities.topk(TOP, dim=1)
        columns["classes"] = torch.full_like(label.squeeze(1), classes)
    return columns
