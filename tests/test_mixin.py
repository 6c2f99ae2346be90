"""The optional hooks, and the entry in every checkpoint."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.optim import SGD
from torch.optim.lr_scheduler import StepLR

from lightning_inf import InfluenceCallback, InfluenceMixin, TracIn, influence
from lightning_inf.learning_rates import LearningRates
from lightning_inf.mixin import ENTRY
from tests.samples import Classifier, column, loaders, make_trainer, scores


class Signed(InfluenceMixin, Classifier):
    """A mixin that signs checkpoints, and hooks of the user's own."""

    def __init__(self) -> None:
        super().__init__()
        self.saved = 0

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        checkpoint["mine"] = True

    def configure_optimizers(self) -> Any:
        optimizer = SGD(
            [{"params": self.net[0].parameters(), "lr": 0.01}, {"params": self.net[2].parameters()}], lr=0.1
        )
        return [optimizer], [StepLR(optimizer, 1, 0.5)]


RATES = {"net.0.weight": 0.01, "net.0.bias": 0.01, "net.2.weight": 0.1, "net.2.bias": 0.1}


@pytest.mark.parametrize("weights_only", [False, True])
def test_every_checkpoint_is_signed_without_the_callback(weights_only: bool, tmp_path: Path) -> None:
    keep = ModelCheckpoint(tmp_path / "own", save_top_k=-1, filename="{epoch}", save_weights_only=weights_only)
    make_trainer(tmp_path, keep, enable_checkpointing=True).fit(Signed(), *loaders())
    for epoch in range(2):
        content = torch.load(tmp_path / "own" / f"epoch={epoch}.ckpt", weights_only=True)
        assert content["mine"]
        entry = content[ENTRY]
        assert (entry["step"], entry["epoch"]) == (4 * (epoch + 1), epoch)
        # In force at the last step: not what the scheduler has set for the next.
        assert entry["learning_rate"] == pytest.approx({n: r * 0.5**epoch for n, r in RATES.items()})


def test_signed_checkpoints_are_enough_for_tracin(tmp_path: Path) -> None:
    torch.manual_seed(3)
    ours = InfluenceCallback(methods=[TracIn()], dirpath=str(tmp_path / "a"), on_error="raise")
    keep = ModelCheckpoint(tmp_path / "own", save_top_k=-1, filename="{epoch}", save_weights_only=True)
    make_trainer(tmp_path, ours, keep, enable_checkpointing=True).fit(Signed(), *loaders(shuffle=False))
    theirs = InfluenceCallback(methods=[TracIn()], dirpath=str(tmp_path / "b"), checkpoints=str(tmp_path / "own"))
    influence(make_trainer(tmp_path, theirs), Signed(), *loaders(shuffle=False))
    first, second = (column(scores(tmp_path / name), "tracin") for name in "ab")
    assert abs(first - second).max() <= 1e-6 * abs(first).max()


def test_a_checkpoint_before_the_first_step_has_no_entry(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path)
    model = Signed()
    trainer.strategy.connect(model)
    trainer.save_checkpoint(tmp_path / "x.ckpt", weights_only=True)
    assert ENTRY not in torch.load(tmp_path / "x.ckpt", weights_only=True)


def test_it_stands_before_any_module_and_alone() -> None:
    class Alone(InfluenceMixin):
        pass

    class Silent(InfluenceMixin, LightningModule):
        pass

    Alone().on_save_checkpoint({})
    Silent().on_save_checkpoint({})
    for module in (Alone(), Silent()):
        with pytest.raises(NotImplementedError, match="optional"):
            module.influence_step(None, 0)
    assert "__init__" not in vars(InfluenceMixin)


def test_a_signed_module_can_be_copied_after_training(tmp_path: Path) -> None:
    model = Signed()
    make_trainer(tmp_path).fit(model, *loaders())
    twin = copy.deepcopy(model)
    assert twin.__dict__["_influence_rates"].by_name(twin) == {}
    assert all(torch.equal(a, b) for a, b in zip(twin.parameters(), model.parameters(), strict=True))


def test_learning_rates_remember_each_optimiser() -> None:
    net = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 1))
    first, second = SGD(net[0].parameters(), lr=0.1), SGD([net[1].weight], lr=torch.tensor(0.2))
    rates = LearningRates()
    assert rates.by_name(net) == {}
    rates.observe(first)
    rates.observe(second)
    first.param_groups[0]["lr"] = 9.0  # the next step's
    assert rates.by_name(net) == pytest.approx({"0.weight": 0.1, "0.bias": 0.1, "1.weight": 0.2})
    rates.observe(first)
    assert rates.by_name(net)["0.weight"] == 9.0


def test_a_group_that_is_added_later_is_no_error() -> None:
    """As fine-tuning callbacks do: a checkpoint may be saved before the next step."""
    net = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 1))
    optimizer = SGD(net[0].parameters(), lr=0.1)
    rates = LearningRates()
    rates.observe(optimizer)
    optimizer.add_param_group({"params": net[1].parameters(), "lr": 0.3})
    assert rates.by_name(net) == {"0.weight": 0.1, "0.bias": 0.1}
    rates.observe(optimizer)
    assert rates.by_name(net)["1.bias"] == 0.3
