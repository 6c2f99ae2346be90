"""A training set as a reviewer left it: relabelled, and without what was dropped."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import Tensor
from torch.utils.data import Dataset

from lightning_inf.data.decisions import Decision, Decisions
from lightning_inf.data.relabelled import Relabel, Relabelled, integer, listed, second
from lightning_inf.data.repeatable import Repeatable

#: Attributes that list every sample with its label, and those that list every sample without.
_LABELS = ("targets", "labels", "samples", "imgs")
_ROWS = ("data",)


class Corrected(Dataset[Any]):
    """A view of a dataset with the labels that were decided, and without the samples that were dropped.

    Made by :func:`~lightning_inf.apply_decisions`. ``targets``, ``labels``, ``samples``, ``imgs`` and ``data`` of the
    dataset are shown as corrected; its other attributes as they are.

    Args:
        dataset: The dataset that was reviewed; it is not changed.
        decisions: What was decided about it.
        relabel: Puts a label into an item.

    Attributes:
        positions: Where each sample stands in ``dataset``, shape ``(n - dropped,)``.
        relabelled: The decision by position in ``dataset``, for those with another label.

    Raises:
        ValueError: At the fetch of an item that does not carry the label that the decision is about.
    """

    def __init__(self, dataset: Dataset[Any], decisions: Decisions, relabel: Relabel = second) -> None:
        self.dataset = dataset
        self.decisions = decisions
        self.relabel = relabel
        self.relabelled: Mapping[int, Decision] = {row.index: row for row in decisions.rows if row.changes}
        dropped = [row.index for row in decisions.rows if row.kind == "drop"]
        self.positions = np.delete(np.arange(len(dataset)), dropped)  # type: ignore[arg-type]
        self._lists: dict[str, Any] = {}

    def __len__(self) -> int:
        return len(self.positions)

    def __getitem__(self, index: int) -> Any:
        position = int(self.positions[index])  # raises IndexError at the end, which ends a plain `for`
        item = self.dataset[position]
        decision = self.relabelled.get(position)
        if decision is None:
            return item
        assert decision.new_label is not None
        changed = self.relabel(item, decision.new_label)
        if self.relabel is second and decision.given_label is not None and int(item[1]) != decision.given_label:
            raise ValueError(
                f"{self.decisions.path}, line {decision.line}: expected sample {position} to have the label"
                f" {decision.given_label}, found {int(item[1])}. The decision is about other labels: review a report of this"
                " dataset."
            )
        return changed

    def __getattr__(self, name: str) -> Any:
        # Dunders are looked up for copying and pickling, before there are any attributes.
        if name.startswith("__") or name in ("dataset", "decisions", "positions", "relabelled", "_lists"):
            raise AttributeError(name)
        value = getattr(self.dataset, name, None) if name == "targets" else getattr(self.dataset, name)
        if name == "targets" and value is None and (value := listed(self.dataset)) is None:  # a Subset lists none
            raise AttributeError(name)
        listing = name in (*_LABELS, *_ROWS) and isinstance(value, (list, tuple, np.ndarray, Tensor))
        if not listing or len(value) != len(self.dataset):  # type: ignore[arg-type]
            return value
        if name not in self._lists:
            self._lists[name] = self._listed(name, value)
        return self._lists[name]

    def _listed(self, name: str, value: Any) -> Any:
        """Correct an attribute that lists all samples."""
        labels = self.relabelled if name in _LABELS else {}
        if isinstance(value, (np.ndarray, Tensor)):
            kept: Any = value[self.positions] if isinstance(value, np.ndarray) else value[self.positions.tolist()]
            if labels:
                places = np.searchsorted(self.positions, list(labels))
                self._agree(name, {p: value[p] for p in labels})
                for place, decision in zip(places.tolist(), labels.values(), strict=True):
                    kept[place] = decision.new_label
            return kept
        found = list(value)
        self._agree(name, {p: _label(found[p]) for p in labels})
        for position, decision in labels.items():
            entry = found[position]
            whole = isinstance(entry, (tuple, list))
            found[position] = type(entry)([entry[0], decision.new_label, *entry[2:]]) if whole else decision.new_label
        left = [found[position] for position in self.positions]
        return tuple(left) if type(value) is tuple else left

    def _agree(self, name: str, labels: Mapping[int, Any]) -> None:
        """Refuse to put labels into a list that holds something else than the labels that were reviewed."""
        for position, label in labels.items():
            given = self.relabelled[position].given_label
            if not integer(label) or (given is not None and int(label) != given):
                raise AttributeError(
                    f"`{name}` holds {label!r} for sample {position}, whose label was {given} when it was reviewed: the"
                    " corrected labels are those of the items alone."
                )


def _label(entry: Any) -> Any:
    """Return the label of an entry such as ``(path, label)`` of an image folder."""
    return entry[1] if isinstance(entry, (tuple, list)) and len(entry) > 1 else entry


def corrected(dataset: Any) -> Corrected | None:
    """Find the corrected dataset that a dataset is, or is a view of with the same indices."""
    while isinstance(dataset, (Repeatable, Relabelled)):
        dataset = dataset.dataset
    return dataset if isinstance(dataset, Corrected) else None
