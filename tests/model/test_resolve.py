"""What people write in ``training_step``: it comes apart into the right losses, or is refused with what to write."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor, nn
from torch.utils.data import Dataset, default_collate
from torchmetrics import MeanMetric
from torchmetrics.classification import MulticlassAccuracy

from lightning_inf import InfluenceMixin
from lightning_inf.model.isolate import isolated
from lightning_inf.model.output import Outputs
from lightning_inf.model.resolve import resolve
from lightning_inf.model.sample_model import SampleModel
from lightning_inf.model.weights import Weights
from lightning_inf.sweep.evaluate import Evaluator
from lightning_inf.sweep.ways import Ways
from tests.samples import CLASSES, FEATURES, Classifier, Crowded, batches_of, blobs

SAMPLES = 24
CLASS_WEIGHT = torch.tensor([0.2, 1.0, 3.0])


class Items(Dataset[Any]):
    """Items made from the blobs."""

    def __init__(self, make: Callable[[Tensor, Tensor], Any]) -> None:
        self.blobs = blobs(SAMPLES)
        self.make = make

    def __len__(self) -> int:
        return SAMPLES

    def __getitem__(self, index: int) -> Any:
        return self.make(*self.blobs[index])


@dataclass
class Record:
    """A batch as a dataclass."""

    x: Tensor
    y: Tensor


def collate_records(items: list[Record]) -> Record:
    return Record(torch.stack([i.x for i in items]), torch.stack([i.y for i in items]))


def step(loss: Callable[[Any, Any], Any], base: type[Classifier] = Classifier) -> Callable[[], Classifier]:
    """A module whose training step is ``loss(module, batch)``."""

    class Module(base):  # type: ignore[misc, valid-type]
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            return loss(self, batch)

    return Module


@dataclass
class Case:
    """A training step and what is expected of it."""

    make: Callable[[], Classifier]
    mode: str
    expected: Callable[[Classifier, Any], Tensor]
    data: Dataset[Any] = field(default_factory=lambda: blobs(SAMPLES))
    collate: Callable[[list[Any]], Any] = default_collate
    classifies: bool = True
    note: str = ""
    forward_mode: bool = True
    vectorizes: bool = True


def ce(module: Classifier, batch: Any, **kwargs: Any) -> Tensor:
    return F.cross_entropy(module(batch[0]), batch[1], reduction="none", **kwargs)


def binary(batch: Any) -> Tensor:
    return (batch[1] > 0).float()


def onehot(batch: Any) -> Tensor:
    return torch.eye(CLASSES)[batch[1]]


def with_attribute(**attributes: Any) -> Callable[[Callable[[Any, Any], Any]], Callable[[], Classifier]]:
    def decorate(loss: Callable[[Any, Any], Any]) -> Callable[[], Classifier]:
        def make() -> Classifier:
            module = step(loss)()
            for name, value in attributes.items():
                setattr(module, name, value() if isinstance(value, type) else value)
            return module

        return make

    return decorate


def log_probabilities(m: Classifier, b: Any) -> Tensor:
    return m(b[0]).log_softmax(1)


def hand_written(m: Classifier, b: Any) -> Tensor:
    return -log_probabilities(m, b).gather(1, b[1][:, None]).squeeze(1)


def checked(m: Any, b: Any) -> Tensor:
    loss = F.cross_entropy(m(b[0]), b[1])
    if not torch.isfinite(loss):
        raise ValueError("diverged")
    m.history = [*getattr(m, "history", []), loss.detach()]
    m.log("loss", loss.detach())
    return loss


def itemised(m: Any, b: Any) -> Tensor:
    loss = F.cross_entropy(m(b[0]), b[1])
    m.last = loss.item()
    return loss


def metrics_step(m: Any, b: Any) -> Tensor:
    logits = m(b[0])
    loss = F.cross_entropy(logits, b[1])
    accuracy = m.accuracy(logits.softmax(1), b[1])
    m.mean.update(loss)
    m.log("accuracy", m.accuracy)
    m.log_dict({"a": accuracy, "b": m.mean.compute()})
    return loss


def ctc(m: Any, b: Any) -> Tensor:
    logits = torch.stack([m(b[0] * scale) for scale in (0.5, 1.0, 2.0)]).log_softmax(2)
    lengths = torch.full((len(b[1]),), 3), torch.ones(len(b[1]), dtype=torch.long)
    return F.ctc_loss(logits, 1 + b[1][:, None] % 2, *lengths, reduction="mean")


def ctc_each(m: Any, b: Any) -> Tensor:
    logits = torch.stack([m(b[0] * scale) for scale in (0.5, 1.0, 2.0)]).log_softmax(2)
    lengths = torch.full((len(b[1]),), 3), torch.ones(len(b[1]), dtype=torch.long)
    return F.ctc_loss(logits, 1 + b[1][:, None] % 2, *lengths, reduction="none")


def focal(m: Any, b: Any) -> Tensor:
    loss = F.cross_entropy(m(b[0]), b[1], reduction="none")
    return ((1 - (-loss).exp()) ** 2 * loss).mean()


def focal_each(m: Any, b: Any) -> Tensor:
    return (1 - (-ce(m, b)).exp()) ** 2 * ce(m, b)


class Twice(Classifier):
    """A siamese step: the same network is called twice."""

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x, _ = batch
        return F.mse_loss(self(x), self(x.flip(1)))


class Tied(Classifier):
    """Two layers share their weight."""

    def __init__(self) -> None:
        super().__init__()
        self.encode = nn.Linear(FEATURES, FEATURES)
        self.decode = nn.Linear(FEATURES, FEATURES)
        self.decode.weight = self.encode.weight

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x, _ = batch
        return F.mse_loss(self.decode(self.encode(x).tanh()), x)


class Aliased(Classifier):
    """Submodules registered twice, as in ``self.model = nn.Sequential(self.backbone, self.head)``."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone, self.head = self.net[0], self.net[2]


class Frozen(Classifier):
    """Only the head is trained."""

    def __init__(self) -> None:
        super().__init__()
        self.net[0].requires_grad_(False)


class Variational(Classifier):
    """A loss of the library plus a hand-written term that is a mean over samples."""

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x, y = batch
        z = self(x)
        return F.cross_entropy(z, y) + 0.5 * z.square().sum(1).mean()


class NoIndex(Classifier):
    def training_step(self, batch: Any) -> Tensor:  # type: ignore[override]
        return F.cross_entropy(self(batch[0]), batch[1])


class Hooked(InfluenceMixin, Classifier):
    """Says how its loss is computed."""

    def training_step(self, batch: Any, batch_idx: int) -> None:
        raise AssertionError("influence_step is overridden, so training_step is not needed")

    def influence_step(self, batch: Any, batch_idx: int) -> dict[str, Tensor]:
        logits = self(batch[0])
        return {"loss": F.cross_entropy(logits, batch[1], reduction="none"), "logits": logits, "target": batch[1]}


class HookedManual(Classifier):
    """Manual optimisation, with the hook but without the mixin."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False

    def influence_step(self, batch: Any, batch_idx: int) -> Tensor:
        return ce(self, batch)


class Configured(Classifier):
    """Parameters that come to be in ``configure_model``."""

    def __init__(self) -> None:
        super().__init__()
        self.net = None
        self.configure_model()

    def configure_model(self) -> None:
        if self.net is None:
            self.net = nn.Linear(FEATURES, CLASSES)


class MixedInTraining(Classifier):
    """MixUp that looks at ``self.training``, as it should."""

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x, y = batch
        if not self.training:
            return F.cross_entropy(self(x), y)
        share, other = 0.3, torch.randperm(len(x))
        logits = self(share * x + (1 - share) * x[other])
        return share * F.cross_entropy(logits, y) + (1 - share) * F.cross_entropy(logits, y[other])


def segmentation(m: Any, b: Any) -> Tensor:
    """Logits of shape (B, C, 2, 2), from the same network at four shifts."""
    rows = torch.stack([m(b[0] + shift) for shift in (0.0, 0.1, 0.2, 0.3)], dim=2)
    return rows.reshape(len(b[0]), CLASSES, 2, 2)


def masks(b: Any) -> Tensor:
    target = b[1][:, None, None].repeat(1, 2, 2)
    target[:, 0, 0] = (target[:, 0, 0] + 1) % CLASSES
    target[:, 1, 1] = torch.where(b[1] == 1, -100, target[:, 1, 1])
    return target


def ignored(b: Any) -> Tensor:
    return torch.where(b[1] == 2, -100, b[1])


def triple(x: Tensor, y: Tensor) -> dict[str, Any]:
    return {"image": x, "meta": {"target": (y, x.sum())}, "name": f"sample {int(y)}"}


L2 = 0.01


def l2(m: Any) -> Tensor:
    return L2 * sum(p.square().sum() for p in m.parameters())


CASES: dict[str, Case] = {
    "cross-entropy, function": Case(Classifier, "observed", ce),
    "cross-entropy, module": Case(
        with_attribute(criterion=nn.CrossEntropyLoss)(lambda m, b: m.criterion(m(b[0]), b[1])), "observed", ce
    ),
    "class weights, function": Case(
        step(lambda m, b: F.cross_entropy(m(b[0]), b[1], CLASS_WEIGHT)),
        "observed",
        lambda m, b: CLASS_WEIGHT[b[1]] * ce(m, b),
    ),
    "class weights, module": Case(
        with_attribute(criterion=nn.CrossEntropyLoss(weight=CLASS_WEIGHT))(lambda m, b: m.criterion(m(b[0]), b[1])),
        "observed",
        lambda m, b: CLASS_WEIGHT[b[1]] * ce(m, b),
    ),
    "label smoothing": Case(
        step(lambda m, b: F.cross_entropy(m(b[0]), b[1], label_smoothing=0.1)),
        "observed",
        lambda m, b: ce(m, b, label_smoothing=0.1),
    ),
    "ignore_index": Case(
        step(lambda m, b: F.cross_entropy(m(b[0]), ignored(b))),
        "observed",
        lambda m, b: ce(m, b) * (b[1] != 2),
    ),
    "sum": Case(step(lambda m, b: F.cross_entropy(m(b[0]), b[1], reduction="sum")), "observed", ce),
    "sum over the batch size": Case(
        step(lambda m, b: F.cross_entropy(m(b[0]), b[1], reduction="sum") / len(b[1])), "observed", ce
    ),
    "none and mean": Case(step(lambda m, b: F.cross_entropy(m(b[0]), b[1], reduction="none").mean()), "observed", ce),
    "none, weights and mean": Case(
        step(lambda m, b: F.cross_entropy(m(b[0]), b[1], CLASS_WEIGHT, reduction="none").mean()),
        "single",
        lambda m, b: CLASS_WEIGHT[b[1]] * ce(m, b),
        note="one sample at a time",
    ),
    "binary": Case(
        step(lambda m, b: F.binary_cross_entropy_with_logits(m(b[0])[:, 0], binary(b))),
        "observed",
        lambda m, b: F.binary_cross_entropy_with_logits(m(b[0])[:, 0], binary(b), reduction="none"),
    ),
    "binary, probabilities": Case(
        step(lambda m, b: F.binary_cross_entropy(m(b[0])[:, :1].sigmoid(), binary(b)[:, None])),
        "observed",
        lambda m, b: F.binary_cross_entropy_with_logits(m(b[0])[:, 0], binary(b), reduction="none"),
        classifies=False,
    ),
    "multi-label": Case(
        with_attribute(criterion=nn.BCEWithLogitsLoss)(lambda m, b: m.criterion(m(b[0]), onehot(b))),
        "observed",
        lambda m, b: F.binary_cross_entropy_with_logits(m(b[0]), onehot(b), reduction="none").mean(1),
        classifies=False,
    ),
    "squared error": Case(
        step(lambda m, b: F.mse_loss(m(b[0]), onehot(b))),
        "observed",
        lambda m, b: (m(b[0]) - onehot(b)).square().mean(1),
        classifies=False,
    ),
    "negative log-likelihood": Case(step(lambda m, b: F.nll_loss(log_probabilities(m, b), b[1])), "observed", ce),
    "absolute error": Case(
        step(lambda m, b: nn.L1Loss()(m(b[0]), onehot(b))),
        "observed",
        lambda m, b: (m(b[0]) - onehot(b)).abs().mean(1),
        classifies=False,
    ),
    "Huber": Case(
        step(lambda m, b: nn.HuberLoss(delta=0.3)(m(b[0]), onehot(b))),
        "observed",
        lambda m, b: F.huber_loss(m(b[0]), onehot(b), delta=0.3, reduction="none").mean(1),
        classifies=False,
    ),
    "smooth L1": Case(
        step(lambda m, b: nn.SmoothL1Loss(beta=0.3)(m(b[0]), onehot(b))),
        "observed",
        lambda m, b: F.smooth_l1_loss(m(b[0]), onehot(b), beta=0.3, reduction="none").mean(1),
        classifies=False,
    ),
    "soft targets": Case(
        step(lambda m, b: F.cross_entropy(m(b[0]), 0.9 * onehot(b) + 0.1 / CLASSES)),
        "observed",
        lambda m, b: -((0.9 * onehot(b) + 0.1 / CLASSES) * log_probabilities(m, b)).sum(1),
        classifies=False,
    ),
    "CTC": Case(step(ctc), "single", ctc_each, classifies=False, note="one sample at a time", forward_mode=False),
    "hand-written": Case(
        step(lambda m, b: hand_written(m, b).mean()), "single", ce, classifies=False, note="one sample at a time"
    ),
    "focal": Case(step(focal), "single", focal_each, note="one sample at a time"),
    "Kullback-Leibler": Case(
        step(lambda m, b: F.kl_div(log_probabilities(m, b), onehot(b), reduction="batchmean")),
        "single",
        ce,
        classifies=False,
        note="one sample at a time",
    ),
    "two loss terms": Case(
        step(lambda m, b: F.cross_entropy(m(b[0]), b[1]) + 0.5 * F.mse_loss(m(b[0]), onehot(b))),
        "replaced",
        lambda m, b: ce(m, b) + 0.5 * (m(b[0]) - onehot(b)).square().mean(1),
    ),
    "auxiliary head": Case(
        step(lambda m, b: F.cross_entropy(m(b[0]), b[1]) + 0.4 * F.cross_entropy(m(-b[0]), b[1])),
        "replaced",
        lambda m, b: ce(m, b) + 0.4 * ce(m, (-b[0], b[1])),
        classifies=False,
    ),
    "two loss terms and item": Case(
        step(
            lambda m, b: (
                F.cross_entropy(m(b[0]), b[1]) + F.mse_loss(m(b[0]), onehot(b)) * (1.0 + 0.0 * m(b[0]).mean().item())
            )
        ),
        "replaced",
        lambda m, b: ce(m, b) + (m(b[0]) - onehot(b)).square().mean(1),
        vectorizes=False,  # `.item()` on the model's own output
    ),
    "scaled": Case(step(lambda m, b: 0.3 * F.cross_entropy(m(b[0]), b[1])), "replaced", lambda m, b: 0.3 * ce(m, b)),
    "regulariser": Case(
        step(lambda m, b: F.cross_entropy(m(b[0]), b[1]) + l2(m)), "observed", ce, note="a regulariser"
    ),
    "regulariser and item": Case(
        step(lambda m, b: F.cross_entropy(m(b[0]), b[1]) + l2(m).detach().item()), "observed", ce, note="a regulariser"
    ),
    "a mean over samples that is no regulariser": Case(
        Variational, "single", lambda m, b: ce(m, b) + 0.5 * m(b[0]).square().sum(1), note="one sample at a time"
    ),
    "item": Case(step(itemised), "observed", ce, vectorizes=False),
    "isfinite": Case(step(checked), "observed", ce, vectorizes=False),
    "one_hot": Case(
        step(lambda m, b: F.cross_entropy(m(b[0]), F.one_hot(b[1], CLASSES).float())),
        "observed",
        ce,
        classifies=False,
        vectorizes=False,  # `one_hot` looks at its values
    ),
    "returns a dict": Case(
        step(lambda m, b: {"loss": F.cross_entropy(m(b[0]), b[1]), "x": b[0], "n": 3}), "observed", ce
    ),
    "metrics": Case(
        with_attribute(accuracy=MulticlassAccuracy(CLASSES), mean=MeanMetric())(metrics_step), "observed", ce
    ),
    "dict batch": Case(
        step(lambda m, b: F.cross_entropy(m(b["x"]), b["y"])),
        "observed",
        lambda m, b: ce(m, (b["x"], b["y"])),
        data=Items(lambda x, y: {"x": x, "y": y}),
    ),
    "dataclass batch": Case(
        step(lambda m, b: F.cross_entropy(m(b.x), b.y)),
        "observed",
        lambda m, b: ce(m, (b.x, b.y)),
        data=Items(Record),
        collate=collate_records,
        vectorizes=False,  # a dataclass is one leaf
    ),
    "nested batch": Case(
        step(lambda m, b: F.cross_entropy(m(b["image"]), b["meta"]["target"][0])),
        "observed",
        lambda m, b: ce(m, (b["image"], b["meta"]["target"][0])),
        data=Items(triple),
    ),
    "segmentation": Case(
        step(lambda m, b: F.cross_entropy(segmentation(m, b), masks(b), CLASS_WEIGHT)),
        "observed",
        lambda m, b: (
            F.cross_entropy(segmentation(m, b), masks(b), CLASS_WEIGHT, reduction="none").sum((1, 2))
            / (masks(b) >= 0).sum((1, 2))
        ),
        classifies=False,
    ),
    "MixUp in training only": Case(MixedInTraining, "observed", ce),
    "no batch_idx": Case(NoIndex, "observed", ce),
    "BatchNorm, dropout, in-place ReLU": Case(Crowded, "observed", ce),
    "tied weights": Case(
        Tied, "observed", lambda m, b: (m.decode(m.encode(b[0]).tanh()) - b[0]).square().mean(1), classifies=False
    ),
    "submodules registered twice": Case(Aliased, "observed", ce),
    "called twice": Case(
        Twice, "observed", lambda m, b: (m(b[0]) - m(b[0].flip(1))).square().mean(1), classifies=False
    ),
    "configure_model": Case(Configured, "observed", ce),
    "frozen parameters": Case(Frozen, "observed", ce),
    "influence_step": Case(Hooked, "influence_step", ce),
    "manual optimisation with influence_step": Case(HookedManual, "influence_step", ce, classifies=False),
}


def evaluate(model: SampleModel, weights: Weights, case: Case, indices: list[int]) -> Outputs:
    """Outputs of a batch, one sample at a time where the mode says so."""
    batches = batches_of(case.data, case.collate)
    if model.mode != "single":
        return model.outputs(weights, batches(indices))
    each = [model.outputs(weights, batches([i])) for i in indices]
    logits = None if each[0].logits is None else torch.cat([o.logits for o in each])
    target = None if each[0].target is None else torch.cat([o.target for o in each])
    return Outputs(torch.cat([o.loss for o in each]), logits, target)


@pytest.mark.parametrize("name", CASES)
def test_the_loss_of_each_sample_is_right(name: str) -> None:
    case = CASES[name]
    module = case.make()
    indices = list(range(5, 15))
    with isolated(module) as stand_in:
        model = resolve(stand_in, batches_of(case.data, case.collate), SAMPLES)
        weights = Weights.of(stand_in)
        with torch.no_grad():
            outputs = evaluate(model, weights, case, indices)
    assert model.mode == case.mode
    module.eval()
    batch = batches_of(case.data, case.collate)(indices)
    with torch.no_grad():
        expected = case.expected(module, batch)
    assert outputs.loss.shape == (len(indices),)
    torch.testing.assert_close(outputs.loss, expected, rtol=1e-5, atol=1e-6)
    assert (outputs.logits is not None) == case.classifies
    assert (outputs.target is not None) == case.classifies
    notes = " ".join(model.notes)
    assert case.note in notes
    assert case.note or not notes


@pytest.mark.parametrize("layers", [None, False])
@pytest.mark.parametrize("name", CASES)
def test_derivatives_of_each_samples_loss_are_right(name: str, layers: bool | None) -> None:
    case = CASES[name]
    module = case.make()
    indices = [3, 8, 13]
    batches = batches_of(case.data, case.collate)
    with isolated(module) as stand_in:
        model = resolve(stand_in, batches, SAMPLES)
        weights = Weights.of(stand_in)
        make = torch.Generator().manual_seed(5)
        tangent = {n: torch.randn(p.shape, generator=make) for n, p in weights.trainable.items()}
        evaluator = Evaluator(model, ways=Ways(layers=layers))
        groups = [[i] for i in indices] if model.mode == "single" else [indices]
        norms = torch.cat([evaluator.norms(weights, batches(group), len(group)) for group in groups])
        along = torch.cat([evaluator.derivatives(weights, [tangent], batches(group), len(group)) for group in groups])
    if layers is False:
        notes = " ".join(evaluator.notes)
        assert ("vmap does not take this model" in notes) == (not case.vectorizes)
        assert (evaluator.used["derivative"] == "jvp") == case.forward_mode
    module.eval()
    parameters = {n: p for n, p in module.named_parameters() if p.requires_grad}
    assert parameters.keys() == weights.trainable.keys()
    for position, index in enumerate(indices):
        loss = case.expected(module, batches([index])).squeeze(0)
        grads = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
        found = {
            n: torch.zeros_like(p) if g is None else g for (n, p), g in zip(parameters.items(), grads, strict=True)
        }
        norm = sum(float(g.double().square().sum()) for g in found.values())
        assert float(norms[position]) == pytest.approx(norm, rel=1e-4, abs=1e-9)
        expected = sum(float((g * tangent[n]).double().sum()) for n, g in found.items())
        assert float(along[position, 0]) == pytest.approx(expected, rel=1e-4 if case.forward_mode else 2e-2, abs=1e-5)


class Contrastive(Classifier):
    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        z = F.normalize(self(batch[0]), dim=1)
        return F.cross_entropy(z @ z.T / 0.1, torch.arange(len(z)))


class HandWeighted(Classifier):
    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        weight = CLASS_WEIGHT[batch[1]]
        return (weight * hand_written(self, batch)).sum() / weight.sum()


class MixUp(Classifier):
    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x, y = batch
        share, other = torch.rand(()), torch.randperm(len(x))
        logits = self(share * x + (1 - share) * x[other])
        return share * F.cross_entropy(logits, y) + (1 - share) * F.cross_entropy(logits, y[other])


class MixUpFixed(Classifier):
    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x, y = batch
        logits = self(0.7 * x + 0.3 * x.flip(0))
        return 0.7 * F.cross_entropy(logits, y) + 0.3 * F.cross_entropy(logits, y.flip(0))


class Noisy(Classifier):
    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return F.cross_entropy(self(batch[0] + torch.randn_like(batch[0])), batch[1])


class Manual(Classifier):
    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False

    def training_step(self, batch: Any, batch_idx: int) -> None:
        raise AssertionError("a manual step would move the optimizer")


class Broadcast(Classifier):
    """A column of predictions against a row of targets: every pair is compared."""

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return F.mse_loss(self(batch[0])[:, :1], batch[1].float())


class BatchStatistics(Classifier):
    """Normalises by the batch, also in eval mode."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.BatchNorm1d(FEATURES, track_running_stats=False), nn.Linear(FEATURES, CLASSES))


class Hook(InfluenceMixin, Classifier):
    returned: Callable[[Tensor, Tensor, Tensor], Any]

    def influence_step(self, batch: Any, batch_idx: int) -> Any:
        logits = self(batch[0])
        return type(self).returned(F.cross_entropy(logits, batch[1], reduction="none"), logits, batch[1])


def hook(returned: Callable[[Tensor, Tensor, Tensor], Any]) -> type[Hook]:
    return type("Hook", (Hook,), {"returned": staticmethod(returned)})


HOOK = r"def influence_step\(self, batch, batch_idx\)"
REFUSED: dict[str, tuple[Callable[[], Classifier], str]] = {
    "contrastive": (Contrastive, HOOK),
    "hand-written class weights": (HandWeighted, HOOK),
    "MixUp": (MixUp, HOOK),
    "MixUp without random numbers": (MixUpFixed, HOOK),
    "random numbers": (Noisy, HOOK),
    "manual optimisation": (Manual, "manual optimization.*" + HOOK),
    "broadcast": (Broadcast, HOOK),
    "statistics of the batch": (BatchStatistics, HOOK),
    "returns None": (step(lambda m, b: None), "returned NoneType.*" + HOOK),
    "returns a dict without loss": (step(lambda m, b: {"out": m(b[0])}), "returned dict.*`loss`.*" + HOOK),
    "returns a float": (step(lambda m, b: 1.0), "returned float.*" + HOOK),
    "raises": (step(lambda m, b: m(b["x"])), "training_step failed on a batch of 16.*" + HOOK),
    "influence_step of a mean": (
        hook(lambda loss, x, y: loss.mean()),
        r"`influence_step` of Hook.*\(16,\).*found \(\)",
    ),
    "influence_step of a column": (hook(lambda loss, x, y: loss[:, None]), r"`influence_step`.*\(16,\).*\(16, 1\)"),
    "influence_step without targets": (
        hook(lambda loss, x, y: {"loss": loss, "logits": x}),
        "both `logits` and `target`",
    ),
    "influence_step without loss": (
        hook(lambda loss, x, y: {"logits": x, "target": y}),
        "`influence_step` of Hook.*loss",
    ),
    "influence_step of a list": (hook(lambda loss, x, y: loss.tolist()), "`influence_step` of Hook.*list"),
    "influence_step that raises": (hook(lambda loss, x, y: {}["nothing"]), "`influence_step` of Hook.*nothing"),
    "influence_step of a batch's ranks": (
        hook(lambda loss, x, y: loss / loss.sum()),
        "`influence_step`.*other samples",
    ),
    "influence_step with wrong logits": (
        hook(lambda loss, x, y: {"loss": loss, "logits": x[:, 0], "target": y}),
        "`influence_step` of Hook.*logits",
    ),
    "influence_step with soft targets": (
        hook(lambda loss, x, y: {"loss": loss, "logits": x, "target": x.softmax(1)}),
        "`influence_step` of Hook.*target",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_can_not_be_taken_apart_is_refused_with_the_hook_to_write(name: str) -> None:
    make, message = REFUSED[name]
    with isolated(make()) as stand_in, pytest.raises(MisconfigurationException, match=f"(?s){message}"):
        resolve(stand_in, batches_of(blobs(SAMPLES)), SAMPLES)


def test_the_refusal_gives_each_modes_reason() -> None:
    with isolated(Contrastive()) as stand_in, pytest.raises(MisconfigurationException) as refused:
        resolve(stand_in, batches_of(blobs(SAMPLES)), SAMPLES)
    text = str(refused.value)
    for mode in ("Watching its loss function", "Replacing its reduction by 'none'", "Batches of one sample"):
        assert mode in text
    assert "Contrastive.training_step" in text


@pytest.mark.parametrize("samples", [1, 2, 3, 15, 16, 17])
def test_few_samples_are_enough(samples: int) -> None:
    data = blobs(samples)
    with isolated(Classifier()) as stand_in:
        assert resolve(stand_in, batches_of(data), samples).mode == "observed"


def test_a_sample_of_nan_does_not_stop_it() -> None:
    data = blobs(SAMPLES)
    data.tensors[0][0] = float("nan")
    with isolated(Classifier()) as stand_in:
        model = resolve(stand_in, batches_of(data), SAMPLES)
        weights = Weights.of(stand_in)
        loss = model.losses(weights.trainable, weights.fixed, batches_of(data)(range(8)))
    assert loss.isnan().tolist() == [True] + [False] * 7


def test_a_memorised_model_is_not_refused_for_rounding() -> None:
    module = Classifier()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.mul_(30.0)
    with isolated(module) as stand_in:
        assert resolve(stand_in, batches_of(blobs(SAMPLES)), SAMPLES).mode == "observed"


def test_a_step_that_runs_on_the_original_is_not_taken_for_the_copys() -> None:
    """A wrapped step on the instance is a closure over the user's module: its loss can't be moved by our weights."""
    module = Classifier()
    original = module.training_step
    module.training_step = lambda batch, batch_idx: original(batch, batch_idx)  # type: ignore[method-assign]
    data = blobs(SAMPLES)
    with isolated(module) as stand_in:
        try:
            model = resolve(stand_in, batches_of(data), SAMPLES)
        except MisconfigurationException:
            return
        weights = Weights.of(stand_in)
        moved = weights.moved({name: torch.ones_like(p) for name, p in weights.trainable.items()})
        batch = batches_of(data)(range(4))
        before, after = (model.losses(w.trainable, w.fixed, batch) for w in (weights, moved))
    assert not torch.equal(before, after)
