"""A network with one hidden layer, large enough to know its few training pictures by heart."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor, nn
from torchmetrics.classification import MulticlassAccuracy

#: Pixels after pooling, and classes.
INPUTS, CLASSES = 196, 10


class Memorizer(LightningModule):
    """Pools to 14 x 14 pixels; one hidden layer.

    Args:
        hidden: Its width.
        lr: Learning rate of the first epoch; it falls linearly to nothing.
    """

    def __init__(self, hidden: int = 64, lr: float = 0.1) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.features = nn.Sequential(nn.AvgPool2d(2), nn.Flatten(), nn.Linear(INPUTS, hidden), nn.ReLU())
        self.head = nn.Linear(hidden, CLASSES)
        self.accuracy = MulticlassAccuracy(CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        """Compute logits of shape ``(B, 10)`` from images of shape ``(B, 1, 28, 28)``."""
        logits: Tensor = self.head(self.features(images))
        return logits

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Cross-entropy."""
        images, labels = batch
        return F.cross_entropy(self(images), labels)

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Accuracy on the references."""
        images, labels = batch
        self.accuracy(self(images), labels)
        self.log("val_accuracy", self.accuracy, prog_bar=True)

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """SGD with momentum."""
        optimizer = torch.optim.SGD(self.parameters(), lr=self.hparams["lr"], momentum=0.9)
        epochs = self.trainer.max_epochs or 1
        scheduler = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 1e-3, epochs)
        return {"optimizer": optimizer, "lr_scheduler": scheduler}
