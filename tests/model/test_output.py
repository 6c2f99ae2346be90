"""The margin: its value, its derivatives under every transform, and where there is none."""

import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch import LightningModule
from torch import nn
from torch.func import grad, jvp, vmap

from lightning_inf.model.output import log_odds
from lightning_inf.model.sample_model import SampleModel
from lightning_inf.model.weights import Weights


@pytest.mark.parametrize("classes", [2, 3, 10])
def test_the_log_odds_of_the_given_label(classes):
    torch.manual_seed(0)
    logits, target = 3 * torch.randn(20, classes).double(), torch.randint(0, classes, (20,))
    given = logits.softmax(dim=1)[torch.arange(20), target]
    torch.testing.assert_close(log_odds(logits, target), torch.log(given / (1 - given)))


def test_it_does_not_level_off_where_the_probability_is_one():
    logits = torch.tensor([[200.0, 0.0, 0.0]])
    assert log_odds(logits, torch.tensor([0])).item() == pytest.approx(200 - torch.log(torch.tensor(2.0)).item())
    slope = grad(lambda z: log_odds(z, torch.tensor([0])).sum())(logits)
    torch.testing.assert_close(slope, torch.tensor([[1.0, -0.5, -0.5]]))


def test_a_target_that_is_no_class_gives_zero_and_no_gradient():
    logits = torch.randn(3, 4)
    target = torch.tensor([-100, 4, 2])
    value, slope = jvp(lambda z: log_odds(z, target), (logits,), (torch.ones_like(logits) * torch.arange(4.0),))
    assert value[:2].tolist() == slope[:2].tolist() == [0.0, 0.0]
    assert value[2] != 0
    assert slope[2] != 0
    gradients = vmap(grad(lambda z, y: log_odds(z[None], y[None])[0]))(logits, target)
    assert gradients[:2].abs().sum() == 0
    assert bool(gradients.isfinite().all())


class Binary(LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 1)

    def training_step(self, batch, batch_idx):
        return F.binary_cross_entropy_with_logits(self.layer(batch[0]).squeeze(1), batch[1])


def test_binary_targets_are_two_classes_under_vmap_too():
    torch.manual_seed(0)
    module = Binary()
    x, y = torch.randn(6, 3), torch.tensor([0.0, 1.0, 1.0, 0.0, 1.0, 0.3])
    weights, model = Weights.of(module), SampleModel(module).giving("margin")
    z = module.layer(x).squeeze(1).detach()
    expected = -z * (2 * y - 1)
    expected[5] = 0.0  # a soft target is no class
    each = vmap(lambda a, b: model.losses(weights.trainable, weights.fixed, (a[None], b[None]))[0])(x, y)
    torch.testing.assert_close(each, expected)
    torch.testing.assert_close(model.losses(weights.trainable, weights.fixed, (x, y)), expected)


class Hook(Binary):
    def influence_step(self, batch, batch_idx):
        logits = torch.cat([-self.layer(batch[0]), self.layer(batch[0])], dim=1)
        return {"loss": F.cross_entropy(logits, batch[1], reduction="none"), "logits": logits, "target": batch[1]}


def test_the_hook_gives_logits_and_the_loss_stays_what_it_was():
    module = Hook()
    batch = torch.randn(5, 3), torch.tensor([0, 1, 0, 1, -100])
    weights, model = Weights.of(module), SampleModel(module, "influence_step")
    margins = model.giving("margin")
    assert margins.giving("margin") is margins
    assert (model.output, margins.output) == ("loss", "margin")
    z = module.layer(batch[0]).squeeze(1).detach()
    expected = torch.stack([2 * z[0], -2 * z[1], 2 * z[2], -2 * z[3], 0 * z[4]])
    torch.testing.assert_close(margins.losses(weights.trainable, weights.fixed, batch), expected)
    assert bool((model.losses(weights.trainable, weights.fixed, batch) >= 0).all())


class Regression(Binary):
    def training_step(self, batch, batch_idx):
        return F.mse_loss(self.layer(batch[0]), batch[1][:, None])


def test_no_margin_without_classes():
    module = Regression()
    weights = Weights.of(module)
    with pytest.raises(ValueError, match="single-label classifier"):
        SampleModel(module).giving("margin").losses(weights.trainable, {}, (torch.randn(2, 3), torch.randn(2)))
