"""Everything that an analysis needs of the user's code, found and proved before an hour of training is lost."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy
from lightning.pytorch.trainer.states import RunningStage
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from lightning_inf.analysis.settings import Settings
from lightning_inf.checkpoints.checkpoint import Checkpoint
from lightning_inf.checkpoints.find import check_model, require_learning_rates, with_learning_rates
from lightning_inf.checkpoints.optimizer_states import with_optimizer_states
from lightning_inf.data.batches import ToDevice, fetch
from lightning_inf.data.groups import given_groups
from lightning_inf.data.identity import known_indices, namer
from lightning_inf.data.references import References
from lightning_inf.data.reviewed import Reviewed, find_reviewed
from lightning_inf.data.sources import Samples, reference_samples, training_samples
from lightning_inf.keyed import Keys
from lightning_inf.model.isolate import isolated
from lightning_inf.model.output import Outputs
from lightning_inf.model.resolve import resolve
from lightning_inf.model.sample_model import SampleModel
from lightning_inf.model.weights import Weights, chosen_names
from lightning_inf.randomness import isolated_rng


@dataclass
class Subject:
    """What is analysed: the model as a function, and both sides of the data.

    Attributes:
        model: The model.
        train: The training samples.
        references: The held-out samples.
        transfer: Moves a batch to the device.
        batch_size: Samples in a batch of the sweep.
        parameters: Names of the parameters that influence is taken through, None for all trainable ones.
        reviewed: What was decided about the training samples before, None for nothing.
        judges: Whether the model gives ``classes``, or ``values`` in a regression of one number a sample; None: neither.
    """

    model: SampleModel
    train: Samples
    references: References
    transfer: ToDevice
    batch_size: int
    parameters: frozenset[str] | None = None
    reviewed: Reviewed | None = None
    judges: Literal["classes", "values"] | None = None


def check_strategy(trainer: Trainer) -> None:
    """Refuse strategies that the analysis can't run under.

    Raises:
        MisconfigurationException: Unless there is one device, or plain DDP; subclasses of DDP (DeepSpeed, XLA) differ
            in where parameters live.
    """
    if type(trainer.strategy) not in (SingleDeviceStrategy, DDPStrategy):
        raise MisconfigurationException(
            f"InfluenceCallback works with a single device and with DDP, found {type(trainer.strategy).__name__}: it"
            " shards or moves parameters, and the analysis needs all of them in one place. Train with this strategy but"
            " without the callback, then analyse the checkpoints on one device with `lightning-inf influence`"
            " (checkpoints=...)."
        )


def check_optimizer_state(settings: Settings, captured: bool) -> None:
    """Refuse methods whose checkpoints would lack what they need.

    Args:
        settings: The user's.
        captured: Whether the optimiser's state is captured.

    Raises:
        MisconfigurationException: If a method needs it and it is not.
    """
    asking = [] if captured else [method for method in settings.methods if method.needs_optimizer_state]
    if asking:
        raise MisconfigurationException(
            f"{asking[0].name!r}, a {type(asking[0]).__name__}, sees gradients through the optimiser and needs its state in"
            " the captured checkpoints: give InfluenceCallback(optimizer_state=True)."
        )


@contextlib.contextmanager
def examined(trainer: Trainer, module: LightningModule, settings: Settings) -> Iterator[Subject]:
    """Yield the subject of an analysis; module, trainer state and random numbers are as before when the block ends.

    Args:
        trainer: A Trainer inside ``fit``.
        module: The bare module.
        settings: The user's.

    Raises:
        MisconfigurationException: For data or a module that can't be analysed, with the remedy.
    """
    stage = trainer.state.stage
    # Not TRAINING: augmentation in `on_after_batch_transfer` is guarded by `self.trainer.training`.
    trainer.state.stage = RunningStage.PREDICTING
    try:
        with isolated_rng(), torch.inference_mode(False), isolated(module) as stand_in:
            yield _examine(trainer, module, stand_in, settings)
    finally:
        trainer.state.stage = stage


def complete(checkpoints: Sequence[Checkpoint], stand_in: LightningModule, settings: Settings) -> list[Checkpoint]:
    """Check that checkpoints are this model's; find learning rates and optimiser states where they are needed.

    Args:
        checkpoints: In the order of training.
        stand_in: The isolated module.
        settings: The user's.

    Returns:
        The checkpoints with their learning rates and optimiser states.

    Raises:
        MisconfigurationException: If they are another model's, can't be read, or lack what a method needs.
    """
    check_model(checkpoints, stand_in)
    known = with_learning_rates(checkpoints, stand_in, settings.learning_rate)
    if any(method.needs_learning_rate for method in settings.methods):
        require_learning_rates(known)
    asking = [method for method in settings.methods if method.needs_optimizer_state]
    return with_optimizer_states(known, stand_in) if asking else known


def _examine(trainer: Trainer, module: LightningModule, stand_in: LightningModule, settings: Settings) -> Subject:
    """Find the data and the way the loss comes apart."""
    train = training_samples(trainer, module, settings.seed, settings.calibration)
    held_out = reference_samples(trainer, module, settings.references, train)
    if not any(parameter.requires_grad for parameter in stand_in.parameters()):
        raise MisconfigurationException(
            f"{type(module).__name__} has no parameter with requires_grad=True, so nothing can be influenced; unfreeze at"
            " least one."
        )
    try:
        parameters = chosen_names(stand_in, settings.parameters)
    except ValueError as error:
        raise MisconfigurationException(f"{type(module).__name__}: {error}") from error
    # Read before training: a file that can't be is no reason to lose a fitted model's report.
    reviewed = find_reviewed(settings.decisions, train.dataset, namer(trainer, module, train.dataset))
    if settings.known_issues is not None:
        known_indices(settings.known_issues, train.dataset, len(train))
    if settings.groups is not None:
        given_groups(settings.groups, train.dataset, len(train))
    transfer = ToDevice(trainer, stand_in, trainer.strategy.root_device, _dtype(stand_in))
    keyed = replace(train, keys=Keys(settings.seed, "training", settings.shared_draws))
    model = resolve(stand_in, lambda indices: fetch(keyed, indices, transfer), len(train), settings.draws)
    if model.random:
        train, held_out = keyed, replace(held_out, keys=keyed.keys).as_references()
        if settings.shared_draws:
            model.notes.append("shared_draws: all training samples and references had the same random numbers.")
    device = trainer.strategy.root_device
    batch_size = 1 if model.mode == "single" else settings.batch_size or _batch_size(train, device)
    reference_batch = 1 if model.mode == "single" else min(batch_size, max(held_out.batch_size, train.batch_size))
    references = References.choose(held_out, transfer, reference_batch, settings.seed)
    outputs = _check_references(model, references)
    _check_margin(model, references, settings)
    judges: Literal["classes", "values"] | None = "values" if outputs.prediction is not None else None
    if outputs.logits is not None:
        judges = "classes"
    return Subject(model, train, references, transfer, batch_size, parameters, reviewed, judges)


def _check_references(model: SampleModel, references: References) -> Outputs:
    """Prove on one batch that the step takes references; return what it says of them."""
    weights = Weights.of(model.module)
    indices = references.pool[: references.batch_size]
    try:
        with torch.no_grad():
            for _, batch in references.batches(indices):
                outputs = model.outputs(weights, batch)
    except Exception as error:
        raise MisconfigurationException(
            f"{type(model.module).__name__}.{model.loss_name if model.mode == 'influence_step' else 'training_step'} can't"
            f" take a batch of {references.samples.origin}: {type(error).__name__}: {error}\nReferences must have the form"
            " that the train dataloader yields. Return such a loader from `reference_dataloader()` on the module or"
            " datamodule, or pass `references=`."
        ) from error
    if outputs.loss.shape != (len(indices),):
        raise MisconfigurationException(
            f"A batch of {len(indices)} references of {references.samples.origin} has losses of shape"
            f" {tuple(outputs.loss.shape)}; expected one a sample."
        )
    return outputs


def _check_margin(model: SampleModel, references: References, settings: Settings) -> None:
    """Refuse margins of a model that has none."""
    asking = [method for method in settings.methods if method.output == "margin"]
    if not asking:
        return
    with torch.no_grad():
        _, batch = next(references.batches(references.pool[: references.batch_size]))
        outputs = model.outputs(Weights.of(model.module), batch)
    logits, target = outputs.logits, outputs.target
    if logits is not None and target is not None and logits.dim() == 2 and target.dim() == 1 and logits.shape[1] > 1:
        return
    found = "no logits and targets" if logits is None or target is None else f"logits of shape {tuple(logits.shape)}"
    raise MisconfigurationException(
        f"{type(asking[0]).__name__}(output='margin') needs a single-label classifier: expected logits of shape (B, C) and"
        f" integer targets of shape (B,) from {type(model.module).__name__}, found {found} (its loss is"
        f" {model.loss_name}). Use output='loss', or return `logits` and `target` from `influence_step`."
    )


def _batch_size(train: Samples, device: torch.device) -> int:
    """Four of the user's batches at once, within reason: without a backward graph they take less memory than one.

    On a CPU larger batches fall out of its caches and take longer a sample: there it is the user's own, from 64 on.
    """
    if device.type == "cpu":
        return max(train.batch_size, 64)
    return max(train.batch_size, min(4 * train.batch_size, 512))


def _dtype(stand_in: LightningModule) -> torch.dtype | None:
    """Precision that batches are cast to where the model is kept in half or double precision.

    The analysis of a half-precision model runs in fp32: differences of losses drown in the rounding of halves.
    """
    types = {p.dtype for p in stand_in.parameters() if p.is_floating_point()}
    if types & {torch.float16, torch.bfloat16}:
        stand_in.float()
        return torch.float32
    return torch.float64 if types == {torch.float64} else None
