"""What was decided about training samples, applied to them."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
from lightning.pytorch.utilities.seed import isolate_rng
from torch.utils.data import Dataset, IterableDataset

from lightning_inf.data.content_fingerprint import content_fingerprint
from lightning_inf.data.corrected import Corrected
from lightning_inf.data.decisions import Decisions, read_decisions
from lightning_inf.data.differences import differences
from lightning_inf.data.identity import locate
from lightning_inf.data.relabelled import listed, second


def apply_decisions(
    dataset: Dataset[Any],
    path: str | os.PathLike[str],
    relabel: Callable[[Any, int], Any] | None = None,
    classes: int | None = None,
    check: Literal["items", "listing"] = "items",
) -> Corrected:
    """Correct a training set by a ``decisions.csv`` that the report exported.

    Samples with the decision *accept* or *relabel* get the new label, those with *drop* are left out, all others stay as
    they are. The dataset itself is not changed. It must be the one that was reviewed: the same samples in the same order.

    Args:
        dataset: The training dataset, map-style.
        path: The file.
        relabel: Puts a label into an item, ``relabel(item, label) -> item``. Default: the method ``influence_relabel`` of
            the dataset, else the second element of ``(input, label, ...)`` items is replaced.
        classes: How many classes there are. Default: the length of the dataset's ``classes``, else as many as its
            ``targets`` show.
        check: What must be as it was when the dataset was reviewed: labels, paths and the contents of 64 ``items``, or the
            ``listing`` of labels and paths alone, for a view of the same samples with other transforms.

    Returns:
        A view of the dataset, to be given to a DataLoader. ``classes``, ``transform`` and other attributes are the
        dataset's; ``targets``, ``labels``, ``samples``, ``imgs`` and ``data`` are corrected.

    Raises:
        FileNotFoundError: If there is no such file.
        TypeError: For a dataset without length.
        ValueError: For the decisions of another dataset, naming what differs; or with the line, for a row that can't be
            read or applied.

    Example:
        >>> import tempfile, torch
        >>> from torch.utils.data import TensorDataset
        >>> from lightning_inf.data.decisions import Decision, write_decisions
        >>> data = TensorDataset(torch.zeros(3, 2), torch.tensor([0, 1, 1]))
        >>> rows = [Decision(0, "0", 0, "drop"), Decision(2, "2", 1, "relabel", 0)]
        >>> path = os.path.join(tempfile.mkdtemp(), "decisions.csv")
        >>> write_decisions(path, rows, content_fingerprint(data))
        >>> [int(y) for _, y in apply_decisions(data, path)]
        [1, 0]
    """
    if check not in ("items", "listing"):
        raise ValueError(f"check=: expected 'items' or 'listing', found {check!r}.")
    if isinstance(dataset, IterableDataset) or not hasattr(dataset, "__len__"):
        raise TypeError(
            f"apply_decisions: expected a map-style dataset with __len__ and __getitem__, found {type(dataset).__name__}."
        )
    decisions = read_decisions(path)
    if decisions.rows:
        _check_dataset(dataset, decisions, check == "items")
    hook = relabel or getattr(locate(dataset, 0)[0] if len(dataset) else dataset, "influence_relabel", None)
    _check_rows(dataset, decisions, classes, labels_are_listed=hook is None)
    view = Corrected(dataset, decisions, hook if callable(hook) else second)
    _try(view)
    return view


def _check_dataset(dataset: Any, decisions: Decisions, items: bool) -> None:
    """Refuse the decisions of another dataset."""
    differ = differences(content_fingerprint(dataset), decisions.fingerprint, items)
    if not differ:
        return
    hint = "Give the dataset that the run was trained on, as it was then."
    if differ == ["the contents of the items"]:
        hint = (
            "Give the dataset that the run analysed. Where this is another view of the same samples (other transforms, or"
            " images decoded by another library), check='listing' compares labels and paths alone."
        )
    if isinstance(dataset, Corrected):
        hint += " It has been corrected before: apply decisions about the uncorrected samples to those."
    raise ValueError(
        f"{decisions.path}: expected decisions about this dataset ({type(dataset).__name__}), found some about another."
        f" What differs: {', and '.join(differ)}. {hint}"
    )


def _check_rows(dataset: Any, decisions: Decisions, classes: int | None, labels_are_listed: bool) -> None:
    """Refuse rows that can't be applied."""
    count, labels = len(dataset), listed(dataset)
    names = getattr(locate(dataset, 0)[0], "classes", None) if count else None
    if classes is None and isinstance(names, (list, tuple)):
        classes = len(names)
    if classes is None and labels is not None and len(labels):
        classes = int(labels.max()) + 1
    for row in decisions.rows:
        where = f"{decisions.path}, line {row.line}"
        if row.index >= count:
            raise ValueError(
                f"{where}: expected an index in [0, {count}), found {row.index}. An index is a position in the dataset."
            )
        if row.new_label is not None and classes is not None and row.new_label >= classes:
            raise ValueError(
                f"{where}: expected a new_label in [0, {classes}), found {row.new_label}. If there are more classes than the"
                " dataset shows, give their number: apply_decisions(..., classes=...)."
            )
        if labels_are_listed and labels is not None and row.given_label is not None:
            _check_given(where, row.index, row.given_label, int(labels[row.index]))


def _check_given(where: str, index: int, given: int, label: int) -> None:
    """Refuse a row about another label than the sample's."""
    if label != given:
        raise ValueError(
            f"{where}: expected the given_label {label}, which the dataset lists for sample {index}, found {given}. If the"
            " row was moved or edited, export the decisions again; if the dataset changes its labels on the way"
            " (target_transform), give relabel=, which puts the new label into an item."
        )


def _try(view: Corrected) -> None:
    """Fetch one sample that gets another label, so that what can't be relabelled is refused now."""
    if view.relabelled:
        first = min(view.relabelled)
        decision = view.relabelled[first]
        with isolate_rng(include_cuda=False):
            try:
                view[int(np.searchsorted(view.positions, first))]
            except (ValueError, TypeError, KeyError, IndexError) as error:
                if str(error).startswith(view.decisions.path):
                    raise
                raise ValueError(
                    f"{view.decisions.path}, line {decision.line}: sample {first} can't be given the label"
                    f" {decision.new_label}. {type(error).__name__}: {error} In your own code, give a function:"
                    " apply_decisions(..., relabel=lambda item, label: ...)."
                ) from error
