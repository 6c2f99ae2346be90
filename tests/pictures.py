"""A small image folder in torchvision's layout, for the examples on folders of pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

CLASSES = ("blue", "green", "red")


def write_folder(
    root: Path, parts: Sequence[tuple[str, int]] = (("train", 16), ("test", 12)), size: int = 16, seed: int = 0
) -> Path:
    """Write pictures, noisy ones of a colour each; ``parts`` names the folders, with the pictures of each class."""
    generator = np.random.default_rng(seed)
    for part, pictures in parts:
        for place, name in enumerate(reversed(CLASSES)):
            folder = root / part / name
            folder.mkdir(parents=True)
            for number in range(pictures):
                pixels = generator.integers(0, 160, (size, size, 3))
                pixels[..., place] += 90
                Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{number:03d}.png")
    return root
