"""Which training samples are copies of each other, and which copy to keep."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

RULE = "samples with exactly the same input; one of each group is kept"
#: How many groups are listed in the summary; the counts are always whole.
LISTED = 200


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
    keys: Mapping[int, bytes],
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
        keys: Hash of the input by index, of the samples that were read.
        samples: n.
        labels: Given labels, -1 where there is none, shape ``(n,)``.
        score: Label scores, low is bad; shape ``(n,)``.
        source: What was compared.
        reason: Why not all samples were.

    Example:
        >>> found = duplicates({0: b"a", 1: b"b", 2: b"a", 3: b"a"}, 4, np.array([1, 0, 2, 2]))
        >>> found.group.tolist(), found.drop.tolist(), found.conflicts, found.count
        ([0, -1, 0, 0], [True, False, False, True], (0,), 2)
    """
    members: dict[bytes, list[int]] = {}
    for index in sorted(keys):
        members.setdefault(keys[index], []).append(index)
    group, drop = np.full(samples, -1, dtype=np.int64), np.zeros(samples, dtype=bool)
    conflicts = []
    copies = (found for found in members.values() if len(found) > 1)
    for number, found in enumerate(copies):
        group[found] = number
        drop[found] = True
        drop[_kept(found, labels, score)] = False
        if labels is not None and len(set(labels[found].tolist())) > 1:
            conflicts.append(number)
    return Duplicates(group, drop, tuple(conflicts), len(keys), source, reason)


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
