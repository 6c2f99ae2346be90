"""The two cases: real images, a network with BatchNorm that learns them by heart, and planted duplicates."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from lightning.pytorch import seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor, nn
from torch.utils.data import DataLoader

from benchmarks.data import Images, images
from benchmarks.training import Classifier, quiet_trainer

#: Checkpoints that a training leaves, evenly spaced over its epochs.
CHECKPOINTS = 5


@dataclass(frozen=True)
class Case:
    """A data set and the network that learns it by heart.

    Attributes:
        name: The data set.
        samples: n, training images, as many of each class.
        channels: Of the images.
        side: Height and width of the images.
        width: Channels of the first convolution.
        epochs: Of training, a multiple of :data:`CHECKPOINTS`.
        queries: Held-out references that are copies of training samples.
    """

    name: str
    samples: int
    channels: int
    side: int
    width: int
    epochs: int
    queries: int = 100


CASES = {
    "cifar10": Case("cifar10", samples=5_000, channels=3, side=32, width=32, epochs=40),
    "mnist": Case("mnist", samples=10_000, channels=1, side=28, width=16, epochs=20),
}


class BatchNormNet(Classifier):
    """Three strided convolutions with BatchNorm and two linear layers; imports nothing from lightning_inf.

    There is no BatchNorm after the flattening: in train mode a batch of one query and its copy would be normalised to
    nothing there, and the recipe of the authors' code had no gradient to follow.

    Args:
        channels: Of the images.
        side: Height and width of the images.
        width: Channels of the first convolution; twice and four times as many in the others.
        epochs: Over which the learning rate falls.
        lr: The first learning rate of SGD with momentum 0.9.
    """

    def __init__(self, channels: int, side: int, width: int, epochs: int, lr: float = 0.05) -> None:
        super().__init__()
        self.lr, self.epochs = lr, epochs
        layers: list[nn.Module] = []
        for before, after in ((channels, width), (width, 2 * width), (2 * width, 4 * width)):
            layers += [nn.Conv2d(before, after, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
        features = 4 * width * math.ceil(side / 8) ** 2
        head = [nn.Linear(features, 64), nn.ReLU(), nn.Linear(64, 10)]
        self.net = nn.Sequential(*layers, nn.Flatten(), *head)

    def configure_optimizers(self) -> Any:
        """SGD with momentum; after three quarters of the epochs a fifth of the rate."""
        optimizer = torch.optim.SGD(self.parameters(), lr=self.lr, momentum=0.9)
        return [optimizer], [torch.optim.lr_scheduler.MultiStepLR(optimizer, [self.epochs * 3 // 4], 0.2)]


@dataclass
class Planted:
    """A trained network, and which of its training samples were copied.

    Attributes:
        case: The data set and the network's size.
        seed: Of initial weights, order of batches and choice of copies.
        module: The network after training.
        x: Training images, normalised, shape ``(n, channels, side, side)``.
        y: Labels, shape ``(n,)``.
        checkpoints: Files, in the order of training.
        copied: Indices of the training samples that the queries are copies of, shape ``(queries,)``.
        training: What the training reached.
    """

    case: Case
    seed: int
    module: BatchNormNet
    x: Tensor
    y: np.ndarray
    checkpoints: list[Path]
    copied: np.ndarray
    training: dict[str, float]

    @property
    def dataset(self) -> Images:
        """The training samples."""
        return Images(self.x, self.y)

    @property
    def queries(self) -> Images:
        """The copies."""
        return Images(self.x[self.copied], self.y[self.copied])

    @property
    def others(self) -> np.ndarray:
        """Indices of the training samples that were not copied, ascending."""
        return np.setdiff1d(np.arange(len(self.y)), self.copied)


def plant(case: Case, seed: int, root: Path, folder: Path) -> Planted:
    """Train a network and choose the copies.

    Args:
        case: Data set and network.
        seed: Of all that is random.
        root: Folder with the data sets.
        folder: Where the checkpoints go; those of an earlier training of the same network are taken up.

    Returns:
        The trained network with its duplicates.
    """
    x, y = images(case.name, root, train=True, count=case.samples)
    mean, deviation = x.mean(dim=(0, 2, 3), keepdim=True), x.std(dim=(0, 2, 3), keepdim=True)
    x = (x - mean) / deviation
    seed_everything(seed, verbose=False)
    module = BatchNormNet(case.channels, case.side, case.width, case.epochs)
    every = max(case.epochs // CHECKPOINTS, 1)
    saved = ModelCheckpoint(folder, "{epoch}", save_top_k=-1, every_n_epochs=every, save_on_train_epoch_end=True)
    checkpoints = [folder / f"epoch={epoch - 1}.ckpt" for epoch in range(every, case.epochs + 1, every)]
    if all(path.is_file() for path in checkpoints):
        module.load_state_dict(torch.load(checkpoints[-1], weights_only=True)["state_dict"])
    else:
        quiet_trainer(saved, max_epochs=case.epochs).fit(module, DataLoader(Images(x, y), 64, shuffle=True))
    copied = np.random.default_rng(seed).choice(len(y), case.queries, replace=False)
    test_x, test_y = images(case.name, root, train=False)
    training = {
        **judge(module, x, y, "train"),
        **judge(module, (test_x - mean) / deviation, test_y, "test"),
        "parameters": float(sum(p.numel() for p in module.parameters())),
    }
    return Planted(case, seed, module, x, y, checkpoints, copied, training)


def judge(module: nn.Module, x: Tensor, y: np.ndarray, name: str) -> dict[str, float]:
    """Measure mean and largest loss, and accuracy, in eval mode."""
    module.eval()
    labels = torch.from_numpy(y)
    with torch.no_grad():
        logits = torch.cat([module(part) for part in x.split(256)])
    losses = F.cross_entropy(logits, labels, reduction="none")
    right = (logits.argmax(dim=1) == labels).double().mean()
    return {
        f"{name}_loss": float(losses.mean()),
        f"{name}_loss_max": float(losses.max()),
        f"{name}_accuracy": float(right),
    }
