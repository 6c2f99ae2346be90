"""Fashion-MNIST: 60,000 real pictures of clothes, with their own wrong labels, and more planted where that is asked for.

This file imports nothing from lightning_inf: the callback works with any LightningModule.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from lightning.pytorch import LightningDataModule, LightningModule
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchmetrics.classification import MulticlassAccuracy
from torchvision.datasets import FashionMNIST


class Clothes(Dataset[tuple[Tensor, int]]):
    """Pictures in [0, 1], of which a known part may carry a wrong label.

    Args:
        pictures: Shape ``(n, 28, 28)``, uint8.
        labels: As published, shape ``(n,)``.
        classes: Names of the classes.
        flips: Share of the labels that are replaced by another one, drawn uniformly.
        seed: Seed of the choice.

    Attributes:
        targets: The labels that training sees, shape ``(n,)``.
        known_issues: One boolean a sample: whether its label was flipped. The published ones have mistakes of their own.
    """

    def __init__(self, pictures: Tensor, labels: Tensor, classes: list[str], flips: float = 0.0, seed: int = 0) -> None:
        generator = np.random.default_rng(seed)
        chosen = generator.choice(len(labels), round(flips * len(labels)), replace=False)
        self.pictures = pictures
        self.classes = classes
        self.known_issues = np.zeros(len(labels), dtype=bool)
        self.known_issues[chosen] = True
        self.targets = labels.numpy().astype(np.int64)
        self.targets[chosen] = (self.targets[chosen] + generator.integers(1, len(classes), len(chosen))) % len(classes)

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.pictures[index].unsqueeze(0).float() / 255, int(self.targets[index])


class FashionData(LightningDataModule):
    """Fashion-MNIST as torchvision stores it: the train files to train on, half of the test files each to validate and test.

    Args:
        root: The folder that holds ``FashionMNIST/raw``.
        flips: Share of training labels that are flipped, beside those that are wrong as published.
        samples: Use only so many pictures of each part, the first.
        batch_size: Pictures in a training batch.
        download: Fetch the files where they are missing.
        seed: Seed of the flips.
    """

    def __init__(
        self,
        root: str = "data",
        flips: float = 0.0,
        samples: int | None = None,
        batch_size: int = 128,
        download: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.root = root
        self.flips = flips
        self.samples = samples
        self.batch_size = batch_size
        self.download = download
        self.seed = seed

    def prepare_data(self) -> None:
        """Download where that is allowed; refuse a folder without the files."""
        if self.download:
            FashionMNIST(self.root, download=True)
        elif not (folder := Path(self.root, "FashionMNIST", "raw")).is_dir():
            raise FileNotFoundError(
                f"expected the files of Fashion-MNIST in {folder}, found no such folder. Name the folder that holds"
                " FashionMNIST/raw (--data.root), or let torchvision fetch them (--data.download=true)."
            )

    def setup(self, stage: str) -> None:
        """Read and flip."""
        train, test = FashionMNIST(self.root, train=True), FashionMNIST(self.root, train=False)
        names = [str(name) for name in train.classes]
        part = slice(self.samples)
        self.train = Clothes(train.data[part], train.targets[part], names, self.flips, self.seed)
        half = len(test) // 2
        self.validation = Clothes(test.data[:half][part], test.targets[:half][part], names)
        self.test = Clothes(test.data[half:][part], test.targets[half:][part], names)

    def train_dataloader(self) -> DataLoader[tuple[Tensor, int]]:
        """Shuffled."""
        return DataLoader(self.train, batch_size=self.batch_size, shuffle=True)

    def val_dataloader(self) -> DataLoader[tuple[Tensor, int]]:
        """As published: the references."""
        return DataLoader(self.validation, batch_size=512)

    def test_dataloader(self) -> DataLoader[tuple[Tensor, int]]:
        """Neither training nor report has seen them."""
        return DataLoader(self.test, batch_size=512)


class FashionNet(LightningModule):
    """Two convolutions and two linear layers.

    Args:
        width: Channels of the first convolution.
        lr: Largest learning rate; it falls along a cosine.
    """

    def __init__(self, width: int = 16, lr: float = 0.05) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.net = nn.Sequential(
            nn.Conv2d(1, width, 5, stride=2, padding=2),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
            nn.Conv2d(width, 2 * width, 3, padding=1),
            nn.BatchNorm2d(2 * width),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(2 * width * 49, 64),
            nn.ReLU(inplace=True),
            nn.Linear(64, 10),
        )
        self.accuracy = MulticlassAccuracy(10)

    def forward(self, images: Tensor) -> Tensor:
        """Compute logits of shape ``(B, 10)`` from images of shape ``(B, 1, 28, 28)``."""
        logits: Tensor = self.net(images)
        return logits

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Cross-entropy, logged."""
        images, labels = batch
        loss = F.cross_entropy(self(images), labels)
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Accuracy on the references."""
        images, labels = batch
        self.accuracy(self(images), labels)
        self.log("val_accuracy", self.accuracy, prog_bar=True)

    def test_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Accuracy on pictures that were held out."""
        images, labels = batch
        self.accuracy(self(images), labels)
        self.log("test_accuracy", self.accuracy)

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """SGD with momentum, annealed."""
        optimizer = torch.optim.SGD(self.parameters(), lr=self.hparams["lr"], momentum=0.9, weight_decay=5e-4)
        epochs = self.trainer.max_epochs or 1
        return {"optimizer": optimizer, "lr_scheduler": torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)}
