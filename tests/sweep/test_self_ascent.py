"""Each sample its own reference, against a loop of plain backward passes."""

import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch import LightningModule
from torch import nn

from lightning_inf.model import gradients
from lightning_inf.model.sample_model import SampleModel
from lightning_inf.model.weights import Weights
from lightning_inf.sweep.evaluate import Evaluator
from lightning_inf.sweep.measurements import SelfAscentAt
from tests.checkpoint_stub import stub

SAMPLES, STEPS, RADIUS = 9, 3, 0.02


class Net(LightningModule):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 3))

    def training_step(self, batch, batch_idx):
        return F.cross_entropy(self.net(batch["x"]), batch["y"])


class Looks(Net):
    """``.item()`` in the step: not for vmap."""

    def training_step(self, batch, batch_idx):
        loss = super().training_step(batch, batch_idx)
        loss.item()
        return loss


class Whole(Looks):
    """Takes no batch but the one that it was given."""

    def training_step(self, batch, batch_idx):
        if len(batch["x"]) != SAMPLES:
            raise ValueError("another batch")
        return super().training_step(batch, batch_idx)


def make(kind=Net):
    torch.manual_seed(0)
    module = kind()
    batch = {"x": torch.randn(SAMPLES, 5), "y": torch.randint(0, 3, (SAMPLES,)), "name": ["s"] * SAMPLES}
    return SampleModel(module), Weights.of(module), batch


def by_hand(weights, batch, output):
    """Three normalised steps on each sample's own value, in double precision."""
    names = list(weights.trainable)
    start = [weights.trainable[n].double() for n in names]
    reach = RADIUS * torch.cat([p.flatten() for p in start]).norm()

    def value(params, i):
        w0, b0, w1, b1 = params
        logits = torch.tanh(batch["x"][i].double() @ w0.T + b0) @ w1.T + b1
        p = logits.softmax(dim=0)[batch["y"][i]]
        return -torch.log(p) if output == "loss" else -torch.log(p / (1 - p))

    rises = []
    for i in range(SAMPLES):
        params = start
        for _ in range(STEPS):
            leaves = [p.clone().requires_grad_() for p in params]
            grads = torch.autograd.grad(value(leaves, i), leaves)
            length = torch.cat([g.flatten() for g in grads]).norm()
            params = [p + reach * g / length for p, g in zip(params, grads, strict=True)]
        rises.append(value(params, i) - value(start, i))
    return torch.stack(rises)


@pytest.mark.parametrize("output", ["loss", "margin"])
@pytest.mark.parametrize("kind", [Net, Looks, Whole])
def test_equals_a_loop(kind, output, monkeypatch):
    model, weights, batch = make(kind)
    evaluator = Evaluator(model)
    monkeypatch.setattr(gradients, "GRADIENT_BYTES", 3 * 3 * 4 * sum(p.numel() for p in weights.trainable.values()))
    asked = SelfAscentAt(stub("a"), STEPS, RADIUS, output)
    found = evaluator(weights, [asked], {}, batch, SAMPLES, range(SAMPLES))[asked.key]["rise"]
    torch.testing.assert_close(found, by_hand(weights, batch, output), rtol=1e-4, atol=1e-5)
    assert bool((found > 0).all())
    assert evaluator.used["rise"] == ("vmap over samples" if kind is Net else "one sample after the other")


@pytest.mark.parametrize("kind", [Net, Looks])
def test_only_the_samples_that_are_asked(kind):
    model, weights, batch = make(kind)
    asked = SelfAscentAt(stub("a"), STEPS, RADIUS, samples=(3, 102, 107))
    found = Evaluator(model)(weights, [asked], {}, batch, SAMPLES, range(100, 109))[asked.key]["rise"]
    assert found.isfinite().nonzero().flatten().tolist() == [2, 7]
    expected = by_hand(weights, batch, "loss")
    torch.testing.assert_close(found[[2, 7]], expected[[2, 7]], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", [Net, Looks])
def test_a_sample_without_a_gradient_is_not_a_number_and_disturbs_nobody(kind):
    model, weights, batch = make(kind)
    batch["y"][4] = -100
    asked = SelfAscentAt(stub("a"), STEPS, RADIUS)
    found = Evaluator(model)(weights, [asked], {}, batch, SAMPLES, range(SAMPLES))[asked.key]["rise"]
    assert found.isnan().nonzero().flatten().tolist() == [4]


def test_keys_tell_what_is_asked():
    base = SelfAscentAt(stub("a"), 3, 0.1)
    others = [
        SelfAscentAt(stub("b"), 3, 0.1),
        SelfAscentAt(stub("a"), 2, 0.1),
        SelfAscentAt(stub("a"), 3, 0.2),
        SelfAscentAt(stub("a"), 3, 0.1, "margin"),
        SelfAscentAt(stub("a"), 3, 0.1, "loss", (1, 2)),
    ]
    assert len({base.key, *(other.key for other in others)}) == 6
