"""Finding out how a module's loss comes apart, and refusing with the sentence that says what to write."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor

from lightning_inf.mixin import InfluenceMixin
from lightning_inf.model.observe import step_loss
from lightning_inf.model.sample_model import SampleModel
from lightning_inf.model.weights import Weights

RTOL = 1e-5
_CHECKED = 16

#: Makes a batch on the device from sample indices.
Batches = Callable[[Sequence[int]], Any]


class _Unfit(Exception):
    """A mode that isn't right for the module, and why."""


def resolve(module: LightningModule, batches: Batches, samples: int) -> SampleModel:
    """Find the mode in which the module's loss comes apart into losses of samples, and prove it on real ones.

    Two checks, at a relative tolerance of 1e-5, on up to 16 samples spread over the data: the (weighted) mean of the
    samples' losses reproduces the loss of ``training_step``, and half of the batch, collated alone, gives half of the
    losses. ``influence_step`` needs the second only.

    Args:
        module: The isolated stand-in.
        batches: Makes a batch of the training samples with the given indices.
        samples: How many training samples there are.

    Returns:
        The model as a function, in the first mode of ``influence_step``, ``observed``, ``replaced``, ``single`` that
        passes.

    Raises:
        MisconfigurationException: If none passes, with each mode's reason and the hook to write, or if the step
            can't take a batch at all.
    """
    weights = Weights.of(module)
    indices = _spread(samples)
    if _overrides_influence_step(module):
        model = SampleModel(module, "influence_step")
        try:
            _check_hook(model, weights, batches, indices)
            _check_moves(model, weights, batches, indices)
        except _Unfit as reason:
            raise MisconfigurationException(f"`influence_step` of {_name(module)}: {reason}") from reason
        return model
    if not module.automatic_optimization:
        raise MisconfigurationException(
            f"{_name(module)} uses manual optimization, so its `training_step` steps the optimizer and can't be used to"
            f" compute losses. {_REMEDY}"
        )
    _run_once(SampleModel(module), weights, batches, indices)
    reasons = []
    for attempt in (_observed, _replaced, _single):
        try:
            with torch.no_grad():
                model = attempt(module, weights, batches, indices)
                _check_moves(model, weights, batches, indices)
                return model
        except _Unfit as reason:
            reasons.append(f"- {attempt.__doc__}: {reason}")
    raise MisconfigurationException(
        f"The loss of {_name(module)}.training_step can't be taken apart into the losses of single samples.\n"
        + "\n".join(reasons)
        + f"\n{_REMEDY}"
    )


_REMEDY = (
    "Add the hook `def influence_step(self, batch, batch_idx)` to the module; it returns the loss of each sample, shape"
    " (B,), e.g. `F.cross_entropy(self(x), y, reduction='none')`, or a dict with `loss`, `logits` and `target`."
)


def _observed(module: LightningModule, weights: Weights, batches: Batches, indices: list[int]) -> SampleModel:
    """Watching its loss function"""  # noqa: D415 - a fragment of the error message
    model = SampleModel(module, "observed")
    trace = model.trace(weights.trainable, weights.fixed, batches(indices))
    loss = step_loss(trace.returned)
    if len(trace.calls) != 1:
        raise _Unfit(f"found {len(trace.calls)} calls of a loss of torch.nn.functional, expected exactly one")
    call = trace.calls[0]
    _check_length(call.loss, indices)
    totals = [call.total] + ([call.loss.mean()] if call.reduction == "sum" else [])
    if loss is None or not any(_close(total, loss.mean()) for total in totals):
        raise _Unfit(f"the samples' mean {call.total.item():.6g} is not the step's loss {_value(loss)}")
    _check_half(model, weights, batches, indices, call.loss, call.input)
    model.loss_name = call.name
    return model


def _replaced(module: LightningModule, weights: Weights, batches: Batches, indices: list[int]) -> SampleModel:
    """Replacing its reduction by 'none'"""  # noqa: D415
    model = SampleModel(module, "replaced")
    plain = model.trace(weights.trainable, weights.fixed, batches(indices), replace=False)
    whole = step_loss(plain.returned)
    if not plain.calls:
        raise _Unfit("found no call of a loss of torch.nn.functional")
    try:
        trace = model.trace(weights.trainable, weights.fixed, batches(indices))
    except (RuntimeError, TypeError, ValueError) as error:
        raise _Unfit(f"the step can't work with losses of shape (B,): {error}") from error
    loss = step_loss(trace.returned)
    if loss is None or whole is None:
        raise _Unfit("the step returned no loss")
    _check_length(loss, indices)
    call = trace.calls[0]
    offset = _constant(loss - call.loss, loss) if len(trace.calls) == 1 else None
    if offset is not None:
        if not _close(call.total + offset, whole.mean()):
            raise _Unfit(f"the samples' mean {call.total.item():.6g} is not the step's loss {_value(whole)}")
        _check_regulariser(model, weights, batches, indices, offset)
        model = SampleModel(module, "observed")
        model.notes.append(
            f"training_step adds {offset.item():.4g} to every sample's loss (a regulariser); it was left out."
        )
        loss = call.loss
    elif not _close(loss.mean(), whole.mean()):
        raise _Unfit(f"the samples' mean {loss.mean().item():.6g} is not the step's loss {_value(whole)}")
    _check_half(model, weights, batches, indices, loss, call.input)
    model.loss_name = " + ".join(c.name for c in trace.calls)
    return model


def _constant(offset: Tensor, loss: Tensor) -> Tensor | None:
    """Return what was added to every sample's loss, if it is one number; samples that aren't finite say nothing."""
    finite = offset.isfinite()
    if not bool(finite.any()):
        return None
    mean = offset[finite].mean()
    return mean if bool((offset[finite] - mean).abs().max() <= RTOL * loss[finite].abs().max()) else None


def _check_regulariser(
    model: SampleModel, weights: Weights, batches: Batches, indices: list[int], offset: Tensor
) -> None:
    """Check that what was added belongs to no sample: it is the same for half of the batch."""
    if len(indices) < 2:
        return
    trace = model.trace(weights.trainable, weights.fixed, batches(indices[: len(indices) // 2]))
    loss = step_loss(trace.returned)
    again = None if loss is None else _constant(loss - trace.calls[0].loss, loss)
    if again is None or not _close(again, offset):
        raise _Unfit("the step adds a term that depends on the batch's samples")


def _check_moves(model: SampleModel, weights: Weights, batches: Batches, indices: list[int]) -> None:
    """Check that the losses follow the weights: a step that is bound to another module would not."""
    part = indices[:1] if model.mode == "single" else indices
    moved = weights.moved({name: torch.ones_like(tensor) for name, tensor in weights.trainable.items()})
    with torch.no_grad():
        before, after = (model.losses(w.trainable, w.fixed, batches(part)) for w in (weights, moved))
    if weights.trainable and torch.equal(before.nan_to_num(), after.nan_to_num()):
        raise _Unfit(
            "its losses do not change with the weights: the step seems to run on another module (is `training_step`"
            " replaced on the instance?)"
        )


def _single(module: LightningModule, weights: Weights, batches: Batches, indices: list[int]) -> SampleModel:
    """Batches of one sample"""  # noqa: D415
    model = SampleModel(module, "single")
    whole = step_loss(model.trace(weights.trainable, weights.fixed, batches(indices)).returned)
    if whole is None:
        raise _Unfit("the step returned no loss")
    try:
        losses = torch.cat([model.losses(weights.trainable, weights.fixed, batches([index])) for index in indices])
    except (RuntimeError, TypeError, ValueError, IndexError) as error:
        raise _Unfit(f"the step can't take a batch of one: {error}") from error
    if not (_close(losses.mean(), whole.mean()) or _close(losses.sum(), whole.sum())):
        raise _Unfit(
            f"the mean over batches of one, {losses.mean().item():.6g}, is not the step's loss {_value(whole)}: the loss"
            " depends on the batch's other samples, on class weights, or on random numbers"
        )
    model.notes.append("training_step was run on one sample at a time, because its loss could not be watched.")
    return model


def _check_hook(model: SampleModel, weights: Weights, batches: Batches, indices: list[int]) -> None:
    """Check the shape of what ``influence_step`` returns, and that samples don't depend on each other."""
    with torch.no_grad():
        try:
            outputs = model.outputs(weights, batches(indices))
        except Exception as error:
            raise _Unfit(f"it failed on a batch of {len(indices)} samples: {type(error).__name__}: {error}") from error
        _check_length(outputs.loss, indices)
        logits, target = outputs.logits, outputs.target
        if (logits is None) != (target is None):
            raise _Unfit("expected both `logits` and `target` or neither, found one of them")
        if logits is not None and target is not None:
            if logits.dim() != 2 or len(logits) != len(indices):
                raise _Unfit(f"expected `logits` of shape ({len(indices)}, classes), found {tuple(logits.shape)}")
            if target.shape != (len(indices),) or target.is_floating_point():
                raise _Unfit(
                    f"expected `target` with class indices of shape ({len(indices)},), found {target.dtype} of shape"
                    f" {tuple(target.shape)}"
                )
        _check_half(model, weights, batches, indices, outputs.loss, logits)


def _run_once(model: SampleModel, weights: Weights, batches: Batches, indices: list[int]) -> None:
    """Run the step as it is, so that its own failure is reported as such."""
    batch = batches(indices)
    try:
        with torch.no_grad():
            returned = model.trace(weights.trainable, weights.fixed, batch).returned
    except Exception as error:
        raise MisconfigurationException(
            f"{_name(model.module)}.training_step failed on a batch of {len(indices)} samples in eval mode:"
            f" {type(error).__name__}: {error}\nIts batches must have the form that the train dataloader yields."
            f" (indices {indices[0]}..{indices[-1]}). {_REMEDY}"
        ) from error
    if step_loss(returned) is None:
        raise MisconfigurationException(
            f"{_name(model.module)}.training_step returned {type(returned).__name__}; expected a loss tensor or a dict"
            f" with the key `loss`. {_REMEDY}"
        )


def _check_length(loss: Tensor, indices: list[int]) -> None:
    if loss.shape != (len(indices),):
        raise _Unfit(f"expected losses of shape ({len(indices)},), one a sample, found {tuple(loss.shape)}")


def _check_half(
    model: SampleModel, weights: Weights, batches: Batches, indices: list[int], loss: Tensor, scale: Tensor | None
) -> None:
    """Check that the first half of the batch, collated alone, has the first half of the losses."""
    if len(indices) < 2:
        return
    half = len(indices) // 2
    alone = model.losses(weights.trainable, weights.fixed, batches(indices[:half]))
    # Losses near zero inherit the rounding of the logits they are made from.
    rounding = 64 * torch.finfo(loss.dtype).eps * (_largest(scale) if scale is not None else 0.0)
    atol = RTOL * _largest(loss) + rounding
    if alone.shape != (half,) or not torch.allclose(alone, loss[:half], rtol=RTOL, atol=atol, equal_nan=True):
        raise _Unfit("a sample's loss changes with the other samples of its batch (or with random numbers)")


def _largest(values: Tensor) -> float:
    """Largest finite absolute value, 0 where there is none."""
    finite = values[values.isfinite()]
    return float(finite.abs().max()) if finite.numel() else 0.0


def _close(left: Tensor, right: Tensor) -> bool:
    """Equal to 1e-5, or non-finite alike (a sample with NaN makes both NaN)."""
    return bool(torch.isclose(left.double(), right.double(), rtol=RTOL, atol=1e-7, equal_nan=True))


def _spread(samples: int) -> list[int]:
    """Spread the checked samples over the data: its first few are often of one class."""
    count = min(samples, _CHECKED)
    return [round(i * (samples - 1) / max(count - 1, 1)) for i in range(count)]


def _overrides_influence_step(module: LightningModule) -> bool:
    step = getattr(type(module), "influence_step", None)
    return step is not None and step is not InfluenceMixin.influence_step


def _name(module: LightningModule) -> str:
    return type(module).__name__


def _value(loss: Tensor | None) -> str:
    return "None" if loss is None else f"{loss.mean().item():.6g}"
