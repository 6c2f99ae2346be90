"""The data, the network and its training recipe, which the bank and the analysed models share."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.data import images
from benchmarks.training import Classifier


@dataclass(frozen=True)
class Recipe:
    """Sizes and the one training recipe.

    Attributes:
        samples: Training samples n.
        queries: Held-out images that are reported on.
        tuning: Other held-out images, on which hyper-parameters may be chosen.
        subsets: Random halves M.
        repeats: Trainings of each half, R.
        hidden: Width of the hidden layer.
        epochs: Passes over the data.
        batch: Samples in a batch.
        rate: Learning rate of the first epoch; it falls linearly to ``rate / epochs``.
        decay: Weight decay.
    """

    samples: int = 2000
    queries: int = 100
    tuning: int = 50
    subsets: int = 100
    repeats: int = 3
    hidden: int = 128
    epochs: int = 20
    batch: int = 64
    rate: float = 0.05
    decay: float = 1e-3

    def plain(self) -> dict[str, Any]:
        """All of it, for the JSON."""
        return {**asdict(self), "share": 0.5, "momentum": 0.9, "data": "fashion_mnist"}


@dataclass(frozen=True)
class Data:
    """Images of shape ``(., 1, 28, 28)`` and labels: to train on, to report on, to tune on."""

    x: Tensor
    y: Tensor
    query_x: Tensor
    query_y: Tensor
    tuning_x: Tensor
    tuning_y: Tensor

    @classmethod
    def load(cls, root: Path, recipe: Recipe) -> Data:
        """Take equally many images of each class; every third held-out one, as far as they go, is for tuning."""
        x, y = images("fashion_mnist", root, train=True, count=recipe.samples)
        held_x, held_y = images("fashion_mnist", root, train=False, count=recipe.queries + recipe.tuning)
        each = (recipe.queries + recipe.tuning) // 10
        tune = np.arange(len(held_y)) % each >= recipe.queries // 10
        labels = torch.from_numpy(held_y)
        mask = torch.from_numpy(tune)
        return cls(x, torch.from_numpy(y), held_x[~mask], labels[~mask], held_x[mask], labels[mask])


def network(hidden: int) -> nn.Sequential:
    """One hidden layer; 101,770 parameters at a width of 128."""
    return nn.Sequential(nn.Flatten(), nn.Linear(784, hidden), nn.ReLU(), nn.Linear(hidden, 10))


def rate_of(recipe: Recipe, epoch: int) -> float:
    """The learning rate of an epoch."""
    return recipe.rate * (1 - epoch / recipe.epochs)


def optimizer(net: nn.Module, recipe: Recipe) -> torch.optim.SGD:
    """SGD with momentum."""
    return torch.optim.SGD(net.parameters(), lr=recipe.rate, momentum=0.9, weight_decay=recipe.decay)


def outputs(net: nn.Module, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Margin (log-odds of the label) and minus the loss of each image: larger is better in both."""
    with torch.no_grad():
        logits = net(x)
    others = logits.scatter(1, y[:, None], float("-inf")).logsumexp(dim=1)
    return logits.gather(1, y[:, None]).squeeze(1) - others, -F.cross_entropy(logits, y, reduction="none")


class Mlp(Classifier):
    """The network as a LightningModule; imports nothing from lightning_inf.

    Args:
        recipe: How it is trained.
    """

    def __init__(self, recipe: Recipe) -> None:
        super().__init__()
        self.recipe = recipe
        self.net = network(recipe.hidden)

    def configure_optimizers(self) -> Any:
        """SGD with the rate of each epoch."""
        sgd = optimizer(self.net, self.recipe)
        factor = torch.optim.lr_scheduler.LambdaLR(sgd, lambda epoch: max(1 - epoch / self.recipe.epochs, 0.0))
        return {"optimizer": sgd, "lr_scheduler": factor}
