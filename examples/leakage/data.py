"""A folder of pictures whose validation pictures have got among the training pictures, some of them changed."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageEnhance, ImageOps
from torch.utils.data import ConcatDataset, Subset
from torchvision import transforms
from torchvision.datasets import ImageFolder

from examples.folder import FolderData, Pictures


def _cropped(picture: Image.Image) -> Image.Image:
    width, height = picture.size
    left, top = max(width // 10, 1), max(height // 10, 1)
    return picture.crop((left, top, width - left, height - top)).resize((width, height))


#: What happened to a picture on its way, by name: how its pixels changed, and the file that it was saved to. ``copy`` is
#: the file itself.
KINDS: dict[str, tuple[Callable[[Image.Image], Image.Image] | None, str, dict[str, Any]]] = {
    "copy": (None, "", {}),
    "jpeg": (lambda picture: picture, ".jpg", {"quality": 50}),
    "brighter": (lambda picture: ImageEnhance.Brightness(picture).enhance(1.3), ".png", {}),
    "flip": (ImageOps.mirror, ".png", {}),
    "crop": (_cropped, ".png", {}),
}


class LeakyData(FolderData):
    """Pictures in a folder; some of those that are held out are trained on, too.

    Args:
        root: The folder that holds ``train``, and ``val`` or ``test``.
        leaks: How many held-out pictures get among the training pictures, in each of :data:`KINDS`.
        planted: Where the changed pictures are written.
        size: Pictures are scaled to so many pixels a side.
        batch_size: Pictures in a training batch.
        every: Use only every third picture, or fourth, ..., to try things out.
        seed: Of the choice.
    """

    def __init__(
        self,
        root: str = "pictures",
        leaks: int = 10,
        planted: Path = Path("runs/leakage/planted"),
        size: int = 64,
        batch_size: int = 64,
        every: int = 1,
        seed: int = 0,
    ) -> None:
        super().__init__(root, size, batch_size, every)
        self.leaks = leaks
        self.planted = planted
        self.seed = seed

    def setup(self, stage: str) -> None:
        """Choose held-out pictures, and write them, changed, to where they are trained on."""
        files, classes = listed(self.held_out()[0])
        chosen = np.random.default_rng(self.seed).permutation(len(files))[: self.leaks * len(KINDS)]
        if len(chosen) < self.leaks * len(KINDS):
            raise ValueError(
                f"expected {self.leaks} held-out pictures for each of {len(KINDS)} kinds of change, found"
                f" {len(files)} in all. Plant fewer (--data.leaks)."
            )
        shutil.rmtree(self.planted, ignore_errors=True)
        for name in classes:
            (self.planted / name).mkdir(parents=True)
        #: What was planted: kind and reference, by the name of the file.
        self.leaked = {}
        for place, reference in enumerate(chosen.tolist()):
            kind = list(KINDS)[place % len(KINDS)]
            path, label = files[reference]
            file = plant(Path(path), self.planted / classes[label] / f"{kind}-{reference:05d}", kind)
            self.leaked[file.relative_to(self.planted).as_posix()] = (kind, reference)
        super().setup(stage)

    def training(self, transform: transforms.Compose) -> Pictures:
        """List the training pictures, and those that have got among them."""
        planted = ImageFolder(str(self.planted), transform, allow_empty=True)
        return ConcatDataset([super().training(transform), planted])


def plant(source: Path, target: Path, kind: str) -> Path:
    """Write a picture as a kind of change leaves it, to ``target`` with the suffix of its format; return the file."""
    change, suffix, options = KINDS[kind]
    if change is None:
        return Path(shutil.copyfile(source, target.with_suffix(source.suffix)))
    with Image.open(source) as picture:
        change(picture.convert("RGB")).save(target.with_suffix(suffix), **options)
    return target.with_suffix(suffix)


def listed(pictures: Pictures) -> tuple[list[tuple[str, int]], list[str]]:
    """Give the files of an image folder or a part of it, with their labels, and the names of the classes."""
    if isinstance(pictures, Subset):
        files, classes = listed(pictures.dataset)
        return [files[index] for index in pictures.indices], classes
    assert isinstance(pictures, ImageFolder)
    return pictures.samples, pictures.classes
