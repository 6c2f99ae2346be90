"""Random items made the same at every fetch."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from lightning_inf.randomness import isolated_rng, seed_all


class Repeatable(Dataset[Any]):
    """A view of a dataset in which every fetch is seeded by ``(seed, index)``, for torch, ``random`` and NumPy.

    Args:
        dataset: A map-style dataset with random items.
        seed: The run's seed.

    Example:
        >>> class Noise(Dataset):
        ...     def __len__(self): return 2
        ...     def __getitem__(self, index): return torch.rand(())
        >>> view = Repeatable(Noise(), seed=1)
        >>> bool(view[0] == view[0]), bool(view[0] == view[1])
        (True, False)
    """

    def __init__(self, dataset: Dataset[Any], seed: int) -> None:
        self.dataset = dataset
        self.seed = seed

    def __len__(self) -> int:
        return len(self.dataset)  # type: ignore[arg-type]

    def __getitem__(self, index: int) -> Any:
        with isolated_rng(include_cuda=False):
            seed_all(np.random.SeedSequence((self.seed, index)).generate_state(1)[0])
            return self.dataset[index]

    def __getattr__(self, name: str) -> Any:
        # `targets`, `samples` and `classes` of the user's dataset stay readable; dunders are looked up for copying.
        if name.startswith("__") or name == "dataset":
            raise AttributeError(name)
        return getattr(self.dataset, name)


def vary(dataset: Dataset[Any], samples: int, tries: int = 3) -> bool:
    """Tell whether a few items, fetched twice under different seeds, differ."""
    with isolated_rng(include_cuda=False):
        for index in {0, samples // 2, samples - 1} if samples >= tries else range(samples):
            views = []
            for seed in (11, 97):
                seed_all(seed)
                views.append(dataset[index])
            if not same(*views):
                return True
    return False


def same(left: Any, right: Any) -> bool:
    """Compare two items of a dataset, through containers, tensors, arrays and images."""
    if type(left) is not type(right):
        return False
    if isinstance(left, Tensor):
        return (
            left.shape == right.shape
            and left.dtype == right.dtype
            and torch.allclose(left, right, rtol=0, atol=0, equal_nan=left.is_floating_point())
        )
    if isinstance(left, np.ndarray):
        return left.tobytes() == right.tobytes()
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(same(left[key], right[key]) for key in left)
    if isinstance(left, (list, tuple)):
        return len(left) == len(right) and all(map(same, left, right))
    if hasattr(left, "tobytes"):
        return left.tobytes() == right.tobytes()
    if hasattr(left, "__dict__"):
        return same(vars(left), vars(right))
    return bool(left == right) or left != left
