"""What the benchmarks' trainings share: a Trainer that says nothing, and a classifier around any network."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor, nn


def quiet_trainer(*callbacks: Callback, **options: Any) -> Trainer:
    """Make a Trainer on one CPU device that says and logs nothing, and saves only what a ModelCheckpoint given here does.

    Args:
        callbacks: In their order.
        options: The Trainer's other arguments.
    """
    saves = any(isinstance(callback, ModelCheckpoint) for callback in callbacks)
    quiet: dict[str, Any] = {
        "accelerator": "cpu",
        "devices": 1,
        "logger": False,
        "enable_checkpointing": saves,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    return Trainer(callbacks=list(callbacks), **{**quiet, **options})


class Classifier(LightningModule):
    """A network ``self.net`` under cross-entropy; imports nothing from lightning_inf.

    Subclasses set ``net`` and have their own optimiser.
    """

    net: nn.Module

    def forward(self, x: Tensor) -> Tensor:
        """Compute logits of shape ``(B, classes)``."""
        logits: Tensor = self.net(x)
        return logits

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Cross-entropy."""
        x, y = batch
        return F.cross_entropy(self(x), y)

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Nothing is validated; the loader gives the references."""
