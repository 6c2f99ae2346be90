"""What a model says of a batch, and its neighbours do, as columns."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lightning_inf.model.beliefs import Bank
from lightning_inf.model.output import Outputs
from lightning_inf.model.weights import Vector

#: Up to this many classes all probabilities are kept, else the largest.
MANY_CLASSES = 64
TOP = 16


def describe(outputs: Outputs) -> dict[str, Tensor]:
    """Turn a model's outputs into the columns of :class:`~lightning_inf.sweep.measurements.OutputsAt`.

    Args:
        outputs: Of B samples.

    Returns:
        Columns by name; only ``loss`` where there are neither classes nor single numbers.
    """
    columns: dict[str, Tensor] = {"loss": outputs.loss.detach()}
    if outputs.prediction is not None and outputs.value is not None:
        return columns | {"prediction": outputs.prediction.detach(), "target": outputs.value.detach()}
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


def known(stored: Vector, indices: Sequence[int]) -> dict[str, Tensor] | None:
    """Look up what a neighbourhood has said of the samples in it; None where one of the batch is not.

    Args:
        stored: What :class:`~lightning_inf.probes.neighbourhood.Neighbourhood` made.
        indices: Of the batch's samples in the training data.

    Returns:
        The columns of :class:`~lightning_inf.sweep.measurements.BeliefsAt`, without a forward pass.
    """
    place = _places(stored, indices)
    if bool((place < 0).any()):
        return None
    return {"linear": stored["own_linear"][place].half(), "votes": stored["own_votes"][place].half()}


def consult(stored: Vector, rows: Tensor, indices: Sequence[int]) -> dict[str, Tensor]:
    """Ask a neighbourhood about a batch.

    Args:
        stored: What :class:`~lightning_inf.probes.neighbourhood.Neighbourhood` made.
        rows: Features of B samples, shape ``(B, d)``.
        indices: Of the samples in the training data.

    Returns:
        The columns of :class:`~lightning_inf.sweep.measurements.BeliefsAt`.
    """
    bank = Bank(**{name: stored[name] for name in Bank.__dataclass_fields__})
    place, features = _places(stored, indices), bank.prepared(rows)
    return {"linear": bank.linear(features, place).half(), "votes": bank.votes(features, place).half()}


def _places(stored: Vector, indices: Sequence[int]) -> Tensor:
    """Find each sample's row in the bank, -1 where it has none; shape ``(B,)``."""
    index = stored["index"]
    wanted = torch.tensor(indices, device=index.device)
    place = torch.searchsorted(index, wanted).clamp_max(len(index) - 1)
    return torch.where(index[place] == wanted, place, -1)
