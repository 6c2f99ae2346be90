"""Rows of the arrays that datasets keep in memory, hashed many at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import ConcatDataset, Subset, TensorDataset

from lightning_inf.data.correct import Corrected
from lightning_inf.data.identity import VIEWS

#: What the rows of a dataset's arrays look like: the type and shape of each. Only rows of one form can be copies.
Form = tuple[tuple[str, tuple[int, ...]], ...]

_Array = torch.Tensor | np.ndarray
_BYTES = 8 << 20


def located(
    dataset: Any, indices: np.ndarray, places: np.ndarray | None = None
) -> Iterator[tuple[Any, np.ndarray, np.ndarray]]:
    """Follow many indices at once as :func:`~lightning_inf.data.identity.locate` follows one.

    Args:
        dataset: The dataset that the indices count in.
        indices: Shape ``(m,)``.
        places: What else goes with them; default: their positions.

    Yields:
        A dataset, positions in it, and the places that go with them.

    Example:
        >>> parts = ConcatDataset([TensorDataset(torch.zeros(2, 1)), TensorDataset(torch.zeros(3, 1))])
        >>> [(len(owner), at.tolist(), places.tolist()) for owner, at, places in located(parts, np.array([4, 0, 2]))]
        [(2, [0], [1]), (3, [2, 0], [0, 2])]
    """
    places = np.arange(len(indices)) if places is None else places
    while isinstance(dataset, (*VIEWS, Corrected, Subset)):
        if isinstance(dataset, Corrected):
            indices = dataset.positions[indices]
        elif isinstance(dataset, Subset):
            indices = np.asarray(dataset.indices)[indices]
        dataset = dataset.dataset
    if not isinstance(dataset, ConcatDataset):
        yield dataset, indices, places
        return
    ends = np.asarray(dataset.cumulative_sizes)
    part = np.searchsorted(ends, indices, side="right")
    for number in np.unique(part).tolist():
        mine = part == number
        yield from located(dataset.datasets[number], indices[mine] - (ends[number - 1] if number else 0), places[mine])


def kept(owner: Any) -> list[_Array]:
    """Find the arrays whose rows are the inputs of a dataset's items: ``data``, or the tensors of a TensorDataset."""
    found = list(owner.tensors) if type(owner) is TensorDataset else [getattr(owner, "data", None)]
    return [array for array in found if isinstance(array, _Array) and array.ndim > 1 and len(array) == len(owner)]


def form(dataset: Any, indices: Sequence[int] | np.ndarray) -> Form | None:
    """Tell what the rows of some samples look like; None where they are not all rows of arrays of one form."""
    owners = [owner for owner, _, _ in located(dataset, np.asarray(indices, dtype=np.int64))]
    found = {
        tuple((str(array.dtype).removeprefix("torch."), tuple(array.shape[1:])) for array in kept(o)) for o in owners
    }
    return found.pop() or None if len(found) == 1 else None


def keys(dataset: Any, indices: np.ndarray, shape: Form) -> np.ndarray:
    r"""Hash the rows of samples, :math:`h = \sum_j r_j w_j \bmod 2^{64}` over a row's 64-bit words and odd random numbers.

    Rows that differ in one word never share a key; others do by chance, about once in :math:`2^{63}` pairs.

    Args:
        dataset: Whose rows are of one form.
        indices: Shape ``(m,)``.
        shape: The form.

    Returns:
        Unsigned 64-bit numbers, shape ``(m,)``.
    """
    found = np.zeros(len(indices), dtype=np.uint64)
    for owner, positions, places in located(dataset, np.asarray(indices, dtype=np.int64)):
        for number, array in enumerate(kept(owner)):
            size = max(int(np.prod(array.shape[1:])) * array.itemsize, 1)
            factors = np.random.default_rng((number, len(shape))).integers(
                0, 2**64, -(-size // 8), np.uint64
            ) | np.uint64(1)
            each = max(_BYTES // size, 1)
            for start in range(0, len(positions), each):
                part = slice(start, start + each)
                found[places[part]] += _words(array, positions[part], size) @ factors
    return found


def _words(array: _Array, positions: np.ndarray, size: int) -> np.ndarray:
    """Read rows as 64-bit words, filled up with zeros; shape ``(rows, words)``."""
    if isinstance(array, torch.Tensor):
        rows = array.detach()[torch.from_numpy(positions)].cpu().contiguous().reshape(len(positions), -1)
        read = rows.view(torch.uint8).numpy()
    else:
        read = np.ascontiguousarray(array[positions]).reshape(len(positions), -1).view(np.uint8)
    if size % 8:
        read = np.pad(read, ((0, 0), (0, 8 - size % 8)))
    return np.ascontiguousarray(read).view(np.uint64)
