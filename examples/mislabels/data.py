"""A folder of pictures of which a known part of the training labels is wrong."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from torchvision import transforms
from torchvision.datasets import ImageFolder

from examples.folder import FolderData
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

    def training(self, transform: transforms.Compose) -> ImageFolder:
        """List the training pictures, flip labels, and correct them again."""
        folder = super().training(transform)
        folder.truth = np.array(folder.targets)
        targets = flipped(folder.truth, len(folder.classes), self.flips, self.seed)
        folder.known_issues = targets != folder.truth
        folder.targets = targets.tolist()
        paths = (path for path, _ in folder.samples)
        folder.samples = folder.imgs = list(zip(paths, folder.targets, strict=True))
        # "listing": the analysis and the training see the same pictures through different transforms.
        return folder if self.decisions is None else apply_decisions(folder, self.decisions, check="listing")


def flipped(labels: np.ndarray, classes: int, share: float, seed: int) -> np.ndarray:
    """Replace a share of the labels, each by another one, drawn uniformly; shape ``(n,)``."""
    generator = np.random.default_rng(seed)
    chosen = generator.choice(len(labels), round(share * len(labels)), replace=False)
    changed = labels.copy()
    changed[chosen] = (labels[chosen] + generator.integers(1, classes, len(chosen))) % classes
    return changed
