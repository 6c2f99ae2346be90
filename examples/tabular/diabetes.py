"""Scikit-learn's diabetes data with planted mistakes in the target, and a small MLP: a regression, nothing downloaded.

This file imports nothing from lightning_inf: the callback works with any LightningModule.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from lightning.pytorch import LightningDataModule, LightningModule
from sklearn.datasets import load_diabetes
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchmetrics.functional.regression import r2_score


class Patients(Dataset[tuple[Tensor, Tensor]]):
    """Ten measurements a patient, and how far the disease had progressed a year later.

    Args:
        features: Shape ``(n, 10)``.
        targets: Shape ``(n,)``.
        known_issues: One boolean a patient: whether the target is wrong.

    Attributes:
        feature_names: What the report calls the measurements.
    """

    feature_names = tuple(load_diabetes().feature_names)

    def __init__(self, features: np.ndarray, targets: np.ndarray, known_issues: np.ndarray) -> None:
        self.features = torch.from_numpy(features).float()
        self.targets = torch.from_numpy(targets).float()
        self.known_issues = known_issues

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self.features[index], self.targets[index]


class DiabetesData(LightningDataModule):
    """442 real patients: 310 to train on, with wrong targets, 66 each to validate and test.

    Args:
        wrong: Share of the training targets that are made wrong.
        mistake: ``shift``: by 1.5 to 3 standard deviations up or down; ``swap``: it is another patient's.
        batch_size: Patients in a training batch.
        seed: Of split and mistakes.
    """

    def __init__(
        self, wrong: float = 0.08, mistake: Literal["shift", "swap"] = "shift", batch_size: int = 32, seed: int = 0
    ) -> None:
        super().__init__()
        self.wrong = wrong
        self.mistake = mistake
        self.batch_size = batch_size
        self.seed = seed

    def setup(self, stage: str) -> None:
        """Split, and plant mistakes."""
        features, targets = load_diabetes(return_X_y=True, scaled=False)
        generator = np.random.default_rng(self.seed)
        train, validation, test = np.split(generator.permutation(len(targets)), [310, 376])
        scaled = (features - features[train].mean(axis=0)) / features[train].std(axis=0)
        given = targets[train].copy()
        chosen = generator.choice(len(train), round(self.wrong * len(train)), replace=False)
        if self.mistake == "swap":
            given[chosen] = targets[train][generator.choice(len(train), len(chosen))]
        else:
            size = (generator.uniform(1.5, 3, len(chosen)) * targets.std()).round()
            down = generator.random(len(chosen)) < 0.5
            given[chosen] += np.where(down & (given[chosen] > size), -size, size)  # no target is negative
        self.truth = targets[train]
        self.train = Patients(scaled[train], given, given != self.truth)
        self.validation, self.test = (
            Patients(scaled[part], targets[part], np.zeros(len(part), dtype=bool)) for part in (validation, test)
        )

    def train_dataloader(self) -> DataLoader[tuple[Tensor, Tensor]]:
        """Shuffled."""
        return DataLoader(self.train, batch_size=self.batch_size, shuffle=True)

    def val_dataloader(self) -> DataLoader[tuple[Tensor, Tensor]]:
        """The references of the report; their targets are right."""
        return DataLoader(self.validation, batch_size=128)

    def test_dataloader(self) -> DataLoader[tuple[Tensor, Tensor]]:
        """Neither training nor report has seen them."""
        return DataLoader(self.test, batch_size=128)


class Regressor(LightningModule):
    """An MLP whose output has the units of the target.

    Args:
        width: Of the hidden layers.
        lr: Learning rate of AdamW.
        centre: What it predicts at first, about the mean of the targets.
        scale: About the targets' standard deviation.
    """

    def __init__(self, width: int = 64, lr: float = 3e-3, centre: float = 150.0, scale: float = 80.0) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.net = nn.Sequential(
            nn.Linear(10, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 1)
        )

    def forward(self, features: Tensor) -> Tensor:
        """Predict targets, shape ``(B,)``, from features of shape ``(B, 10)``."""
        predicted: Tensor = self.hparams["centre"] + self.hparams["scale"] * self.net(features).squeeze(1)
        return predicted

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Squared error, logged."""
        features, targets = batch
        loss = F.mse_loss(self(features), targets)
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Explained share of the variance of the references."""
        features, targets = batch
        self.log("val_r2", r2_score(self(features), targets), prog_bar=True)

    def test_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """The same of patients that were held out."""
        features, targets = batch
        self.log("test_r2", r2_score(self(features), targets))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """AdamW."""
        return torch.optim.AdamW(self.parameters(), lr=self.hparams["lr"])
