"""The training side as the probes see it: a seeded part of it, read again and again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import Tensor

from lightning_inf.containers import flattened
from lightning_inf.data.batches import Transfer, collated
from lightning_inf.data.sources import Samples

#: Bytes of collated batches that stay in memory. Conjugate gradients read the part once an iteration.
KEPT = 1 << 30


@dataclass
class TrainingBatches:
    """Batches of a seeded part of the training samples.

    Args:
        samples: The training dataset and how it is collated.
        transfer: Moves a batch to the device.
        batch_size: Samples in a batch.
        seed: Seed of the part.
    """

    samples: Samples
    transfer: Transfer
    batch_size: int
    seed: int = 0
    _collated: dict[tuple[int, ...], Any] = field(default_factory=dict, repr=False)
    _bytes: int = 0

    def __len__(self) -> int:
        """How many training samples there are, in and out of any part."""
        return len(self.samples)

    def part(self, size: int) -> list[int]:
        """Choose ``size`` of the samples, ascending; all of them where there are no more."""
        if size >= len(self):
            return list(range(len(self)))
        return np.sort(np.random.default_rng(self.seed).choice(len(self), size, replace=False)).tolist()

    def lists(self, size: int) -> list[list[int]]:
        """Cut the part of ``size`` samples into the indices of batches.

        Shuffled, so that every batch is a fair sample of the part: data often lie sorted by label.
        """
        part = np.random.default_rng(self.seed).permutation(self.part(size)).tolist()
        return [part[start : start + self.batch_size] for start in range(0, len(part), self.batch_size)]

    def batch(self, indices: list[int]) -> Any:
        """Make the batch of these samples, on the device."""
        return self.samples.keyed(indices, self.transfer(self._read(indices)))

    def _read(self, indices: list[int]) -> Any:
        """Collate, or remember."""
        key = tuple(indices)
        if key in self._collated:
            return self._collated[key]
        batch = collated(self.samples, indices)
        size = sum(leaf.nbytes for leaf in flattened(batch)[0] if isinstance(leaf, Tensor))
        if self._bytes + size <= KEPT:
            self._collated[key] = batch
            self._bytes += size
        return batch

    def batches(self, size: int) -> Iterator[tuple[list[int], Any]]:
        """Yield ``(indices, batch on the device)`` of the part of ``size`` samples."""
        for indices in self.lists(size):
            yield indices, self.batch(indices)

    def halve(self) -> None:
        """Read batches of half the size from now on, and let go of those in memory."""
        self.batch_size = max(self.batch_size // 2, 1)
        self._collated.clear()
        self._bytes = 0

    def of(self, indices: Sequence[int]) -> Iterator[tuple[list[int], Any]]:
        """Yield ``(indices, batch on the device)`` of these samples, as references to be asked about."""
        asked = self.samples.as_references()
        for start in range(0, len(indices), self.batch_size):
            part = list(indices[start : start + self.batch_size])
            yield part, asked.keyed(part, self.transfer(self._read(part)))
