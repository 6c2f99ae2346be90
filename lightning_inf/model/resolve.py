"""Finding out how a module's loss comes apart, and refusing with the sentence that says what to write."""

from __future__ import annotations

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor

from lightning_inf.containers import rows
from lightning_inf.mixin import InfluenceMixin
from lightning_inf.model.checks import (
    Batches,
    Unfit,
    check_halves,
    check_hook,
    check_length,
    check_moves,
    check_regulariser,
    close,
    constant,
)
from lightning_inf.model.drawing import Seen
from lightning_inf.model.draws import named, settle_draws
from lightning_inf.model.observe import step_loss
from lightning_inf.model.sample_model import SampleModel
from lightning_inf.model.weights import Weights

_CHECKED = 16


def resolve(module: LightningModule, batches: Batches, samples: int, draws: int = 1) -> SampleModel:
    """Find the mode in which the module's loss comes apart into losses of samples, and prove it on real ones.

    Two checks, at a relative tolerance of 1e-5, on up to 16 samples spread over the data: the (weighted) mean of the
    samples' losses reproduces the loss of ``training_step``, and half of the batch, collated alone, gives half of the
    losses. ``influence_step`` needs the second only.

    Args:
        module: The isolated stand-in.
        batches: Makes a batch of the training samples with the given indices; with their keys, where random numbers
            are to be theirs.
        samples: How many training samples there are.
        draws: Over how many draws of random numbers losses are averaged, where there are any.

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
            check_hook(model, weights, batches, indices)
            check_moves(model, weights, batches, indices)
            with torch.no_grad():
                settle_draws(model, weights, batches, indices, draws)
        except Unfit as reason:
            raise MisconfigurationException(f"`influence_step` of {_name(module)}: {reason}") from reason
        return model
    if not module.automatic_optimization:
        raise MisconfigurationException(
            f"{_name(module)} uses manual optimization, so its `training_step` steps the optimizer and can't be used to"
            f" compute losses. {_REMEDY}"
        )
    seen = _run_once(SampleModel(module), weights, batches, indices)
    reasons = []
    for attempt in (_observed, _replaced, _single):
        try:
            with torch.no_grad():
                model = attempt(module, weights, batches, indices)
                check_moves(model, weights, batches, indices)
                settle_draws(model, weights, batches, indices, draws)
                return model
        except Unfit as reason:
            reasons.append(f"- {attempt.__doc__}: {reason}")
    raise MisconfigurationException(
        f"The loss of {_name(module)}.training_step can't be taken apart into the losses of single samples.\n"
        + "\n".join(reasons)
        + (
            f"\nIt draws random numbers ({named(seen)}), which must have the samples as first dimension."
            if seen
            else ""
        )
        + f"\n{_REMEDY}"
    )


#: What the report says of the loss of a sequence.
PER_TOKEN = (
    "the loss of a sequence is the mean over its own tokens that count; labels equal to ignore_index (padding, masked"
    " prompts) don't."
)

_REMEDY = (
    "Add the hook `def influence_step(self, batch, batch_idx)` to the module; it returns the loss of each sample, shape"
    " (B,), e.g. `F.cross_entropy(self(x), y, reduction='none')`, or a dict with `loss`, `logits` and `target`."
)


def _observed(module: LightningModule, weights: Weights, batches: Batches, indices: list[int]) -> SampleModel:
    """Watching its loss function"""  # noqa: D415 - a fragment of the error message
    model = SampleModel(module, "observed")
    batch = batches(indices)
    trace = model.trace(weights.trainable, weights.fixed, batch)
    loss = step_loss(trace.returned)
    if len(trace.calls) != 1:
        raise Unfit(f"found {len(trace.calls)} calls of a loss of torch.nn.functional, expected exactly one")
    call = trace.calls[0]
    if len(call.loss) != len(indices) and rows(batch) == len(indices):  # positions of sequences, one after the other?
        model.sequences = True
        call = model.trace(weights.trainable, weights.fixed, batch).calls[0]
    check_length(call.loss, indices)
    totals = [call.total] + ([call.loss.mean()] if call.reduction == "sum" else [])
    if loss is not None and call.reduction == "sum" and call.positions.shape[1] > 1:
        totals.append(call.loss.sum() / call.count.sum())
        model.averaged = close(totals[-1], loss.mean())
    if loss is None or not any(close(total, loss.mean()) for total in totals):
        raise Unfit(f"the samples' mean {call.total.item():.6g} is not the step's loss {_value(loss)}")
    losses = call.mean if model.averaged else call.loss
    check_halves(model, weights, batches, indices, losses, call.input, call)
    model.loss_name = call.name
    if call.positions.shape[1] > 1 and call.name in ("cross_entropy", "nll_loss") and call.target.dim() <= 2:
        model.notes.append(PER_TOKEN)
    return model


def _replaced(module: LightningModule, weights: Weights, batches: Batches, indices: list[int]) -> SampleModel:
    """Replacing its reduction by 'none'"""  # noqa: D415
    model = SampleModel(module, "replaced")
    plain = model.trace(weights.trainable, weights.fixed, batches(indices), replace=False)
    whole = step_loss(plain.returned)
    if not plain.calls:
        raise Unfit("found no call of a loss of torch.nn.functional")
    try:
        trace = model.trace(weights.trainable, weights.fixed, batches(indices))
    except (RuntimeError, TypeError, ValueError) as error:
        raise Unfit(f"the step can't work with losses of shape (B,): {error}") from error
    loss = step_loss(trace.returned)
    if loss is None or whole is None:
        raise Unfit("the step returned no loss")
    check_length(loss, indices)
    call = trace.calls[0]
    offset = constant(loss - call.loss, loss) if len(trace.calls) == 1 else None
    if offset is not None:
        if not close(call.total + offset, whole.mean()):
            raise Unfit(f"the samples' mean {call.total.item():.6g} is not the step's loss {_value(whole)}")
        check_regulariser(model, weights, batches, indices, offset)
        model = SampleModel(module, "observed")
        model.notes.append(
            f"training_step adds {offset.item():.4g} to every sample's loss (a regulariser); it was left out."
        )
        loss = call.loss
    elif not close(loss.mean(), whole.mean()):
        raise Unfit(f"the samples' mean {loss.mean().item():.6g} is not the step's loss {_value(whole)}")
    check_halves(model, weights, batches, indices, loss, call.input)
    model.loss_name = " + ".join(c.name for c in trace.calls)
    return model


def _single(module: LightningModule, weights: Weights, batches: Batches, indices: list[int]) -> SampleModel:
    """Batches of one sample"""  # noqa: D415
    model = SampleModel(module, "single")
    whole = step_loss(model.trace(weights.trainable, weights.fixed, batches(indices)).returned)
    if whole is None:
        raise Unfit("the step returned no loss")
    try:
        losses = torch.cat([model.losses(weights.trainable, weights.fixed, batches([index])) for index in indices])
    except (RuntimeError, TypeError, ValueError, IndexError) as error:
        raise Unfit(f"the step can't take a batch of one: {error}") from error
    if not (close(losses.mean(), whole.mean()) or close(losses.sum(), whole.sum())):
        raise Unfit(
            f"the mean over batches of one, {losses.mean().item():.6g}, is not the step's loss {_value(whole)}: the loss"
            " depends on the batch's other samples, on class weights, or on random numbers"
        )
    model.notes.append("training_step was run on one sample at a time, because its loss could not be watched.")
    return model


def _run_once(model: SampleModel, weights: Weights, batches: Batches, indices: list[int]) -> list[Seen]:
    """Run the step as it is, so that its own failure is reported as such; return its calls of random functions."""
    batch = batches(indices)
    try:
        with torch.no_grad():
            trace = model.trace(weights.trainable, weights.fixed, batch)
    except Exception as error:
        raise MisconfigurationException(
            f"{_name(model.module)}.training_step failed on a batch of {len(indices)} samples in eval mode:"
            f" {type(error).__name__}: {error}\nIts batches must have the form that the train dataloader yields."
            f" (indices {indices[0]}..{indices[-1]}). {_REMEDY}"
        ) from error
    if step_loss(trace.returned) is None:
        raise MisconfigurationException(
            f"{_name(model.module)}.training_step returned {type(trace.returned).__name__}; expected a loss tensor or a"
            f" dict with the key `loss`. {_REMEDY}"
        )
    return trace.seen


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
