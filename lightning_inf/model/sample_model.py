"""The function that everything else stands on: weights and a batch in, each sample's loss out."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import torch
from lightning.pytorch import LightningModule
from torch import Tensor
from torch.func import functional_call

from lightning_inf.containers import rows
from lightning_inf.keyed import Keyed
from lightning_inf.model.drawing import Drawing
from lightning_inf.model.losses import LossCall
from lightning_inf.model.observe import LossObserver, Trace, step_loss
from lightning_inf.model.output import Output, Outputs, log_odds, mean_outputs
from lightning_inf.model.replay import Recorder, Replay
from lightning_inf.model.step import Step, slots
from lightning_inf.model.trunk import Trunk
from lightning_inf.model.weights import Vector, Weights, tenth
from lightning_inf.randomness import seed_all

#: How the samples' losses are had: the user's hook, watching ``training_step``, replacing its reduction, or one sample
#: at a time.
Mode = Literal["influence_step", "observed", "replaced", "single"]


class SampleModel:
    """A module as a pure function of its weights.

    Args:
        module: The isolated stand-in (see :func:`~lightning_inf.model.isolate.isolated`).
        mode: How the samples' losses are had. ``single`` takes batches of one sample.

    Attributes:
        notes: What a reader of the report should know about how the loss was taken apart.
        loss_name: The loss function that was seen, or the hook's name.
        output: What :meth:`losses` gives.
        averaged: Whether the step divides a sum over positions by how many count.
        tokens: Whether :meth:`losses` gives each token's part of the loss; see :mod:`~lightning_inf.model.tokens`.
        math_attention: Whether forward-mode derivatives need the math kernel of attention, once that was found out.
        sequences: Whether the loss call's rows are the positions of the batch's samples, one sample after the other.
        random: Whether the step draws random numbers; they are then the samples' own.
        draws: D, over how many draws of a step's random numbers losses and outputs are averaged.
        draw: Which draw a single run takes.
        tied: By call of a random function, whether its numbers have the batch as first dimension; None to judge each
            by its present size.
        trunk: What the present batch's runs share.
    """

    def __init__(self, module: LightningModule, mode: Mode = "observed") -> None:
        self.module = module
        self.mode: Mode = mode
        self.output: Output = "loss"
        self.sequences = False
        self.averaged = False
        self.tokens = False
        self.math_attention = False
        self.random = False
        self.draws = 1
        self.draw = 0
        self.tied: tuple[bool, ...] | None = None
        self.notes: list[str] = []
        self.loss_name = "influence_step" if mode == "influence_step" else "training_step"
        self._step = Step(module, "influence_step" if mode == "influence_step" else "training_step")
        self.trunk = Trunk()
        self._writes_buffers: bool | None = None
        self._single: list[SampleModel] | None = None
        self._slots = slots(self._step, module)
        self._parts = [vars(part) for part in module.modules()]
        self._parameters = [name for name, _ in module.named_parameters()]

    def outputs(self, weights: Weights, batch: Any) -> Outputs:
        """Evaluate a batch of B samples.

        Args:
            weights: The weights to evaluate with.
            batch: A batch on the weights' device; of one sample in mode ``single``.

        Returns:
            Losses and, for single-label classifiers, logits and targets; means over the draws.
        """
        return mean_outputs([one.read(one.trace(weights.trainable, weights.fixed, batch)) for one in self.apart()])

    def losses(self, trainable: Vector, fixed: Vector, batch: Any) -> Tensor:
        """Compute the losses alone, shape ``(B,)``; differentiable, and safe under ``jvp``, ``grad`` and ``vmap``.

        Of a model that gives another output (see :meth:`giving`) it is that output.
        """
        found = [one.objective(one.trace(trainable, fixed, batch)) for one in self.apart()]
        return found[0] if len(found) == 1 else torch.stack(found).mean(dim=0)

    def apart(self) -> list[SampleModel]:
        """Return the model of each draw; the mean of their losses is :meth:`losses`."""
        if self.draws == 1:
            return [self]
        if self._single is None:
            self._single = [copy.copy(self) for _ in range(self.draws)]
            for draw, one in enumerate(self._single):
                one.draw, one._single = draw, [one]
        return self._single

    def drawing(self, draws: int) -> SampleModel:
        """Return the same model with its losses averaged over other draws."""
        other = copy.copy(self)
        other.draws, other._single = draws, None
        return other

    def objective(self, trace: Trace) -> Tensor:
        """Read the losses off a run, or what stands in their place; shape ``(B,)``."""
        if self.tokens:
            return self._parts_of_tokens(trace.calls[0])
        if self.output == "loss":
            return self._losses(trace)
        outputs = self.read(trace, look=False)
        if outputs.logits is None or outputs.target is None:
            raise ValueError(
                "output='margin' needs a single-label classifier: expected logits (B, C) and integer targets (B,) from one"
                f" loss call of {self.loss_name} or from `influence_step`, found none in a batch. Use output='loss'."
            )
        return -log_odds(outputs.logits, outputs.target)

    def giving(self, output: Output) -> SampleModel:
        r"""Return the same model with another quantity in the place of the loss.

        ``margin`` is :math:`-(z_y - \log \sum_{j \ne y} e^{z_j})`, *minus* the log-odds of the given label: like a loss
        it is low where the model is right, so that every sign stays as it is. It does not level off on samples that
        the model knows by heart. Class weights and label smoothing have no part in it; a target outside
        :math:`[0, C)` gives 0.

        Args:
            output: The quantity that :meth:`losses` is to give.
        """
        if output == self.output:
            return self
        other = copy.copy(self)
        other.output, other._single = output, None
        return other

    def read(self, trace: Trace, look: bool = True) -> Outputs:
        """Read losses, logits and targets off a run."""
        loss = self._losses(trace)
        if self.mode == "influence_step":
            mapping = trace.returned if isinstance(trace.returned, Mapping) else {}
            if (prediction := mapping.get("prediction")) is not None:
                value = mapping["target"].reshape(-1)
                return Outputs(loss, prediction=prediction.reshape(-1), value=value)
            return Outputs(loss, mapping.get("logits"), mapping.get("target"))
        calls = [call.classification(look) for call in trace.calls]
        found = [c for c in calls if c is not None and len(c[1]) == len(loss)]
        logits, target = found[0] if len(found) == 1 else (None, None)
        if logits is None and len(trace.calls) == 1 and (said := trace.calls[0].regression()) is not None:
            return Outputs(loss, prediction=said[0], value=said[1])
        return Outputs(loss, logits, target)

    def trace(
        self,
        trainable: Vector,
        fixed: Vector,
        batch: Any,
        replace: bool | None = None,
        watcher: contextlib.AbstractContextManager[Any] | None = None,
    ) -> Trace:
        """Run the user's step once under observation, from the end of the batch's trunk where that was kept.

        Args:
            trainable: The chosen parameters.
            fixed: All other tensors.
            batch: The batch.
            replace: Give the step the samples' losses in the place of their mean. None: as the mode says.
            watcher: A mode of the caller's that sees the step's calls, or all but those of the trunk.
        """
        shared = self.trunk.of(fixed, batch)
        plain = replace is None and watcher is None
        if plain and shared is not None and shared.trainable is trainable and shared.run is not None:
            return Trace(shared.run.returned, list(shared.run.calls))
        modes = [] if watcher is None else [watcher]
        if (replay := self.trunk.replay(fixed, batch)) is not None:
            try:
                trace = self._run(trainable, fixed, batch, replace, [replay, *modes])
                return Trace(replay.replaced(trace.returned), trace.calls)
            except Exception as error:
                trace = self._run(trainable, fixed, batch, replace, modes)  # an error of the step's own is raised again
                self.trunk.failed(error)
                return trace
        return self._run(trainable, fixed, batch, replace, modes)

    def share(self, weights: Weights, batch: Any) -> None:
        """Run the step, and keep what doesn't depend on ``weights.trainable`` for the batch's next runs.

        Does nothing outside of ``with model.trunk``, where the batch's trunk is kept already, and where it is not safe
        or saves nothing. What is kept is checked once, at weights displaced by a tenth, against a run in full.

        Args:
            weights: Any that have the ``fixed`` tensors of the runs to come.
            batch: The batch of these runs; it is recognised by identity, and so is ``fixed``.
        """
        if not self.trunk.wanted or self.mode == "single" or self.trunk.of(weights.fixed, batch) is not None:
            return
        if self.draws > 1:  # each draw has a trunk of its own
            return
        others = [weights.fixed[name] for name in self._parameters if name in weights.fixed]
        if not others or any(part["training"] for part in self._parts):
            return
        recorder = Recorder(weights.trainable.values(), others)
        with torch.no_grad():
            if self._writes_buffers is None:
                self._run(weights.trainable, weights.fixed, batch)
            if self._writes_buffers:
                return
            trace = self._run(weights.trainable, weights.fixed, batch, modes=[recorder])
        record = recorder.record(weights.fixed, batch, trace.returned)
        record.trainable, record.run = weights.trainable, trace
        self.trunk.keep(record, lambda: self._differs(weights, batch))

    def _differs(self, weights: Weights, batch: Any) -> str | None:
        """Compare a run from the trunk with one in full, at displaced weights; say what is wrong."""
        moved = {name: tensor + tenth(tensor) for name, tensor in weights.trainable.items()}
        with torch.no_grad():
            found = self._losses(self.trace(moved, weights.fixed, batch))
            expected = self._losses(self._run(moved, weights.fixed, batch))
        if self.trunk.refused is not None:
            return None  # it failed, and the reason is noted
        same = found.shape == expected.shape and torch.allclose(found, expected, rtol=1e-5, atol=1e-6, equal_nan=True)
        return None if same else "running the rest alone changes the losses"

    def _run(
        self,
        trainable: Vector,
        fixed: Vector,
        batch: Any,
        replace: bool | None = None,
        modes: Sequence[contextlib.AbstractContextManager[Any]] = (),
    ) -> Trace:
        """Run the user's step once, within modes of its own, the last of them nearest to it."""
        if self._writes_buffers is not False:
            # Buffers stay frozen: a step that writes into one gets a fresh copy each time.
            fixed = {name: tensor.clone() for name, tensor in fixed.items()}
        versions = [tensor._version for tensor in fixed.values()] if self._writes_buffers is None else None
        given = {**fixed, **trainable}
        named = {slot: given[name] for slot, name in self._slots.items()}
        # What is left of a step after its trunk is little more than its loss, which then counts.
        once, replace = (
            any(isinstance(mode, Replay) for mode in modes),
            self.mode == "replaced" if replace is None else replace,
        )
        samples = rows(batch) if self.sequences else None
        drawing = None
        if isinstance(batch, Keyed):
            drawing = Drawing(batch.keys, self.draw, self.draws, self.tied)
            batch, modes = batch.batch, [*modes, drawing]
            seed_all(self.draw)  # for what no mode sees: NumPy, Python, other functions of torch
        with self._stateless(), LossObserver(replace, once, samples) as observer:
            returned = functional_call(self._step, named, (batch, modes, self.draw), tie_weights=False)
        if versions is not None:
            self._writes_buffers = versions != [tensor._version for tensor in fixed.values()]
        return Trace(returned, observer.calls, [] if drawing is None else drawing.seen)

    @contextlib.contextmanager
    def _stateless(self) -> Iterator[None]:
        """Carry nothing from run to run: a step may keep an average in an attribute, or losses in a list.

        Under a transform those would be tensors that nobody may touch once it has ended.
        """
        attributes = [(part, dict(part)) for part in self._parts]
        containers = [(v, copy.copy(v)) for v in vars(self.module).values() if type(v) in (list, dict, set)]
        try:
            yield
        finally:
            for part, saved in attributes:
                part.clear()
                part.update(saved)
            for container, kept in containers:
                if isinstance(container, list):
                    container[:] = kept
                else:
                    container.clear()
                    container.update(kept)

    def _losses(self, trace: Trace) -> Tensor:
        """Pick the samples' losses out of a run."""
        if self.mode == "observed":
            return trace.calls[0].mean if self.averaged else trace.calls[0].loss
        if self.mode == "influence_step":
            value = trace.returned["loss"] if isinstance(trace.returned, Mapping) else trace.returned
        else:
            value = step_loss(trace.returned)
        if not isinstance(value, Tensor):
            raise TypeError(f"{self.loss_name} returned {type(trace.returned).__name__}, not a loss tensor")
        return value.reshape(1) if self.mode == "single" else value

    def _parts_of_tokens(self, call: LossCall) -> Tensor:
        """Cut the samples' losses into what their positions add to them, shape ``(B P,)``."""
        summed = call.reduction == "sum" and not self.averaged
        parts = call.positions if summed else call.positions / call.count.clamp(min=1).unsqueeze(1)
        return parts.flatten()


def device_of(weights: Weights) -> torch.device:
    """Return the device that the weights lie on."""
    return next(iter((*weights.trainable.values(), *weights.fixed.values())), torch.zeros(())).device
