"""Planning by arithmetic: which chunks are missing, who does which, and when all are there.

Everything here is linear in the number of chunks, once a pass, on one process: a data set of 10^9 samples has a quarter
of a million of them, and a thousand processes may share them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np


def absent(names: Iterable[str], chunks: int, suffix: str) -> np.ndarray:
    """Find the chunks that a listing lacks.

    Args:
        names: File names of a pass's folder, in any order. Those that are no chunk's are passed over.
        chunks: How many chunks there are.
        suffix: What follows the chunk's number in its file's name.

    Returns:
        Ascending numbers, int64.

    Example:
        >>> absent(["0000002.npz", "info.json", ".0000001.npz.7.tmp"], chunks=4, suffix=".npz").tolist()
        [0, 1, 3]
    """
    there = np.zeros(chunks, dtype=bool)
    for name in names:
        stem = name.removesuffix(suffix)
        if stem is not name and stem.isdecimal() and int(stem) < chunks:
            there[int(stem)] = True
    return np.flatnonzero(~there)


def runs(numbers: Sequence[int] | np.ndarray) -> list[list[int]]:
    """Write ascending numbers as runs, first and last: what every process is told, in as few bytes as it takes.

    Example:
        >>> runs([0, 1, 2, 7, 9, 10])
        [[0, 2], [7, 7], [9, 10]]
    """
    found = np.asarray(numbers, dtype=np.int64)
    if not len(found):
        return []
    breaks = np.flatnonzero(np.diff(found) != 1)
    firsts, lasts = found[np.r_[0, breaks + 1]], found[np.r_[breaks, len(found) - 1]]
    return np.stack([firsts, lasts], axis=1).tolist()


def share(told: Sequence[Sequence[int]] | np.ndarray, rank: int, world: int) -> list[int]:
    """Return the chunks that one process does: every ``world``-th of the missing ones, beginning with its own.

    Args:
        told: The missing chunks as :func:`runs` wrote them.
        rank: The process.
        world: How many there are.

    Example:
        >>> [share([[0, 2], [7, 7], [9, 10]], rank, 2) for rank in range(2)]
        [[0, 2, 9], [1, 7, 10]]
    """
    firsts, lasts = np.asarray(told, dtype=np.int64).reshape(-1, 2).T
    after = np.cumsum(lasts - firsts + 1)  # how many are missing up to the end of a run
    places = np.arange(rank, after[-1] if len(after) else 0, world)
    run = np.searchsorted(after, places, side="right")
    return (lasts[run] + 1 - (after[run] - places)).tolist()


def arrival(chunks: Sequence[int] | np.ndarray, there: Callable[[int], bool]) -> Callable[[], bool]:
    """Return a condition that is met once all chunks are there.

    Asked again and again, it goes on where it stopped: over its whole life each chunk is asked for once, and one more
    time for every time that it was not met.

    Args:
        chunks: Numbers.
        there: Tells whether a chunk has its file.
    """
    left = list(chunks)[::-1]

    def met() -> bool:
        while left and there(left[-1]):
            left.pop()
        return not left

    return met
