"""Checks that a module's loss comes apart into losses of samples, on real ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from lightning_inf.model.losses import LossCall
from lightning_inf.model.observe import step_loss
from lightning_inf.model.sample_model import SampleModel
from lightning_inf.model.weights import Weights

RTOL = 1e-5

#: Makes a batch on the device from sample indices.
Batches = Callable[[Sequence[int]], Any]

_PADDING = (
    "; batches of sequences must be padded without effect: labels of -100 at the padding, an attention_mask or causal"
    " attention with the padding on the right, and positions that count from the first token"
)


class Unfit(Exception):
    """A mode that isn't right for the module, and why."""


def check_length(loss: Tensor, indices: list[int]) -> None:
    """Check that there is one loss a sample."""
    if loss.shape != (len(indices),):
        raise Unfit(f"expected losses of shape ({len(indices)},), one a sample, found {tuple(loss.shape)}")


def check_halves(
    model: SampleModel,
    weights: Weights,
    batches: Batches,
    indices: list[int],
    loss: Tensor,
    scale: Tensor | None,
    call: LossCall | None = None,
) -> None:
    """Check that each half of the batch, collated alone, has its half of the losses.

    Sequences are cut into the shorter and the longer ones: where batches are padded to their longest, at least one half
    is then padded less than the whole, and a loss that padding has a part in is found out.
    """
    if len(indices) < 2:
        return
    count = torch.zeros(len(indices)) if call is None else call.count
    order, half = count.argsort(stable=True).tolist(), len(indices) // 2
    # Losses near zero inherit the rounding of the logits they are made from.
    rounding = 64 * torch.finfo(loss.dtype).eps * (_largest(scale) if scale is not None else 0.0)
    atol = RTOL * _largest(loss) + rounding
    for part in (order[:half], order[half:]):
        alone = model.losses(weights.trainable, weights.fixed, batches([indices[place] for place in part]))
        if alone.shape != (len(part),) or not torch.allclose(alone, loss[part], rtol=RTOL, atol=atol, equal_nan=True):
            padding = "" if call is None or call.positions.shape[1] < 2 else _PADDING
            raise Unfit(
                f"a sample's loss changes with the other samples of its batch (or with random numbers){padding}"
            )


def _largest(values: Tensor) -> float:
    """Largest finite absolute value, 0 where there is none."""
    finite = values[values.isfinite()]
    return float(finite.abs().max()) if finite.numel() else 0.0


def close(left: Tensor, right: Tensor) -> bool:
    """Equal to 1e-5, or non-finite alike (a sample with NaN makes both NaN)."""
    return bool(torch.isclose(left.double(), right.double(), rtol=RTOL, atol=1e-7, equal_nan=True))


def constant(offset: Tensor, loss: Tensor) -> Tensor | None:
    """Return what was added to every sample's loss, if it is one number; samples that aren't finite say nothing."""
    finite = offset.isfinite()
    if not bool(finite.any()):
        return None
    mean = offset[finite].mean()
    return mean if bool((offset[finite] - mean).abs().max() <= RTOL * loss[finite].abs().max()) else None


def check_regulariser(
    model: SampleModel, weights: Weights, batches: Batches, indices: list[int], offset: Tensor
) -> None:
    """Check that what was added belongs to no sample: it is the same for half of the batch."""
    if len(indices) < 2:
        return
    trace = model.trace(weights.trainable, weights.fixed, batches(indices[: len(indices) // 2]))
    loss = step_loss(trace.returned)
    again = None if loss is None else constant(loss - trace.calls[0].loss, loss)
    if again is None or not close(again, offset):
        raise Unfit("the step adds a term that depends on the batch's samples")


def check_moves(model: SampleModel, weights: Weights, batches: Batches, indices: list[int]) -> None:
    """Check that the losses follow the weights: a step that is bound to another module would not."""
    part = indices[:1] if model.mode == "single" else indices
    moved = weights.moved({name: torch.ones_like(tensor) for name, tensor in weights.trainable.items()})
    with torch.no_grad():
        before, after = (model.losses(w.trainable, w.fixed, batches(part)) for w in (weights, moved))
    if weights.trainable and torch.equal(before.nan_to_num(), after.nan_to_num()):
        raise Unfit(
            "its losses do not change with the weights: the step seems to run on another module (is `training_step`"
            " replaced on the instance?)"
        )


def check_hook(model: SampleModel, weights: Weights, batches: Batches, indices: list[int]) -> None:
    """Check the shape of what ``influence_step`` returns, and that samples don't depend on each other."""
    with torch.no_grad():
        try:
            outputs = model.outputs(weights, batches(indices))
        except Exception as error:
            raise Unfit(f"it failed on a batch of {len(indices)} samples: {type(error).__name__}: {error}") from error
        check_length(outputs.loss, indices)
        logits, target = outputs.logits, outputs.target
        if (logits is None) != (target is None):
            raise Unfit("expected both `logits` and `target` or neither, found one of them")
        if logits is not None and target is not None:
            if logits.dim() != 2 or len(logits) != len(indices):
                raise Unfit(f"expected `logits` of shape ({len(indices)}, classes), found {tuple(logits.shape)}")
            if target.shape != (len(indices),) or target.is_floating_point():
                raise Unfit(
                    f"expected `target` with class indices of shape ({len(indices)},), found {target.dtype} of shape"
                    f" {tuple(target.shape)}"
                )
        check_halves(model, weights, batches, indices, outputs.loss, logits)
