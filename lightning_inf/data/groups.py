"""What training samples belong to: a source, a labeller, a file."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningModule, Trainer
from torch.utils.data import Dataset

from lightning_inf.data.identity import attribute

#: The word for ``groups=`` that makes a group of each class.
LABEL = "label"


@dataclass(frozen=True)
class Groups:
    """A partition of the training samples.

    Attributes:
        names: Of G groups, in order; numbers in the order of numbers.
        codes: Position of each sample's group among them, -1 where it has none; int32, shape ``(samples,)``.
        source: Where they come from, for the report.
    """

    names: list[str]
    codes: np.ndarray
    source: str

    @classmethod
    def of(cls, values: Iterable[Any], samples: int, source: str) -> Groups:
        """Make groups of one value a sample; None and NaN are no group.

        Args:
            values: In dataset order.
            samples: How many there are.
            source: Where they come from.

        Example:
            >>> groups = Groups.of(["b", "a", None, "b"], 4, "groups=")
            >>> groups.names, groups.codes.tolist()
            (['a', 'b'], [1, 0, -1, 1])
        """
        known: dict[str, int] = {}
        found = np.fromiter(
            (-1 if _nothing(value) else known.setdefault(str(value), len(known)) for value in values),
            dtype=np.int32,
            count=samples,
        )
        names = sorted(known, key=_natural)
        place = np.empty(len(names) + 1, dtype=np.int32)
        place[[known[name] for name in names]] = np.arange(len(names))
        place[-1] = -1  # a code of -1 reads the last place
        return cls(names, place[found], source)


def given_groups(given: Sequence[Any] | str, dataset: Dataset[Any], samples: int) -> Groups | None:
    """Read what the user says of groups.

    Args:
        given: One value a sample, the name of an attribute of the dataset that holds them, or ``label``.
        dataset: The training dataset.
        samples: Its length.

    Returns:
        The groups; None for ``label``, which only the model's step can tell.

    Raises:
        ValueError: If there is no such attribute, or not one value a sample.
    """
    if isinstance(given, str) and given == LABEL:
        return None
    values: Any = given
    if isinstance(given, str):
        values, positions = attribute(dataset, given, "groups")
        values = values.cpu().numpy() if isinstance(values, torch.Tensor) else values
        values = values if positions is None else [values[int(position)] for position in positions]
    if len(values) != samples:
        raise ValueError(
            f"groups=: expected one value for each of {samples:,} training samples, found {len(values):,}."
        )
    return Groups.of(values, samples, f"groups={given!r}" if isinstance(given, str) else "groups=")


def asked_groups(trainer: Trainer, module: LightningModule, samples: int) -> Groups | None:
    """Ask the hook ``influence_group(index)`` of datamodule or module; None where there is none."""
    for owner in (getattr(trainer, "datamodule", None), module):
        hook = getattr(owner, "influence_group", None)
        if callable(hook):
            return Groups.of(map(hook, range(samples)), samples, "influence_group()")
    return None


def _nothing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and value != value)


def _natural(name: str) -> tuple[bool, int, str]:
    """Order numbers by their value and before words."""
    number = name.lstrip("-").isdecimal()
    return not number, int(name) if number else 0, name
