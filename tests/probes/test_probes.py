"""The reference side, against plain autograd."""

import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch import LightningModule
from torch import nn
from torch.utils.data import TensorDataset, default_collate

from lightning_inf.data.references import References, Target
from lightning_inf.data.sources import Samples
from lightning_inf.model.sample_model import SampleModel
from lightning_inf.model.weights import Weights, norm
from lightning_inf.probes.ascent import Ascent
from lightning_inf.probes.gradient import Gradient
from lightning_inf.probes.scene import Scene, Unavailable
from tests.checkpoint_stub import stub


class Net(LightningModule):
    def __init__(self):
        super().__init__()
        self.used, self.unused = nn.Linear(4, 3), nn.Linear(2, 2)

    def training_step(self, batch, batch_idx):
        return F.cross_entropy(self.used(batch[0]), batch[1])


@pytest.fixture
def scene():
    torch.manual_seed(0)
    module = Net()
    data = TensorDataset(torch.randn(7, 4), torch.randint(0, 3, (7,)))
    samples = Samples(data, default_collate, "test", batch_size=3)
    weights = Weights.of(module)
    return Scene(SampleModel(module), References(samples, lambda b: b, list(range(7)), 3), lambda _: weights)


def plain(scene, indices):
    module = scene.model.module
    x, y = (t[list(indices)] for t in scene.references.samples.dataset.tensors)
    return dict(
        zip(
            ("used.weight", "used.bias"),
            torch.autograd.grad(F.cross_entropy(module.used(x), y), list(module.used.parameters())),
            strict=True,
        )
    )


def test_gradient_is_that_of_the_mean_over_uneven_batches(scene):
    found = Gradient(stub("a"), Target(tuple(range(7)), "t")).make(scene)
    for name, expected in plain(scene, range(7)).items():
        torch.testing.assert_close(found[name], expected)
    assert found["unused.weight"].abs().sum() == 0


def test_learning_rates_scale_each_parameter(scene):
    rates = {"used.weight": 0.5}
    found = Gradient(stub("a"), Target((2,), "t"), rates).make(scene)
    torch.testing.assert_close(found["used.weight"], 0.5 * plain(scene, [2])["used.weight"])
    assert found["used.bias"].abs().sum() == 0  # in no optimiser: it was not trained


def test_a_normalised_step_has_the_length_it_says_and_raises_the_loss(scene):
    target = Target((0, 1, 2), "t")
    weights = scene.weights(None)
    move = Ascent(stub("a"), target, steps=1, step="normalized", size=0.1).make(scene)
    assert norm(move) == pytest.approx(0.1 * weights.norm, rel=1e-5)
    before, after = (scene.gradient(w, target)[1] for w in (weights, weights.moved(move)))
    assert after > before
    gradient = Gradient(stub("a"), target).make(scene)
    cosine = sum((gradient[n] * move[n]).sum() for n in move) / (norm(gradient) * norm(move))
    assert float(cosine) == pytest.approx(1.0, abs=1e-5)


def test_each_step_follows_the_gradient_where_it_stands(scene):
    target = Target((3, 4), "t")
    one = Ascent(stub("a"), target, 1, "plain", 0.5).make(scene)
    two = Ascent(stub("a"), target, 2, "plain", 0.5).make(scene)
    there = scene.weights(None).moved(one)
    gradient, _ = scene.gradient(there, target)
    for name in one:
        torch.testing.assert_close(two[name], one[name] + 0.5 * gradient[name], rtol=1e-4, atol=1e-6)


def test_keys_tell_what_the_vector_depends_on():
    target = Target((0,), "t")
    base = Ascent(stub("a"), target, 2, "plain", 0.5)
    others = [
        Ascent(stub("b"), target, 2, "plain", 0.5),
        Ascent(stub("a"), Target((0,), "u"), 2, "plain", 0.5),
        Ascent(stub("a"), target, 3, "plain", 0.5),
        Ascent(stub("a"), target, 2, "normalized", 0.5),
        Ascent(stub("a"), target, 2, "plain", 0.6),
        Gradient(stub("a"), target),
        Gradient(stub("a"), target, {"w": 1.0}),
    ]
    assert len({base.key, *(other.key for other in others)}) == 8
    assert base.key == Ascent(stub("a"), target, 2, "plain", 0.5).key


def test_a_gradient_that_is_not_finite_is_unavailable(scene):
    scene.references.samples.dataset.tensors[0][5] = float("nan")
    with pytest.raises(Unavailable, match="not finite"):
        Gradient(stub("a"), Target((5,), "t")).make(scene)
