"""Real images with planted label flips."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.datasets import MNIST, FashionMNIST, ImageFolder

#: Fashion-MNIST's classes that people mix up, and CIFAR-10's of the noisy-label literature.
PAIRS = {
    "fashion_mnist": {0: 6, 6: 0, 2: 4, 4: 2, 5: 7, 7: 9, 9: 7, 1: 3, 3: 1, 8: 6},
    "cifar10": {0: 2, 1: 9, 2: 0, 3: 5, 4: 7, 5: 3, 6: 2, 7: 4, 8: 0, 9: 1},
}
Noise = Literal["uniform", "pair"]

#: The data sets in idx files.
IDX = {"mnist": MNIST, "fashion_mnist": FashionMNIST}


def data_root(given: str | None = None) -> Path:
    """Return the folder with the data sets: the option, else ``LIGHTNING_INF_DATA``, else ``../shared/data``."""
    return Path(given or os.environ.get("LIGHTNING_INF_DATA", "../shared/data"))


def images(name: str, root: Path, train: bool, count: int | None = None) -> tuple[Tensor, np.ndarray]:
    """Load images of shape ``(n, channels, height, width)`` in [0, 1] and their labels, the first ``count`` a class."""
    if name in IDX:
        source = IDX[name](str(root), train=train)
        x, y = source.data.float().unsqueeze(1) / 255, source.targets.numpy()
    else:
        folder = ImageFolder(str(root / name / ("train" if train else "test")))
        pixels = np.stack([np.asarray(image) for image, _ in folder])
        x, y = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255, np.asarray(folder.targets)
    if count is not None:
        each = count // 10
        chosen = np.concatenate([np.flatnonzero(y == label)[:each] for label in range(10)])
        x, y = x[chosen], y[chosen]
    return x, y.astype(np.int64)


def flip(labels: np.ndarray, name: str, noise: Noise, share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Replace a share of the labels by wrong ones at random positions.

    Args:
        labels: True labels, shape ``(n,)``.
        name: The data set, for its pairs.
        noise: ``uniform`` over the other classes, or each class's ``pair``.
        share: Share of the labels that are wrong afterwards.
        seed: Seed of the choice.

    Returns:
        The labels, and which are wrong.
    """
    generator = np.random.default_rng(seed)
    chosen = generator.choice(len(labels), round(share * len(labels)), replace=False)
    flipped, wrong = labels.copy(), np.zeros(len(labels), dtype=bool)
    wrong[chosen] = True
    if noise == "uniform":
        flipped[chosen] = (labels[chosen] + generator.integers(1, 10, len(chosen))) % 10
    else:
        flipped[chosen] = [PAIRS[name][int(label)] for label in labels[chosen]]
    return flipped, wrong


class Images(Dataset[tuple[Tensor, int]]):
    """Images with labels, optionally shifted and mirrored at random.

    Args:
        x: Images.
        targets: Labels.
        augment: Shift by up to four pixels and mirror.
    """

    def __init__(self, x: Tensor, targets: np.ndarray, augment: bool = False) -> None:
        self.x, self.targets, self.augment = x, targets, augment

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        image = self.x[index]
        if self.augment:
            left, top, mirror = torch.randint(0, 9, (3,)).tolist()
            padded = torch.nn.functional.pad(image, (4, 4, 4, 4))
            image = padded[:, top : top + image.shape[1], left : left + image.shape[2]]
            image = image.flip(2) if mirror % 2 else image
        return image, int(self.targets[index])
