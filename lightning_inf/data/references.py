"""The held-out side: a pool of references, in memory, asked jointly and one by one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from lightning_inf.data.batches import Transfer, collated
from lightning_inf.data.identity import fingerprint
from lightning_inf.data.sources import Samples
from lightning_inf.files import digest

#: The most references that are asked jointly.
POOL = 2048


@dataclass(frozen=True)
class Target:
    """What is asked about: the mean loss of some references, or of some training samples.

    Attributes:
        indices: Their indices in the dataset.
        key: Hash of the dataset and the indices.
        reference: The reference's index where it is asked alone, None for the joint question.
        side: Which dataset.
    """

    indices: tuple[int, ...]
    key: str
    reference: int | None = None
    side: Literal["references", "training"] = "references"

    @classmethod
    def training(cls, indices: Sequence[int]) -> Target:
        """The question about training samples; which dataset they are of is in the run's hash."""
        chosen = tuple(sorted(int(index) for index in indices))
        return cls(chosen, digest("training", chosen), side="training")


@dataclass
class References:
    """References by their index in the reference dataset.

    Args:
        samples: The reference dataset and how it is collated.
        transfer: Moves a batch to the device.
        pool: Indices of the references that are asked jointly, ascending.
        batch_size: References in a batch.
        fingerprint: Hash of the reference dataset.

    Attributes:
        excluded: References that can't be asked, with the reason, by index.
    """

    samples: Samples
    transfer: Transfer
    pool: list[int]
    batch_size: int
    fingerprint: str = ""
    excluded: dict[int, str] = field(default_factory=dict)
    _collated: dict[tuple[int, ...], Any] = field(default_factory=dict, repr=False)

    @classmethod
    def choose(cls, samples: Samples, transfer: Transfer, batch_size: int, seed: int, limit: int = POOL) -> References:
        """Take all references, or a seeded part of ``limit`` where there are more."""
        count = len(samples)
        pool = range(count) if count <= limit else np.random.default_rng(seed).choice(count, limit, replace=False)
        return cls(samples, transfer, sorted(int(i) for i in pool), batch_size, fingerprint(samples.dataset))

    def batches(self, indices: Sequence[int]) -> Iterator[tuple[list[int], Any]]:
        """Yield ``(indices, batch on the device)``.

        Collated batches stay in memory: an ascent reads them at every step, and there are at most 2,048 samples.
        """
        chosen = list(indices)
        for start in range(0, len(chosen), self.batch_size):
            part = chosen[start : start + self.batch_size]
            key = tuple(part)
            if key not in self._collated:
                self._collated[key] = collated(self.samples, part)
            yield part, self.samples.keyed(part, self.transfer(self._collated[key]))

    def halve(self) -> None:
        """Read batches of half the size from now on, and let go of those in memory."""
        self.batch_size = max(self.batch_size // 2, 1)
        self._collated.clear()

    @property
    def joint(self) -> Target:
        """The question asked about all of them together."""
        indices = tuple(i for i in self.pool if i not in self.excluded)
        return Target(indices, digest(self.fingerprint, indices))

    def alone(self, index: int) -> Target:
        """The question asked about one of them."""
        return Target((index,), digest(self.fingerprint, [index]), reference=index)
