"""The small networks of the benchmarks."""

from __future__ import annotations

import torch
from torch import nn

from benchmarks.training import Classifier


class TwoConv(Classifier):
    """Two convolutions and two linear layers; imports nothing from lightning_inf.

    Args:
        channels: Of the images.
        side: Height and width of the images.
        width: Channels of the first convolution.
        lr: Learning rate of Adam.
    """

    def __init__(self, channels: int = 1, side: int = 28, width: int = 16, lr: float = 1e-3) -> None:
        super().__init__()
        self.lr = lr
        self.net = nn.Sequential(
            nn.Conv2d(channels, width, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(width, 2 * width, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(2 * width * (side // 4) ** 2, 128),
            nn.ReLU(),
            nn.Linear(128, 10),
        )

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Adam."""
        return torch.optim.Adam(self.parameters(), lr=self.lr)
