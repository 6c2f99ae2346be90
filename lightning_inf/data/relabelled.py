"""A little known truth: some training labels replaced on purpose for a run, so that wrong labels can be recognised."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor
from torch.utils.data import ConcatDataset, Dataset, Subset

from lightning_inf.data.repeatable import Repeatable

#: Turns an item and a label into the item with that label.
Relabel = Callable[[Any, int], Any]


@dataclass(frozen=True)
class Calibration:
    """Which training samples carry which label on purpose.

    Attributes:
        labels: The planted label by index.
        samples: n, the number of training samples that they were drawn from.
        seed: Seed of the draw.
    """

    labels: Mapping[int, int]
    samples: int
    seed: int

    def state(self) -> dict[str, Any]:
        """Return plain values, for a file."""
        return {
            "labels": {str(i): label for i, label in self.labels.items()},
            "samples": self.samples,
            "seed": self.seed,
        }

    @classmethod
    def of(cls, state: Mapping[str, Any]) -> Calibration:
        """Read what :meth:`state` returned."""
        return cls({int(i): label for i, label in state["labels"].items()}, state["samples"], state["seed"])


class Relabelled(Dataset[Any]):
    """A view of a dataset in which a few samples carry another label.

    Args:
        dataset: The user's training dataset; it is not changed.
        labels: The planted label by index.
        relabel: Puts a label into an item.

    Raises:
        ValueError: At the fetch of an item that does not carry its label where ``relabel`` puts the new one.

    Example:
        >>> import torch
        >>> from torch.utils.data import TensorDataset
        >>> data = TensorDataset(torch.zeros(3, 1), torch.tensor([0, 1, 2]))
        >>> view = Relabelled(data, {1: 2}, lambda item, label: (item[0], label))
        >>> [int(y) for _, y in view]
        [0, 2, 2]
    """

    def __init__(self, dataset: Dataset[Any], labels: Mapping[int, int], relabel: Relabel) -> None:
        self.dataset = dataset
        self.labels = dict(labels)
        self.relabel = relabel

    def __len__(self) -> int:
        return len(self.dataset)  # type: ignore[arg-type]

    def __getitem__(self, index: int) -> Any:
        if index >= len(self):  # ends a plain `for` over the view
            raise IndexError(index)
        item = self.dataset[index]
        return self.relabel(item, self.labels[index]) if index in self.labels else item

    def __getattr__(self, name: str) -> Any:
        # `classes` and the like of the user's dataset stay readable; dunders are looked up for copying and pickling.
        if name.startswith("__") or name == "dataset":
            raise AttributeError(name)
        return getattr(self.dataset, name)


def draw(share: float, dataset: Dataset[Any], given: np.ndarray | None, classes: int, seed: int) -> Calibration:
    """Draw the samples and their planted labels.

    Args:
        share: Share of the samples.
        dataset: The training dataset.
        given: The labels, shape ``(n,)``, where they are listed; a planted one then differs. Else it is any class.
        classes: How many there are.
        seed: Seed of the draw.

    Returns:
        At least one sample.
    """
    samples = len(dataset)  # type: ignore[arg-type]
    generator = np.random.default_rng((seed, 0xCA11))
    chosen = np.sort(generator.choice(samples, min(max(round(share * samples), 1), samples), replace=False))
    if given is None:
        planted = generator.integers(0, classes, len(chosen))
    else:
        planted = (given[chosen] + generator.integers(1, classes, len(chosen))) % classes
    return Calibration(dict(zip(chosen.tolist(), planted.tolist(), strict=True)), samples, seed)


def relabeller(trainer: Trainer, module: LightningModule, dataset: Dataset[Any]) -> Relabel:
    """Find the way to put another label into an item.

    Args:
        trainer: For its datamodule.
        module: The bare module.
        dataset: The training dataset.

    Returns:
        The hook ``influence_relabel(item, label)`` of datamodule or module, else the replacement of the second element
        of ``(input, label)`` items of a dataset with integer ``targets``.

    Raises:
        MisconfigurationException: If there is neither.
    """
    for owner in (getattr(trainer, "datamodule", None), module):
        if callable(hook := getattr(owner, "influence_relabel", None)):
            return hook
    if listed(dataset) is None:
        raise MisconfigurationException(
            f"calibration_flips=: expected a training dataset with integer `targets`, found {type(dataset).__name__} without."
            " Add the hook `influence_relabel(item, label)` to the module or datamodule, which returns the item with that"
            " label, and `class_names`; or leave calibration_flips out."
        )
    return second


def second(item: Any, label: int) -> Any:
    """Replace the label of an ``(input, label)`` item.

    Raises:
        ValueError: If the item is no tuple or list with an integer in second place.
    """
    if not isinstance(item, (tuple, list)) or len(item) < 2 or not integer(item[1]):
        raise ValueError(
            "To give a sample another label: expected an item (input, integer label, ...), found"
            f" {_shape(item)}; add the hook `influence_relabel(item, label)`, which returns the item with that label."
        )
    like = item[1]
    value = like.new_tensor(label) if isinstance(like, Tensor) else type(like)(label)
    changed = [item[0], value, *item[2:]]
    return type(item)(*changed) if hasattr(item, "_fields") else type(item)(changed)


def listed(dataset: Any) -> np.ndarray | None:
    """Return the integer labels that a dataset lists, shape ``(n,)``, through Subset and ConcatDataset; else None."""
    if isinstance(dataset, (Relabelled, Repeatable)):
        return listed(dataset.dataset)
    if isinstance(dataset, Subset):
        inner = listed(dataset.dataset)
        return None if inner is None else inner[np.asarray(dataset.indices, dtype=np.int64)]
    if isinstance(dataset, ConcatDataset):
        parts = [listed(part) for part in dataset.datasets]
        return None if any(part is None for part in parts) else np.concatenate([p for p in parts if p is not None])
    values = getattr(dataset, "targets", None)
    if not isinstance(values, (Sequence, np.ndarray, Tensor)) or isinstance(values, str):
        return None
    found = values.cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)
    if found.ndim != 1 or found.dtype.kind not in "iu" or len(found) != len(dataset):
        return None
    return found.astype(np.int64)


def integer(value: Any) -> bool:
    """Tell whether a value is a class index: an integer, NumPy's or a tensor's among them, but no boolean."""
    if isinstance(value, Tensor):
        return value.dim() == 0 and not value.is_floating_point() and not value.is_complex()
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def _shape(item: Any) -> str:
    """Name the types in an item."""
    inner = ", ".join(type(part).__name__ for part in item) if isinstance(item, (tuple, list)) else ""
    return f"{type(item).__name__}({inner})" if inner else type(item).__name__
