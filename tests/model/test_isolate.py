"""The user's module stays bit for bit what it was, whatever its training step does."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import jvp
from torchmetrics import MeanMetric, MetricCollection
from torchmetrics.classification import MulticlassAccuracy

from lightning_inf.model.isolate import isolated
from lightning_inf.model.resolve import resolve
from lightning_inf.model.sample_model import SampleModel
from lightning_inf.model.weights import Weights
from lightning_inf.sweep.evaluate import Evaluator
from tests.samples import CLASSES, FEATURES, Classifier, Crowded, Snapshot, batches_of, blobs, make_trainer

SAMPLES = 20


class Busy(Crowded):
    """Writes to everything that a module has."""

    def __init__(self) -> None:
        super().__init__()
        self.accuracy = MulticlassAccuracy(CLASSES)
        self.metrics = MetricCollection([MulticlassAccuracy(CLASSES)], prefix="train_")
        self.hidden = {"mean": MeanMetric()}
        self.register_buffer("seen", torch.zeros(()))
        self.register_buffer("drift", torch.zeros(CLASSES))
        self.average = 0.0
        self.outputs: list[Any] = []
        self.last: Tensor = torch.zeros(())
        self.plain = torch.zeros(3)
        self.graph = self.net[0].weight.sum() * 2  # a non-leaf tensor, which deepcopy refuses
        self.net[0].weight.requires_grad_(False)
        self.net[1].eval()

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x, y = batch
        logits = self(x)
        loss = F.cross_entropy(logits, y)
        self.accuracy(logits, y)
        self.metrics(logits, y)
        self.hidden["mean"].update(loss)
        self.seen += len(x)
        self.drift = self.drift * 0.9
        self.average = 0.9 * self.average + 0.1
        self.outputs.append(loss)
        self.last = loss
        self.plain += 1
        self.log("loss", loss)
        self.log_dict({"a": loss})
        if self._trainer is not None:
            self.logger.experiment.add_scalar("x", loss)
            for logger in self.loggers:
                logger.log_metrics({"x": 1.0})
        return loss


class Locked(Busy):
    """Holds what can't be copied."""

    def __init__(self) -> None:
        super().__init__()
        self.lock = threading.Lock()


class Generating(Busy):
    def __init__(self) -> None:
        super().__init__()
        self.stream = (i for i in range(3))


class Opened(Busy):
    def __init__(self) -> None:
        super().__init__()
        self.file = open(__file__, encoding="utf-8")  # noqa: SIM115


class Stubborn(Busy):
    """Raises an error of its own when copied."""

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        raise AssertionError("not to be copied")


def used(module: Classifier) -> Classifier:
    """As it is after training: gradients, and a generator that has moved."""
    for parameter in module.parameters():
        parameter.grad = torch.ones_like(parameter)
    torch.rand(3)
    return module


def work(module: Classifier) -> SampleModel:
    """All that an analysis does with the stand-in."""
    data = blobs(SAMPLES)
    with isolated(module) as stand_in:
        model = resolve(stand_in, batches_of(data), SAMPLES)
        weights = Weights.of(stand_in)
        batch = batches_of(data)(range(6))
        model.outputs(weights, batch)
        evaluator = Evaluator(model)
        evaluator.norms(weights, batch, 6)
        evaluator.derivatives(weights, [weights.trainable], batch, 6)
        model.outputs(weights, batch)
        leaves = {n: t.clone().requires_grad_() for n, t in weights.trainable.items()}
        model.losses(leaves, weights.fixed, batch).sum().backward()
    return model


MODULES = [Classifier, Crowded, Busy, Locked, Generating, Opened, Stubborn]


@pytest.mark.parametrize("make", MODULES)
def test_the_module_is_bit_for_bit_what_it_was(make: type[Classifier]) -> None:
    module = used(make())
    before = Snapshot(module)
    work(module)
    assert before.differences() == []


@pytest.mark.parametrize("make", [Busy, Locked])
def test_the_contents_of_its_attributes_are_what_they_were(make: type[Busy]) -> None:
    module = make()
    module.outputs.append("one")
    work(module)
    assert module.outputs == ["one"]
    assert module.plain.tolist() == [0.0, 0.0, 0.0]
    assert module.average == 0.0
    assert module.hidden["mean"]._update_count == 0


@pytest.mark.parametrize("make", [Busy, Locked])
def test_it_is_put_back_when_the_analysis_fails(make: type[Busy]) -> None:
    module = used(make())
    before = Snapshot(module)
    with pytest.raises(KeyError), isolated(module) as stand_in:
        stand_in(torch.zeros(2, FEATURES))
        raise KeyError
    assert before.differences() == []


@pytest.mark.parametrize("make", [Busy, Locked])
def test_the_stand_in(make: type[Busy], tmp_path: Path) -> None:
    module = make()
    module.trainer = make_trainer(tmp_path)
    with isolated(module) as stand_in:
        assert stand_in.trainer is module._trainer
        assert not any(part.training for part in stand_in.modules())
        assert all(p.grad is None for p in stand_in.parameters())
        assert [p.requires_grad for p in stand_in.parameters()] == [p.requires_grad for p in module.parameters()]
        assert type(stand_in).__name__ == make.__name__
        assert isinstance(stand_in, make)
        stand_in.log("anything", torch.zeros(3))  # neither a scalar nor inside a loop of the Trainer
        stand_in.logger.experiment.add_image("x", None)
        assert float(stand_in.accuracy(torch.zeros(2, CLASSES), torch.tensor([0, 1]))) == 0.0
        assert list(stand_in.metrics(torch.zeros(2, CLASSES), torch.tensor([0, 1]))) == ["train_MulticlassAccuracy"]
        assert stand_in.metrics["MulticlassAccuracy"]._update_count == 0
        assert torch.equal(stand_in.graph, module.graph)
    assert module.trainer is not None


def test_without_a_trainer() -> None:
    module = Classifier()
    with isolated(module) as stand_in:
        assert stand_in is not module
        assert stand_in._trainer is None


class Counting(Classifier):
    """A loss that depends on a buffer which the step writes, in place and anew."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("scale", torch.ones(()))
        self.register_buffer("shift", torch.zeros(()))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x, y = batch
        logits = self(x) * self.scale + self.shift * torch.arange(CLASSES)
        self.scale.mul_(2.0)
        self.shift = self.shift + 1.0
        return F.cross_entropy(logits, y)


def test_buffers_stay_frozen() -> None:
    module = Counting()
    data = blobs(SAMPLES)
    batch = batches_of(data)(range(6))
    expected = F.cross_entropy(module(batch[0]), batch[1], reduction="none")
    with isolated(module) as stand_in:
        model = resolve(stand_in, batches_of(data), SAMPLES)
        weights = Weights.of(stand_in)
        for _ in range(3):
            torch.testing.assert_close(model.losses(weights.trainable, weights.fixed, batch), expected)
        assert weights.fixed["scale"] == 1.0
        assert stand_in.scale == 1.0
        assert stand_in.shift == 0.0


class Averaging(Classifier):
    """Keeps a moving average of its loss for the log, in a plain attribute, and the losses of an epoch in a list."""

    def __init__(self) -> None:
        super().__init__()
        self.average = torch.zeros(())
        self.outputs: list[Tensor] = []

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x, y = batch
        loss = F.cross_entropy(self(x), y)
        self.average = 0.9 * self.average + 0.1 * loss.detach()
        self.outputs.append(loss)
        self.log("average", self.average)
        return loss


def test_a_moving_average_in_an_attribute_survives_transforms() -> None:
    data = blobs(SAMPLES)
    batch = batches_of(data)(range(6))
    with isolated(Averaging()) as stand_in:
        model = resolve(stand_in, batches_of(data), SAMPLES)
        weights = Weights.of(stand_in)
        evaluator = Evaluator(model)
        for _ in range(2):
            evaluator.norms(weights, batch, 6)
            jvp(lambda p: model.losses(p, weights.fixed, batch), (weights.trainable,), (weights.trainable,))
            model.outputs(weights, batch)
        assert evaluator.notes == []
        assert stand_in.average == 0.0  # no state is carried from batch to batch
        assert stand_in.outputs == []  # or every batch's graph would stay in memory


def test_gradients_do_not_reach_the_module() -> None:
    module = Classifier()
    batch = batches_of(blobs(SAMPLES))(range(6))
    with isolated(module) as stand_in:
        model = SampleModel(stand_in)
        weights = Weights.of(stand_in)
        leaves = {n: t.requires_grad_() for n, t in weights.trainable.items()}
        model.losses(leaves, weights.fixed, batch).sum().backward()
        assert all(leaf.grad is not None for leaf in leaves.values())
    assert all(p.grad is None for p in module.parameters())


def test_shared_submodules_stay_shared() -> None:
    class Shared(Classifier):
        def __init__(self) -> None:
            super().__init__()
            self.again = self.net
            self.layers = [self.net[0]]

        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            return F.cross_entropy(self.again(batch[0]), batch[1]) + 0 * self.layers[0].weight.sum()

    module = Shared()
    with isolated(module) as stand_in:
        assert stand_in.again is stand_in.net
        assert stand_in.layers[0] is stand_in.net[0]
        assert stand_in.net is not module.net
        model = resolve(stand_in, batches_of(blobs(SAMPLES)), SAMPLES)
        assert model.mode == "observed"
        # `torch.func.functional_call` leaves a submodule that has two names with tensors for parameters.
        assert all(isinstance(p, nn.Parameter) and p.requires_grad for p in stand_in.parameters())
    before = Snapshot(module)
    work(module)
    assert before.differences() == []


def test_hooks_of_the_user_run_on_the_stand_in() -> None:
    module = Classifier()
    module.net[0].register_forward_hook(lambda m, args, out: out * 0)
    with isolated(module) as stand_in:
        assert torch.equal(stand_in.net[0](torch.ones(1, FEATURES)), torch.zeros(1, 8))


def test_a_parametrised_layer_is_copied() -> None:
    module = Classifier()
    nn.utils.parametrizations.weight_norm(module.net[0])
    before = Snapshot(module)
    assert work(module).mode == "observed"
    assert before.differences() == []
