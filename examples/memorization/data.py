"""A small part of MNIST, in which single pictures matter."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from lightning.pytorch import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset
from torchvision.datasets import MNIST, FashionMNIST

SETS = {"MNIST": MNIST, "FashionMNIST": FashionMNIST}


def pictures(root: str, dataset: str, train: bool, samples: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Read pictures in [0, 1] of shape ``(n, 1, 28, 28)`` and labels of shape ``(n,)``, chosen by the seed.

    Raises:
        FileNotFoundError: If the files are not there.
    """
    if not (folder := Path(root, dataset, "raw")).is_dir():
        raise FileNotFoundError(
            f"expected the files of {dataset} in {folder}, found no such folder. Name the folder that holds {dataset}/raw, as"
            " torchvision stores it (--data.root)."
        )
    data = SETS[dataset](root, train=train)
    chosen = np.random.default_rng(seed).permutation(len(data.data))[:samples]
    return data.data[chosen].unsqueeze(1).float() / 255, data.targets[chosen]


class MemorizationData(LightningDataModule):
    """Few pictures to train on, and some of the test files as references.

    Args:
        root: The folder that holds ``<dataset>/raw``.
        dataset: ``MNIST`` or ``FashionMNIST``.
        samples: To train on.
        references: Held-out pictures.
        batch_size: Pictures in a training batch.
    """

    def __init__(
        self,
        root: str = "data",
        dataset: str = "MNIST",
        samples: int = 2000,
        references: int = 1000,
        batch_size: int = 50,
    ) -> None:
        super().__init__()
        self.root = root
        self.dataset = dataset
        self.samples = samples
        self.references = references
        self.batch_size = batch_size

    def setup(self, stage: str) -> None:
        """Read."""
        self.train = TensorDataset(*pictures(self.root, self.dataset, True, self.samples))
        self.validation = TensorDataset(*pictures(self.root, self.dataset, False, self.references))

    def train_dataloader(self) -> DataLoader[tuple[Tensor, ...]]:
        """Shuffled."""
        return DataLoader(self.train, self.batch_size, shuffle=True)

    def val_dataloader(self) -> DataLoader[tuple[Tensor, ...]]:
        """The references."""
        return DataLoader(self.validation, 500)
