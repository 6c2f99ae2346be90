"""Pictures of 16 x 16 pixels: clothes to learn from, and handwritten digits, of which the model sees a few, one picture each."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from lightning.pytorch import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.datasets import MNIST, FashionMNIST

SIDE = 16


class Pictures(Dataset[Tensor]):
    """Pictures in [-1, 1].

    Args:
        pictures: Shape ``(n, 1, 16, 16)``, floating point.
        names: What each shows.
        repeats: How often an epoch shows each.
    """

    def __init__(self, pictures: Tensor, names: list[str], repeats: int = 1) -> None:
        self.pictures = pictures
        self.names = names
        self.repeats = repeats

    def __len__(self) -> int:
        return len(self.pictures) * self.repeats

    def __getitem__(self, index: int) -> Tensor:
        return self.pictures[index % len(self.pictures)]


def small(pictures: Tensor) -> Tensor:
    """Bring pictures of shape ``(n, 28, 28)``, uint8, to ``(n, 1, 16, 16)`` in [-1, 1]: averages of what lies in a pixel."""
    return F.interpolate(pictures.unsqueeze(1).float() / 127.5 - 1, size=(SIDE, SIDE), mode="area")


class DiffusionData(LightningDataModule):
    """Clothes, or digits that the pretrained model has never seen, with the candidates that they are to be found among.

    Args:
        root: The folder that holds ``FashionMNIST/raw`` and ``MNIST/raw``.
        exemplar: Index in MNIST of the digit to fine-tune on, or of several; None: train on clothes.
        candidates: How many pictures the exemplars are hidden among, themselves included: half of them clothes that the
            model was pretrained on, the others digits.
        pretraining: How many clothes to pretrain on, the first.
        steps: Batches in an epoch of fine-tuning.
        batch_size: Pictures in a training batch; of fine-tuning, copies of the exemplars, each under its own noise.
        seed: Seed of the choice of candidates.
    """

    def __init__(
        self,
        root: str = "data",
        exemplar: int | list[int] | None = None,
        candidates: int = 1000,
        pretraining: int = 10_000,
        steps: int = 30,
        batch_size: int = 32,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.root = root
        self.exemplar = exemplar
        self.candidates = candidates
        self.pretraining = pretraining
        self.steps = steps
        self.batch_size = batch_size
        self.seed = seed

    def prepare_data(self) -> None:
        """Refuse a folder without the files."""
        for name in ("FashionMNIST", "MNIST"):
            if not (folder := Path(self.root, name, "raw")).is_dir():
                raise FileNotFoundError(
                    f"expected the files of {name} in {folder}, found no such folder. Name the folder that holds"
                    " FashionMNIST/raw and MNIST/raw, as torchvision stores them (--data.root)."
                )

    def setup(self, stage: str) -> None:
        """Read, and hide the exemplars among the candidates."""
        clothes, digits = FashionMNIST(self.root, train=True), MNIST(self.root, train=True)
        seen = small(clothes.data[: self.pretraining])
        names = [str(clothes.classes[int(label)]) for label in clothes.targets[: self.pretraining]]
        if self.exemplar is None:
            self.train = self.pool = Pictures(seen, names)
            return
        exemplars = [self.exemplar] if isinstance(self.exemplar, int) else self.exemplar
        shown, known = small(digits.data[exemplars]), ["exemplar"] * len(exemplars)
        self.train = Pictures(shown, known, self.steps * self.batch_size // len(exemplars))
        others, worn = chosen(exemplars, len(digits.data), len(seen), self.candidates, self.seed)
        self.pool = Pictures(
            torch.cat([shown, small(digits.data[others]), seen[worn]]),
            [*known, *(str(int(digits.targets[i])) for i in others), *(names[i] for i in worn)],
        )

    def train_dataloader(self) -> DataLoader[Tensor]:
        """Clothes, or copies of the exemplars."""
        return DataLoader(self.train, self.batch_size, shuffle=True)

    def influence_dataloader(self) -> DataLoader[Tensor]:
        """The candidates, the exemplars first."""
        return DataLoader(self.pool, 128)


def chosen(
    exemplars: Sequence[int], digits: int, clothes: int, candidates: int, seed: int
) -> tuple[list[int], list[int]]:
    """Choose candidates beside the exemplars.

    The choice of few is the beginning of a choice of many.

    Args:
        exemplars: Not to be chosen again.
        digits: How many there are.
        clothes: How many there are.
        candidates: How many, with the exemplars.
        seed: Of the order.

    Returns:
        Indices of digits and of clothes.
    """
    generator = np.random.default_rng((seed, *exemplars))
    order = generator.permutation(digits)
    others = order[~np.isin(order, exemplars)][: candidates // 2 - len(exemplars)]
    worn = candidates - len(exemplars) - len(others)
    return others.tolist(), generator.permutation(clothes)[:worn].tolist()
