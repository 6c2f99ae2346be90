"""All ways to a derivative answer the same question."""

import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch import LightningModule
from torch import nn

from lightning_inf.model import gradients
from lightning_inf.model.sample_model import SampleModel
from lightning_inf.model.weights import Weights
from lightning_inf.sweep import backends
from lightning_inf.sweep.evaluate import Evaluator
from lightning_inf.sweep.measurements import DerivativeAt, GradientNormAt, LossAt, OutputsAt
from lightning_inf.sweep.ways import Ways
from tests.checkpoint_stub import stub

SAMPLES, TANGENTS = 10, 3


class Body(nn.Module):
    """In-place ReLU, BatchNorm, a layer used twice and tied weights."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 6, 3, padding=1)
        self.norm = nn.BatchNorm2d(6)
        self.twice = nn.Conv2d(6, 6, 3, padding=1)
        self.head = nn.Linear(6, 6)
        self.tied = nn.Linear(6, 6)
        self.tied.weight = self.head.weight

    def forward(self, x):
        x = F.relu(self.norm(self.conv(x)), inplace=True)
        x = self.twice(F.relu(self.twice(x), inplace=True)).mean(dim=(2, 3))
        return self.tied(self.head(x))


class Net(LightningModule):
    def __init__(self):
        super().__init__()
        self.body = Body()

    def training_step(self, batch, batch_idx):
        return F.cross_entropy(
            self.body(batch["x"]), batch["y"], weight=torch.arange(1.0, 7.0).to(self.body.head.weight)
        )


@pytest.fixture(scope="module")
def case():
    torch.manual_seed(0)
    module = Net()
    module.body.norm.running_mean.normal_()
    batch = {"x": torch.randn(SAMPLES, 1, 6, 6), "y": torch.randint(0, 6, (SAMPLES,)), "name": "a batch"}
    weights = Weights.of(module.eval())
    tangents = [{n: torch.randn_like(p) for n, p in weights.trainable.items()} for _ in range(TANGENTS)]
    return SampleModel(module), weights, tangents, batch


@pytest.fixture(scope="module")
def truth(case):
    """Each sample's gradient by a loop of plain backward passes, without any of our code below the module."""
    model, weights, tangents, batch = case
    module = model.module
    rows, norms = [], []
    for i in range(SAMPLES):
        y = batch["y"][i : i + 1]
        loss = F.cross_entropy(module.body(batch["x"][i : i + 1]), y, reduction="none")[0] * (y[0] + 1.0)
        grads = dict(zip(weights.trainable, torch.autograd.grad(loss, list(module.parameters())), strict=True))
        rows.append(torch.stack([sum((grads[n] * t[n]).sum() for n in grads) for t in tangents]))
        norms.append({n: g.square().sum().item() for n, g in grads.items()})
    return torch.stack(rows).detach().double(), norms


def relative(found, expected):
    return float((found.double() - expected).abs().max() / expected.abs().max())


def test_forward_mode(case, truth):
    assert relative(backends.forward_mode(*case), truth[0]) < 1e-5


@pytest.mark.parametrize("vectorize", [True, False])
def test_per_sample_gradients(case, truth, vectorize):
    model, weights, tangents, batch = case
    slices = list(gradients.per_sample_gradients(model, weights, batch, SAMPLES, vectorize))
    found = torch.cat([gradients.products(g, tangents) for _, g in slices])
    assert relative(found, truth[0]) < 1e-5
    scale = {n: 0.5 + i for i, n in enumerate(weights.trainable)}
    norms = torch.cat([gradients.squared_norms(g, scale) for _, g in slices])
    expected = torch.tensor([sum(scale[n] * v for n, v in sample.items()) for sample in truth[1]])
    assert relative(norms, expected.double()) < 1e-5


def test_slices_are_small_when_gradients_are_large(case, truth, monkeypatch):
    model, weights, tangents, batch = case
    monkeypatch.setattr(gradients, "GRADIENT_BYTES", 3 * 4 * sum(p.numel() for p in weights.trainable.values()))
    slices = list(gradients.per_sample_gradients(model, weights, batch, SAMPLES))
    assert [len(losses) for losses, _ in slices] == [3, 3, 3, 1]
    assert relative(torch.cat([gradients.products(g, tangents) for _, g in slices]), truth[0]) < 1e-5


def test_central_differences(case, truth):
    model, weights, tangents, batch = case
    with torch.no_grad():
        assert relative(backends.central(model, weights, tangents, batch, 1e-8, torch.float64), truth[0]) < 2e-4
        evaluator = Evaluator(model, "central")
        assert relative(evaluator.derivatives(weights, tangents, batch, SAMPLES), truth[0]) < 2e-2


def test_a_missing_name_in_a_tangent_is_zero(case, truth):
    model, weights, tangents, batch = case
    part = [{n: t for n, t in tangents[0].items() if "head" in n}]
    whole = [{n: t if "head" in n else torch.zeros_like(t) for n, t in tangents[0].items()}]
    expected = backends.forward_mode(model, weights, whole, batch).double()
    assert relative(backends.forward_mode(model, weights, part, batch), expected) < 1e-6
    ((_, g),) = gradients.per_sample_gradients(model, weights, batch, SAMPLES)
    assert relative(gradients.products(g, part), expected) < 1e-5


class Attention(LightningModule):
    """Scaled dot-product attention has no forward-mode derivative."""

    def __init__(self):
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, dropout=0.0)

    def training_step(self, batch, batch_idx):
        x, y = batch
        return F.cross_entropy(self.layer(x).mean(dim=1), y)


def test_auto_falls_back_where_forward_mode_is_missing_and_says_so():
    torch.manual_seed(0)
    module = Attention().eval()
    weights = Weights.of(module)
    batch = torch.randn(6, 5, 8), torch.randint(0, 8, (6,))
    tangent = {n: torch.randn_like(p) for n, p in weights.trainable.items()}
    evaluator = Evaluator(SampleModel(module), ways=Ways(layers=False, reason="not tried"))
    found = evaluator.derivatives(weights, [tangent], batch, 6)
    expected = gradients.exact(evaluator.model, weights, [tangent], batch, 6)
    layered = Evaluator(SampleModel(module))
    assert relative(layered.derivatives(weights, [tangent], batch, 6), expected) < 1e-5
    assert layered.used["derivative"] == "products in the layers"
    assert relative(found, expected) < 2e-2
    assert "central" in evaluator.used["derivative"] or evaluator.used["derivative"].startswith("jvp")
    if "central" in evaluator.used["derivative"]:
        assert any("forward-mode" in note for note in evaluator.notes)


class Looks(Net):
    """``.item()`` in the step: not for vmap."""

    def training_step(self, batch, batch_idx):
        loss = super().training_step(batch, batch_idx)
        assert loss.item() == loss.item()
        return loss


def test_a_step_that_vmap_refuses_has_a_backward_pass_a_sample(case, truth):
    _, _, tangents, batch = case
    torch.manual_seed(0)
    module = Looks()
    module.body.norm.running_mean.normal_()
    weights = Weights.of(module.eval())
    evaluator = Evaluator(SampleModel(module), "vmap")
    checkpoint = stub("a")
    directions = [Fixed(str(i)) for i in range(TANGENTS)]
    asked = [GradientNormAt(checkpoint), *(DerivativeAt(checkpoint, d) for d in directions)]
    answers = evaluator(weights, asked, {str(i): t for i, t in enumerate(tangents)}, batch, SAMPLES)
    assert relative(torch.stack([answers[m.key]["derivative"] for m in asked[1:]], dim=1), truth[0]) < 1e-5
    assert evaluator.used["squared_norm"] == "one backward pass a sample"
    assert any("vmap" in note for note in evaluator.notes)


class Fixed:
    """A direction with a name."""

    def __init__(self, key):
        self.key = key


class SequenceFirst(LightningModule):
    """Has the samples in the second dimension, which shapes alone don't tell where both are equally long."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(6, 6)

    def training_step(self, batch, batch_idx):
        x, y = batch
        return F.cross_entropy(torch.tanh(self.layer(x.transpose(0, 1))).mean(dim=0), y)


@pytest.mark.parametrize("length", [4, SAMPLES])
def test_what_does_not_come_apart_in_the_layers_is_found_out(length):
    torch.manual_seed(0)
    module = SequenceFirst().eval()
    weights = Weights.of(module)
    batch = torch.randn(SAMPLES, length, 6), torch.randint(0, 6, (SAMPLES,))
    tangents = [{n: torch.randn_like(p) for n, p in weights.trainable.items()} for _ in range(2)]
    evaluator = Evaluator(SampleModel(module))
    expected = gradients.exact(evaluator.model, weights, tangents, batch, SAMPLES)
    assert relative(evaluator.derivatives(weights, tangents, batch, SAMPLES), expected) < 1e-5
    assert evaluator.used["derivative"] == "jvp"
    assert any("did not come apart in the layers" in note for note in evaluator.notes)


@pytest.mark.parametrize("sizes", [(SAMPLES, 5), (5, SAMPLES), (5, 5)])
def test_as_many_positions_as_samples_are_told_apart_from_one_index_a_sample(sizes):
    torch.manual_seed(0)
    module = Positions().eval()
    weights = Weights.of(module)
    tangent = {n: torch.randn_like(p) for n, p in weights.trainable.items()}
    evaluator = Evaluator(SampleModel(module))
    for size in sizes:
        batch = torch.randint(0, 9, (size, 5)), torch.randint(0, 4, (size,))
        expected = gradients.exact(evaluator.model, weights, [tangent], batch, size)
        assert relative(evaluator.derivatives(weights, [tangent], batch, size), expected) < 1e-5
        assert evaluator.used["derivative"] == "products in the layers"
    assert not evaluator.notes


def test_a_batch_that_goes_another_way_is_answered_otherwise():
    torch.manual_seed(0)
    module = Forked().eval()
    weights = Weights.of(module)
    tangent = {n: torch.randn_like(p) for n, p in weights.trainable.items()}
    evaluator = Evaluator(SampleModel(module))
    for sign in (1, -1):
        batch = sign * torch.rand(SAMPLES, 4), torch.randint(0, 4, (SAMPLES,))
        expected = gradients.exact(evaluator.model, weights, [tangent], batch, SAMPLES)
        assert relative(evaluator.derivatives(weights, [tangent], batch, SAMPLES), expected) < 1e-5
    assert any("another way through the layers" in note for note in evaluator.notes)


class Forked(LightningModule):
    """Sends a batch through one layer or the other."""

    def __init__(self):
        super().__init__()
        self.left, self.right = nn.Linear(4, 4), nn.Linear(4, 4)

    def training_step(self, batch, batch_idx):
        x, y = batch
        return F.cross_entropy((self.left if x.sum() > 0 else self.right)(x), y)


class Positions(LightningModule):
    def __init__(self):
        super().__init__()
        self.table, self.places = nn.Embedding(9, 4), nn.Embedding(5, 4)

    def training_step(self, batch, batch_idx):
        x, y = batch
        h = self.table(x) + self.places(torch.arange(x.shape[1]))
        return F.cross_entropy(torch.tanh(h).mean(dim=1), y)


@pytest.mark.parametrize("backend", ["auto", "layers", "jvp", "central", "one_sided", "vmap"])
def test_every_backend_gives_norms_and_derivatives_at_once(case, truth, backend):
    model, weights, tangents, batch = case
    evaluator, checkpoint = Evaluator(model, backend), stub("a")
    scale = {n: 0.5 + i for i, n in enumerate(weights.trainable)}
    asked = [GradientNormAt(checkpoint, scale), LossAt(checkpoint), OutputsAt(checkpoint)]
    asked += [DerivativeAt(checkpoint, Fixed(str(i))) for i in range(TANGENTS)]
    answers = evaluator(weights, asked, {str(i): t for i, t in enumerate(tangents)}, batch, SAMPLES)
    found = torch.stack([answers[m.key]["derivative"] for m in asked[3:]], dim=1)
    assert relative(found, truth[0]) < (2e-2 if backend in ("central", "one_sided") else 1e-5)
    norms = torch.tensor([sum(scale[n] * v for n, v in sample.items()) for sample in truth[1]])
    assert relative(answers[asked[0].key]["squared_norm"], norms.double()) < 1e-5
    with torch.no_grad():
        losses = model.losses(weights.trainable, weights.fixed, batch)
    for measurement in asked[1:3]:
        torch.testing.assert_close(answers[measurement.key]["loss"], losses, rtol=1e-5, atol=1e-6)
    assert answers[asked[2].key]["probabilities"].shape == (SAMPLES, 6)
    if backend == "one_sided":
        assert any("one-sided differences are off by" in note for note in evaluator.notes)


def test_one_sided_differences_start_from_losses_that_are_asked_anyway(case, monkeypatch):
    model, weights, tangents, batch = case
    evaluator, checkpoint = Evaluator(model, "one_sided"), stub("a")
    asked = [LossAt(checkpoint), DerivativeAt(checkpoint, Fixed("0"))]
    evaluator(weights, asked, {"0": tangents[0]}, batch, SAMPLES)  # finds its step
    runs, run = [], SampleModel._run
    monkeypatch.setattr(SampleModel, "_run", lambda *given, **named: runs.append(1) or run(*given, **named))
    evaluator(weights, asked, {"0": tangents[0]}, batch, SAMPLES)
    assert len(runs) == 2
    evaluator(weights, asked[1:], {"0": tangents[0]}, batch, SAMPLES)
    assert len(runs) == 4
