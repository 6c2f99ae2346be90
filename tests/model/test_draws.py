"""A step that draws random numbers: the loss of a sample doesn't depend on its neighbours, or the step is refused."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor, nn

from lightning_inf import InfluenceMixin, keyed
from lightning_inf.keyed import Keyed, Keys
from lightning_inf.model import gradients
from lightning_inf.model.capture import capture
from lightning_inf.model.isolate import isolated
from lightning_inf.model.layers.tangents import Tangents
from lightning_inf.model.resolve import resolve
from lightning_inf.model.sample_model import SampleModel
from lightning_inf.model.weights import Weights
from lightning_inf.sweep import backends
from tests.samples import FEATURES, Classifier, batches_of, blobs

DATA = blobs(24)
KEYS = Keys(0, "training")


class Denoiser(Classifier):
    """Predicts the noise in a sample, as a diffusion model does; the step is as anybody would write it."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(FEATURES + 1, 6), nn.Tanh(), nn.Linear(6, FEATURES))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x, _ = batch
        noise = torch.randn_like(x)
        t = torch.randint(0, 100, (len(x),)).float() / 100
        noisy = (1 - t).sqrt()[:, None] * x + t.sqrt()[:, None] * noise
        return F.mse_loss(self.net(torch.cat([noisy, t[:, None]], dim=1)), noise)

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.training_step(batch, batch_idx)


class Diffused(InfluenceMixin, Denoiser):
    """The hook, which strides the timesteps by itself."""

    def influence_step(self, batch: Any, batch_idx: int) -> Tensor:
        x, _ = batch
        return (self.net(torch.cat([x, torch.full((len(x), 1), float(batch_idx))], dim=1)) ** 2).mean(dim=1)


def batch_of(indices: list[int]) -> Keyed:
    return Keyed(batches_of(DATA)(indices), KEYS.of(indices))


def resolved(module: Any, draws: int = 1) -> SampleModel:
    torch.manual_seed(1)
    with isolated(module) as stand_in:
        return resolve(stand_in, batch_of, len(DATA), draws)


def losses(model: SampleModel, indices: list[int]) -> Tensor:
    weights = Weights.of(model.module)
    with torch.no_grad():
        return model.losses(weights.trainable, weights.fixed, batch_of(indices))


def stepping(step: Callable[[Any, Tensor, Tensor], Tensor]) -> Classifier:
    """A module with this step on features and labels."""

    class Module(Classifier):
        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            return step(self, *batch)

    return Module()


@pytest.mark.parametrize("draws", [1, 3])
def test_the_loss_is_a_plain_loop_over_samples_and_draws(draws: int) -> None:
    model = resolved(module := Denoiser(), draws)
    assert model.mode == "observed"
    assert model.random
    assert model.tied == (True, True)
    indices = [5, 0, 21, 8]
    expected = torch.zeros(len(indices))
    for position, index in enumerate(indices):
        x, key = DATA[index][0], KEYS.of([index])
        for draw in range(draws):
            noise = keyed.normal(keyed.bits(key, draw, 0, FEATURES), torch.float32)[0]
            share = (
                float(keyed.uniform(keyed.bits(key, draw, 1, 1), torch.float64)) if draws == 1 else (draw + 0.5) / draws
            )
            t = np.floor(100 * share) / 100
            given = torch.cat([(1 - t) ** 0.5 * x + t**0.5 * noise, torch.tensor([float(t)])])
            with torch.no_grad():
                expected[position] += ((module.net(given) - noise) ** 2).mean() / draws
    torch.testing.assert_close(losses(model, indices), expected)


def test_a_sample_does_not_depend_on_its_batch() -> None:
    model = resolved(Denoiser(), 2)
    whole = losses(model, list(range(24)))
    for size in (1, 5):
        parts = [losses(model, list(range(24))[start : start + size]) for start in range(0, 24, size)]
        torch.testing.assert_close(torch.cat(parts), whole)
    torch.testing.assert_close(losses(model, list(range(24))[::-1]), whole.flip(0))
    assert "randn_like" in model.notes[0]
    assert "means over 2 draws" in model.notes[0]


def gradients_by_hand(model: SampleModel, weights: Weights, batch: Any) -> list[Tensor]:
    """Each sample's gradient, averaged over the draws, by plain backward passes; ``(B, ...)`` by parameter."""
    leaves = {name: tensor.clone().requires_grad_() for name, tensor in weights.trainable.items()}
    draws = []
    for one in model.apart():
        each = one.losses(leaves, weights.fixed, batch)
        rows = [torch.autograd.grad(loss, list(leaves.values()), retain_graph=True) for loss in each]
        draws.append([torch.stack(parts) for parts in zip(*rows, strict=True)])
    return [torch.stack(parts).mean(dim=0) for parts in zip(*draws, strict=True)]


def test_derivatives_in_all_ways_are_those_of_the_mean_over_draws() -> None:
    model = resolved(Denoiser(), 3)
    weights, batch = Weights.of(model.module), batch_of([3, 11, 19])
    tangent = {name: torch.randn_like(tensor) for name, tensor in weights.trainable.items()}
    pairs = zip(gradients_by_hand(model, weights, batch), tangent.values(), strict=True)
    parts = [(g.flatten(1) @ v.flatten(), g.flatten(1).square().sum(dim=1)) for g, v in pairs]
    expected, squares = (torch.stack(column).sum(dim=0).double() for column in zip(*parts, strict=True))
    captured = capture(model, weights, batch, 3)
    dots, norms = captured.answer(Tangents([tangent]), [None])
    torch.testing.assert_close(norms[0], squares, rtol=1e-4, atol=1e-6)
    found = {
        "layers": dots[:, 0],
        "jvp": backends.forward_mode(model, weights, [tangent], batch)[:, 0].double(),
        "central": backends.central(model, weights.to(torch.float32), [tangent], batch, step=1e-3)[:, 0].detach(),
    }
    for vectorize in (True, False):
        rows = [r for _, r in gradients.per_sample_gradients(model, weights, batch, 3, vectorize)]
        found[f"vmap {vectorize}"] = torch.cat([gradients.products(r, [tangent]) for r in rows])[:, 0]
    for name, value in found.items():
        tolerance = 1e-2 if name == "central" else 1e-4
        torch.testing.assert_close(value, expected, rtol=tolerance, atol=tolerance, msg=name)


def test_the_trunk_of_one_draw_is_shared_and_changes_nothing() -> None:
    model = resolved(Denoiser())
    weights = Weights.of(model.module, names={"net.2.weight", "net.2.bias"})
    batch = batch_of(list(range(12)))
    moved = weights.moved(weights.trainable, 0.3)
    expected = model.losses(moved.trainable, weights.fixed, batch)
    with model.trunk:
        model.share(weights, batch)
        assert model.trunk.record is not None
        assert model.trunk.refused is None
        torch.testing.assert_close(model.losses(moved.trainable, weights.fixed, batch), expected)


def test_the_hook_is_told_the_draw() -> None:
    model = resolved(module := Diffused(), 4)
    assert model.mode == "influence_step"
    assert model.random
    x = DATA[2][0]
    with torch.no_grad():
        each = [(module.net(torch.cat([x, torch.tensor([float(draw)])])) ** 2).mean() for draw in range(4)]
    torch.testing.assert_close(losses(model, [2])[0], torch.stack(each).mean())


def test_a_step_without_random_numbers_has_no_draws() -> None:
    model = resolved(Classifier(), 8)
    assert not model.random
    assert model.draws == 1
    assert not model.notes


#: Steps whose numbers belong to a draw: the same for all samples, so that none depends on its neighbours.
SHARED = {
    "one timestep": lambda m, x, y: F.cross_entropy(m.net(x + torch.rand(1)), y),
    "numpy": lambda m, x, y: F.cross_entropy(m.net(x + float(np.random.rand())), y),  # noqa: NPY002
    "python": lambda m, x, y: F.cross_entropy(m.net(x + random.random()), y),
    "noisy weights": lambda m, x, y: F.cross_entropy(m.net(x) + x @ torch.randn(FEATURES, 3), y),
}


@pytest.mark.parametrize("step", SHARED, ids=str)
def test_numbers_of_the_whole_batch_are_the_same_for_all_samples(step: str) -> None:
    model = resolved(stepping(SHARED[step]), 2)
    assert model.random
    assert "the same for all samples" in model.notes[0]
    whole = losses(model, list(range(24)))
    torch.testing.assert_close(losses(model, [9, 4]), whole[[9, 4]])
    assert not torch.equal(
        *(one.losses(Weights.of(model.module).trainable, {}, batch_of([0, 1])) for one in model.apart())
    )


#: Steps whose numbers depend on a sample's place in the batch.
PLACED = {
    "mixup": lambda m, x, y: F.cross_entropy(m.net(0.7 * x + 0.3 * x[torch.randperm(len(x))]), y),
    "numpy by place": lambda m, x, y: F.cross_entropy(
        m.net(x + torch.from_numpy(np.random.rand(len(x), 1)).float()), y  # noqa: NPY002
    ),
    "repeated batch": lambda m, x, y: F.cross_entropy(
        m.net(x.repeat(2, 1) + torch.randn(2 * len(x), FEATURES)), y.repeat(2)
    ),
    "multinomial": lambda m, x, y: F.cross_entropy(m.net(x), torch.multinomial(torch.ones(len(x), 3), 1).squeeze(1)),
}  # fmt: skip


@pytest.mark.parametrize("step", PLACED, ids=str)
def test_numbers_by_place_are_refused_before_training(step: str) -> None:
    with pytest.raises(MisconfigurationException, match=r"random numbers|can't be taken apart"):
        resolved(stepping(PLACED[step]), 2)


def test_the_refusal_names_what_was_drawn() -> None:
    with pytest.raises(
        MisconfigurationException, match=r"torch.randn \(32, 4\).*must have the samples as first dimension"
    ):
        resolved(stepping(PLACED["repeated batch"]))
