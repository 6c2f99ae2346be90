"""Scikit-learn's 8x8 digits with planted label flips: the main job on real data, nothing downloaded.

This file imports nothing from lightning_inf: the callback works with any LightningModule.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from lightning.pytorch import LightningDataModule, LightningModule
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchmetrics.classification import MulticlassAccuracy


class FlippedDigits(Dataset[tuple[Tensor, int]]):
    """Digits of which a known part carries a wrong label.

    Args:
        images: Shape ``(n, 1, 8, 8)``.
        labels: True labels, shape ``(n,)``.
        flips: Share of the labels that are replaced by another one, drawn uniformly.
        seed: Seed of the choice.

    Attributes:
        targets: The labels that training sees.
        truth: The labels that are right.
        known_issues: One boolean a sample: whether its label was flipped.
        classes: Names of the classes.
    """

    classes = tuple(str(digit) for digit in range(10))

    def __init__(self, images: Tensor, labels: np.ndarray, flips: float, seed: int) -> None:
        generator = np.random.default_rng(seed)
        chosen = generator.choice(len(labels), round(flips * len(labels)), replace=False)
        self.images = images
        self.truth = labels
        self.known_issues = np.zeros(len(labels), dtype=bool)
        self.known_issues[chosen] = True
        self.targets = labels.copy()
        self.targets[chosen] = (labels[chosen] + generator.integers(1, 10, len(chosen))) % 10

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.images[index], int(self.targets[index])


class DigitsData(LightningDataModule):
    """1,797 real digits: 80 % to train on, with flips, the rest to validate on, clean.

    Args:
        flips: Share of training labels that are flipped.
        batch_size: Samples in a training batch.
        seed: Seed of split and flips.
    """

    def __init__(self, flips: float = 0.1, batch_size: int = 64, seed: int = 0) -> None:
        super().__init__()
        self.flips = flips
        self.batch_size = batch_size
        self.seed = seed

    def setup(self, stage: str) -> None:
        """Split and flip."""
        digits = load_digits()
        images = torch.from_numpy(digits.images).float().unsqueeze(1) / 16.0
        labels = digits.target.astype(np.int64)
        order = np.random.default_rng(self.seed).permutation(len(labels))
        cut = round(0.8 * len(labels))
        self.train = FlippedDigits(images[order[:cut]], labels[order[:cut]], self.flips, self.seed)
        self.validation = FlippedDigits(images[order[cut:]], labels[order[cut:]], 0.0, self.seed)

    def train_dataloader(self) -> DataLoader[tuple[Tensor, int]]:
        """Shuffled."""
        return DataLoader(self.train, batch_size=self.batch_size, shuffle=True)

    def val_dataloader(self) -> DataLoader[tuple[Tensor, int]]:
        """Clean digits: the references."""
        return DataLoader(self.validation, batch_size=self.batch_size)


class DigitsNet(LightningModule):
    """Two convolutions and two linear layers.

    Args:
        width: Channels of the first convolution.
        lr: Learning rate.
    """

    def __init__(self, width: int = 16, lr: float = 0.05) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.net = nn.Sequential(
            nn.Conv2d(1, width, 3, padding=1),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(2),
            nn.Conv2d(width, 2 * width, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(8 * width, 64),
            nn.ReLU(inplace=True),
            nn.Dropout(0.2),
            nn.Linear(64, 10),
        )
        self.accuracy = MulticlassAccuracy(10)

    def forward(self, images: Tensor) -> Tensor:
        """Compute logits of shape ``(B, 10)`` from images of shape ``(B, 1, 8, 8)``."""
        logits: Tensor = self.net(images)
        return logits

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Cross-entropy, logged."""
        images, labels = batch
        loss = F.cross_entropy(self(images), labels)
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Accuracy on clean digits."""
        images, labels = batch
        self.accuracy(self(images), labels)
        self.log("val_accuracy", self.accuracy, prog_bar=True)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """SGD with momentum."""
        return torch.optim.SGD(self.parameters(), lr=self.hparams["lr"], momentum=0.9)
