"""Every sample's loss, probability and gap at every epoch, in a file that grows by an epoch at a time."""

from __future__ import annotations

import os
import shutil
import zlib
from pathlib import Path

import numpy as np

FILE = "curves.f32"
#: What a curve has at each epoch.
CURVES = ("loss", "probability", "gap")


class Curves:
    """Raw float32 of shape ``(epochs, samples, 3)``; NaN where a sample was not seen. Read it with :func:`curves`.

    Args:
        directory: Where the file lies.
        samples: n.
    """

    def __init__(self, directory: Path, samples: int) -> None:
        self.path = directory / FILE
        self.samples = samples

    def write(self, epoch: int, index: np.ndarray, values: np.ndarray) -> None:
        """Write an epoch, and leave NaN for epochs before it that are missing.

        Args:
            epoch: Number of the epoch, from 0.
            index: The samples that were seen, shape ``(m,)``.
            values: Their values, shape ``(m, k)`` with k up to 3; the others are NaN.
        """
        block = np.full((self.samples, len(CURVES)), np.nan, np.float32)
        block[index, : values.shape[1]] = values
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.keep(epoch)
        with open(self.path, "ab") as stream:
            missing = np.full_like(block, np.nan)
            for _ in range(epoch - stream.tell() // block.nbytes):
                stream.write(missing.data)
            stream.write(block.data)

    def keep(self, epochs: int, inherited: Path | None = None) -> None:
        """Cut the file to a number of epochs: what was written after a checkpoint, or in part, is not the run's.

        Args:
            epochs: The epochs to keep.
            inherited: The directory of the run that is resumed, to copy from if it is another.
        """
        if inherited is not None and inherited / FILE != self.path and (inherited / FILE).exists():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(inherited / FILE, self.path)
        if self.path.exists():
            size, block = self.path.stat().st_size, self.samples * len(CURVES) * 4
            whole = min(epochs, size // block if block else 0) * block
            if whole != size:
                os.truncate(self.path, whole)


def checksum(directory: Path) -> int | None:
    """Return the CRC-32 of the curves' file, None where there is none. Read in blocks: a mapping would count as memory."""
    path, found = directory / FILE, 0
    if not path.exists():
        return None
    with open(path, "rb") as stream:
        while block := stream.read(1 << 22):
            found = zlib.crc32(block, found)
    return found


def curves(directory: Path, samples: int) -> np.memmap | None:
    """Map the curves of a run into memory, read-only, shape ``(epochs, samples, 3)``; None where there are none."""
    path, block = directory / FILE, samples * len(CURVES) * 4
    epochs = path.stat().st_size // block if path.exists() and block else 0
    return np.memmap(path, np.float32, "r", shape=(epochs, samples, len(CURVES))) if epochs else None
