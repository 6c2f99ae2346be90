"""A folder of pictures of which a known part of the training labels is wrong."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from torchvision import transforms
from torchvision.datasets import ImageFolder

from examples.folder import FolderData, Pictures
from lightning_inf import apply_decisions


class FlippedData(FolderData):
    """Pictures in a folder; some training labels are replaced, and corrected again where decisions are given.

    Args:
        root: The folder that holds ``train``, and ``val`` or ``test``.
        flips: Share of the training labels that are replaced by another one, drawn uniformly.
        decisions: A ``decisions.csv`` that the report exported, by which the training labels are corrected.
        size: Pictures are scaled to so many pixels a side.
        batch_size: Pictures in a training batch.
        every: Use only every third picture, or fourth, ..., to try things out.
        seed: Of the flips.
    """

    def __init__(
        self,
        root: str = "pictures",
        flips: float = 0.2,
        decisions: Path | None = None,
        size: int = 64,
        batch_size: int = 64,
        every: int = 1,
        seed: int = 0,
    ) -> None:
        super().__init__(root, size, batch_size, every)
        self.flips = flips
        self.decisions = decisions
        self.seed = seed

    def training(self, transform: transforms.Compose) -> Pictures:
        """List the training pictures, flip labels, and correct them again."""
        folder = FlippedFolder(self.pictures("train", transform), self.flips, self.seed)
        # "listing": the analysis and the training see the same pictures through different transforms.
        return folder if self.decisions is None else apply_decisions(folder, self.decisions, check="listing")


class FlippedFolder(ImageFolder):
    """An image folder with wrong labels.

    Args:
        folder: The folder as it is.
        flips: Share of the labels that are replaced by another one, drawn uniformly.
        seed: Of the choice.

    Attributes:
        truth: The labels that are right, shape ``(n,)``.
        known_issues: One boolean a picture: whether its label was replaced.
    """

    def __init__(self, folder: ImageFolder, flips: float, seed: int) -> None:
        self.__dict__ |= vars(folder)
        self.truth = np.array(folder.targets)
        targets = flipped(self.truth, len(folder.classes), flips, seed)
        self.known_issues = targets != self.truth
        self.targets = targets.tolist()
        paths = [path for path, _ in folder.samples]
        self.samples = self.imgs = list(zip(paths, self.targets, strict=True))


def flipped(labels: np.ndarray, classes: int, share: float, seed: int) -> np.ndarray:
    """Replace a share of the labels, each by another one, drawn uniformly; shape ``(n,)``."""
    generator = np.random.default_rng(seed)
    chosen = generator.choice(len(labels), round(share * len(labels)), replace=False)
    changed = labels.copy()
    changed[chosen] = (labels[chosen] + generator.integers(1, classes, len(chosen))) % classes
    return changed
