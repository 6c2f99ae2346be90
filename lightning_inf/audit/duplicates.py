"""Which training samples are copies of each other, and which copy to keep."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

RULE = "samples with exactly the same input; one of each group is kept"
#: How many groups are listed in the summary; the counts are always whole.
LISTED = 200
#: How many keys are looked up at once.
_BLOCK = 1 << 16


@dataclass(frozen=True)
class Duplicates:
    """Groups of training samples with one and the same input; arrays of shape ``(n,)`` over all samples.

    Attributes:
        group: Number of the group, from 0 in the order of the groups' first samples; -1 where a sample has no copy.
        drop: Whether the sample is proposed to be dropped.
        conflicts: Groups whose samples carry different labels.
        checked: How many samples were compared.
        source: What was compared; None where nothing was.
        reason: Why not all of them, or none.
    """

    group: np.ndarray
    drop: np.ndarray
    conflicts: tuple[int, ...] = ()
    checked: int = 0
    source: str | None = None
    reason: str | None = None

    @property
    def groups(self) -> int:
        """How many groups there are."""
        return int(self.group.max(initial=-1)) + 1

    @property
    def count(self) -> int:
        """The one count of duplicates: samples that are proposed to be dropped."""
        return int(self.drop.sum())


def duplicates(
    index: np.ndarray,
    keys: np.ndarray,
    samples: int,
    labels: np.ndarray | None = None,
    score: np.ndarray | None = None,
    source: str | None = None,
    reason: str | None = None,
) -> Duplicates:
    """Group samples with equal keys.

    Of a group, the sample is kept that carries the label of the majority; between labels that are equally frequent, the
    one with the higher label score; of several such samples, the first.

    Args:
        index: The samples that were read, shape ``(m,)``.
        keys: Hashes of their inputs, shape ``(m,)``.
        samples: n.
        labels: Given labels, -1 where there is none, shape ``(n,)``.
        score: Label scores, low is bad; shape ``(n,)``.
        source: What was compared.
        reason: Why not all samples were.

    Example:
        >>> found = duplicates(np.arange(4), np.array([7, 8, 7, 7]), 4, np.array([1, 0, 2, 2]))
        >>> found.group.tolist(), found.drop.tolist(), found.conflicts, found.count
        ([0, -1, 0, 0], [True, False, False, True], (0,), 2)
    """
    group, drop = np.full(samples, -1, dtype=np.int64), np.zeros(samples, dtype=bool)
    conflicts = []
    copies = sorted(_alike(index, keys), key=lambda found: found[0])
    for number, found in enumerate(copies):
        group[found] = number
        drop[found] = True
        drop[_kept(found, labels, score)] = False
        if labels is not None and len(set(labels[found].tolist())) > 1:
            conflicts.append(number)
    return Duplicates(group, drop, tuple(conflicts), len(index), source, reason)


def _alike(index: np.ndarray, keys: np.ndarray) -> list[list[int]]:
    """List the samples of each key that several have, ascending."""
    ordered = np.sort(keys)
    several_have = np.unique(ordered[1:][ordered[1:] == ordered[:-1]])
    del ordered
    chosen = members(keys, several_have)  # a few: only they are put in order
    index, keys = index[chosen], keys[chosen]
    order = np.lexsort((index, keys))
    ordered = keys[order]
    starts = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]])) if len(order) else np.array([], int)
    sizes = np.diff(starts, append=len(order))
    # Only the groups become Python objects: most samples of a large data set have no copy.
    several = zip(starts[sizes > 1].tolist(), sizes[sizes > 1].tolist(), strict=True)
    return [index[order[start : start + size]].tolist() for start, size in several]


def members(keys: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Find which keys are among the wanted ones, as ``np.isin`` does, with hardly any memory beside the answer.

    Args:
        keys: Shape ``(m,)``.
        wanted: Few of them, in any order.

    Returns:
        Positions, ascending.

    Example:
        >>> members(np.array([5, 1, 5, 2]), np.array([5, 9])).tolist()
        [0, 2]
    """
    blocks = range(0, len(keys), _BLOCK)
    found = [start + np.flatnonzero(np.isin(keys[start : start + _BLOCK], wanted)) for start in blocks]
    return np.concatenate([np.zeros(0, dtype=np.int64), *found])


def _kept(found: Sequence[int], labels: np.ndarray | None, score: np.ndarray | None) -> int:
    """Choose the sample of a group that stays."""
    if labels is None:
        return found[0]
    votes = Counter(labels[list(found)].tolist())
    best = lambda index: 0.0 if score is None or not np.isfinite(score[index]) else float(score[index])  # noqa: E731
    strength = {label: (count, max(best(i) for i in found if labels[i] == label)) for label, count in votes.items()}
    winner = max(strength, key=lambda label: strength[label])  # of labels alike in both, that of the first sample
    return next(index for index in found if labels[index] == winner)


def describe(found: Duplicates) -> dict[str, Any]:
    """Give plain values for the summary: counts, and the first groups with what is proposed."""
    order = np.argsort(found.group, kind="stable")
    order = order[found.group[order] >= 0]
    starts = np.flatnonzero(np.diff(found.group[order], prepend=-1))
    groups = [part.tolist() for part in np.split(order, starts[1:])][:LISTED] if len(order) else []
    return {
        "checked": found.checked,
        "source": found.source,
        "reason": found.reason,
        "groups": found.groups,
        "copies": found.count,
        "conflicts": len(found.conflicts),
        "listed": [
            {
                "group": number,
                "keep": next(i for i in part if not found.drop[i]),
                "drop": [i for i in part if found.drop[i]],
                "conflict": number in found.conflicts,
            }
            for number, part in enumerate(groups)
        ],
    }
