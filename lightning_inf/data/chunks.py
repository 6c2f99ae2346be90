"""The index range, cut into chunks: the unit of work, of storage, of sharding and of resumption."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

#: Samples in a chunk unless the user says otherwise.
CHUNK = 4096


@dataclass(frozen=True)
class Chunks:
    """Contiguous pieces of the samples that are scored.

    Args:
        samples: How many samples the dataset has.
        size: Samples in a chunk; the last may have fewer.
        limit: Score a seeded part of this many samples, if fewer than ``samples``.
        seed: Seed of that part.

    Example:
        >>> chunks = Chunks(samples=10, size=4)
        >>> len(chunks), [list(chunks[j]) for j in range(len(chunks))]
        (3, [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]])
    """

    samples: int
    size: int = CHUNK
    limit: int | None = None
    seed: int = 0

    @property
    def scored(self) -> int:
        """How many samples are scored."""
        return self.samples if self.limit is None else min(self.limit, self.samples)

    @cached_property
    def indices(self) -> Sequence[int]:
        """All scored indices in dataset order; a range where nothing is left out."""
        if self.scored == self.samples:
            return range(self.samples)
        part = np.random.default_rng(self.seed).choice(self.samples, self.scored, replace=False, shuffle=False)
        return np.sort(part).tolist()

    def __len__(self) -> int:
        return -(-self.scored // self.size)

    def __getitem__(self, chunk: int) -> Sequence[int]:
        return self.indices[chunk * self.size : (chunk + 1) * self.size]

    def batches(self, chunks: Sequence[int], batch_size: int) -> Iterator[Sequence[int]]:
        """Yield lists of at most ``batch_size`` indices of the given chunks; none crosses a chunk."""
        everything = self.indices
        for chunk in chunks:
            piece = everything[chunk * self.size : (chunk + 1) * self.size]
            for start in range(0, len(piece), batch_size):
                yield piece[start : start + batch_size]
