"""Which training samples are among the held-out references, too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from lightning_inf.audit.duplicates import members

RULE = "training samples with exactly the input of a reference"
#: How many pairs are listed in the summary; the counts are always whole.
LISTED = 200
#: Mean cosine of two gradients from which a sample is suspected to be a copy.
ALIKE = 0.99


@dataclass(frozen=True)
class Leaks:
    """Training samples that are copies of references.

    Attributes:
        reference: The first reference that each training sample is a copy of, -1 for none; shape ``(n,)``.
        pairs: Training sample, reference, and whether their labels are the same (None where one has none).
        references: How many references have a copy.
        checked: How many references were compared.
        source: What was compared; None where nothing was.
        reason: Why not all, or none.
    """

    reference: np.ndarray
    pairs: list[tuple[int, int, bool | None]] = field(default_factory=list)
    references: int = 0
    checked: int = 0
    source: str | None = None
    reason: str | None = None

    @property
    def count(self) -> int:
        """The one count of leaked samples: training samples that are copies of a reference."""
        return int((self.reference >= 0).sum())


def leaked(
    ours: tuple[np.ndarray, np.ndarray],
    theirs: tuple[np.ndarray, np.ndarray],
    samples: int,
    labels: np.ndarray | None = None,
    reference_labels: Mapping[int, int] | None = None,
    source: str | None = None,
    reason: str | None = None,
) -> Leaks:
    """Find training samples and references with equal keys.

    Args:
        ours: The training samples that were read, and hashes of their inputs; shape ``(m,)`` each.
        theirs: The references that were, and theirs.
        samples: Number of training samples.
        labels: Given labels, -1 where there is none, shape ``(samples,)``.
        reference_labels: Of the references by index.
        source: What was compared.
        reason: Why not all were.

    Example:
        >>> found = leaked((np.arange(2), np.array([3, 4])), (np.array([5, 7]), np.array([4, 4])), 2)
        >>> found.reference.tolist(), found.pairs, found.references, found.count
        ([-1, 5], [(1, 5, None), (1, 7, None)], 2, 1)
    """
    index, keys = ours
    common = members(keys, theirs[1])  # only these become Python objects
    held = sorted(zip(*(side.tolist() for side in theirs), strict=True))
    holders: dict[int, list[int]] = {}
    for other, key in held:
        holders.setdefault(key, []).append(other)
    reference = np.full(samples, -1, dtype=np.int64)
    pairs: list[tuple[int, int, bool | None]] = []
    for one, key in sorted(zip(index[common].tolist(), keys[common].tolist(), strict=True)):
        reference[one] = holders[key][0]
        pairs.extend((one, other, _same(one, other, labels, reference_labels)) for other in holders[key])
    with_copy = len({other for _, other, _ in pairs})
    return Leaks(reference, pairs, with_copy, len(held), source, reason)


def _same(index: int, other: int, labels: np.ndarray | None, others: Mapping[int, int] | None) -> bool | None:
    given = -1 if labels is None else int(labels[index])
    held = -1 if others is None else others.get(other, -1)
    return None if given < 0 or held < 0 else given == held


def suspected(
    strongest: Mapping[int, Sequence[tuple[int, float]]], scale: float, known: Mapping[int, set[int]]
) -> list[dict[str, Any]]:
    r"""Find training samples whose gradients are those of a reference (GradCos), though their inputs differ.

    A score :math:`\sum_c \eta_c \cos(g_i, g_{ref})` divided by :math:`\sum_c \eta_c` is a mean cosine. It is 1 for a copy.
    Samples of one class that a model finds equally easy, or gets equally wrong, come close to it, so only the strongest
    sample of a reference is taken, and only from 0.99 on: it is likely a re-encoding or another picture of the same thing.

    Args:
        strongest: By reference, training samples with their scores, the strongest first.
        scale: :math:`\sum_c \eta_c`.
        known: By reference, training samples that are copies by content.

    Returns:
        ``{"train_index", "reference_index", "cosine"}``, most alike first.

    Example:
        >>> suspected({3: [(8, 0.299), (1, 0.298)]}, scale=0.3, known={})
        [{'train_index': 8, 'reference_index': 3, 'cosine': 0.99667}]
    """
    if not scale > 0:
        return []
    found = [
        {"train_index": index, "reference_index": reference, "cosine": round(value / scale, 5)}
        for reference, pairs in strongest.items()
        for index, value in pairs[:1]
        if value / scale >= ALIKE and index not in known.get(reference, set())
    ]
    return sorted(found, key=lambda pair: (-pair["cosine"], pair["reference_index"], pair["train_index"]))


def describe(found: Leaks, suspects: Sequence[Mapping[str, Any]] | None) -> dict[str, Any]:
    """Give plain values for the summary.

    Args:
        found: By content.
        suspects: By the model; None where no method of the run can tell.
    """
    return {
        "checked": found.checked,
        "source": found.source,
        "reason": found.reason,
        "samples": found.count,
        "references": found.references,
        "pairs": len(found.pairs),
        "conflicts": sum(same is False for *_, same in found.pairs),
        "listed": [
            {"train_index": index, "reference_index": other, "same_label": same}
            for index, other, same in found.pairs[:LISTED]
        ],
        "suspected": None if suspects is None else list(suspects[:LISTED]),
    }
