"""Decisions about training samples, found again in the training set at hand."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch.utils.data import Dataset

from lightning_inf.data.content_fingerprint import content_fingerprint
from lightning_inf.data.corrected import corrected
from lightning_inf.data.decisions import Decisions, read_decisions
from lightning_inf.data.differences import differences


@dataclass(frozen=True)
class Reviewed:
    """What was decided before, in terms of the training set at hand.

    Attributes:
        decisions: By the indices of the dataset that was reviewed.
        places: Where each sample stands now, by its index then; without those that are not there any more.
        matched_by: ``index`` or ``sample_id``.
        corrected: The fingerprint of the dataset that was reviewed, where the one at hand is that, corrected; else None.
    """

    decisions: Decisions
    places: Mapping[int, int]
    matched_by: str
    corrected: str | None


def find_reviewed(
    path: str | os.PathLike[str] | None, dataset: Dataset[Any], name_of: Callable[[int], str]
) -> Reviewed | None:
    """Find what was decided about the samples of a training set.

    Args:
        path: ``decisions.csv``; None: the decisions that the dataset was corrected by, if it was.
        dataset: The training dataset, under whatever view of ours.
        name_of: Names its samples.

    Returns:
        The decisions with the samples' places, None where there are none to show.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file can't be read, or is about none of these samples.
    """
    view = corrected(dataset)
    if path is None:
        if view is None:
            return None
        return Reviewed(view.decisions, _places(view.positions), "index", view.decisions.fingerprint)
    decisions = read_decisions(path)
    expected = decisions.fingerprint
    if not decisions.rows:
        return Reviewed(decisions, {}, "index", None)
    found = content_fingerprint(dataset)
    if not differences(found, expected, items=False):
        return Reviewed(decisions, {row.index: row.index for row in decisions.rows}, "index", None)
    positions: np.ndarray | None = None
    while view is not None:
        positions = view.positions if positions is None else view.positions[positions]
        if not differences(content_fingerprint(view.dataset), expected, items=False):
            return Reviewed(decisions, _places(positions), "index", expected)
        view = corrected(view.dataset)
    return Reviewed(decisions, _by_name(decisions, dataset, name_of, found), "sample_id", None)


def _places(positions: np.ndarray) -> dict[int, int]:
    return {int(position): place for place, position in enumerate(positions)}


def _by_name(decisions: Decisions, dataset: Any, name_of: Callable[[int], str], found: str) -> dict[int, int]:
    """Match samples by names that say more than a position."""
    places = {name: index for index, name in ((i, name_of(i)) for i in range(len(dataset))) if name != str(index)}
    matched = {row.index: places[row.sample_id] for row in decisions.rows if row.sample_id in places}
    if not matched:
        raise ValueError(
            f"decisions={decisions.path!r}: expected decisions about samples of this training dataset, found none. What"
            f" differs: {', and '.join(differences(found, decisions.fingerprint, items=False))}. Leave decisions= out, or"
            " give the file that belongs to these data."
        )
    return matched
