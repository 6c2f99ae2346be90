"""What samples hold, as short hashes: two samples with one hash are copies of each other."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from numbers import Number
from typing import Any, Literal

import numpy as np
import torch
from lightning.pytorch.utilities.seed import isolate_rng
from torch.utils.data import Dataset

from lightning_inf.data.identity import hash_value, locate
from lightning_inf.data.repeatable import Repeatable
from lightning_inf.data.rows import Form, form, kept, keys

#: Seconds that may be spent on reading one data set's samples: a hunt for copies must not cost another epoch.
LIMIT = 20.0
#: Rows of arrays that are hashed between two looks at the clock.
_TOGETHER = 65_536
#: What is read: arrays that the dataset keeps in memory, the files it lists, or its items.
Source = Literal["arrays", "files", "items"]
#: Fields of a mapping that are no input.
_TARGETS = frozenset({"label", "labels", "target", "targets", "y"})
_ARRAYS = (torch.Tensor, np.ndarray)


@dataclass(frozen=True)
class Contents:
    """Hashes of samples.

    Attributes:
        index: The samples that were read, in the order of reading, shape ``(m,)``.
        keys: Their hashes, unsigned 64-bit numbers, shape ``(m,)``: of ten million samples two get one by chance with a
            probability of a few in a million.
        source: What was read; None where nothing could be compared.
        asked: How many samples were to be read.
        reason: Why not all of them were read.
    """

    index: np.ndarray
    keys: np.ndarray
    source: Source | None
    asked: int
    reason: str | None = None

    def __getitem__(self, index: int) -> int:
        """Return the hash of a sample.

        Raises:
            KeyError: If it was not read.
        """
        place = np.flatnonzero(self.index == index)
        if not len(place):
            raise KeyError(index)
        return int(self.keys[place[0]])


#: A dataset, and which of its samples are asked.
Asked = tuple[Dataset[Any], Sequence[int] | np.ndarray]


def contents(*asked: Asked) -> list[Contents]:
    """Hash the inputs of samples of one or several data sets, without their labels, so that they can be compared.

    What lies below the user's transforms is read where it can be: rows of the tensors of a TensorDataset or of the array
    ``data`` that torchvision's datasets keep, or the files that an image folder lists. Of files, only those are opened that
    have another's size. Elsewhere items are fetched; single numbers in an item are taken for labels and indices, and left
    out.

    Args:
        *asked: Map-style datasets, which may be views, Subset and ConcatDataset, each with the indices of its samples.

    Returns:
        The hashes of each, of as many samples as could be read in :data:`LIMIT` seconds.

    Example:
        >>> from torch.utils.data import TensorDataset
        >>> data = TensorDataset(torch.tensor([[1.0, 2.0], [3.0, 4.0], [1.0, 2.0]]), torch.tensor([0, 1, 1]))
        >>> (found,) = contents((data, range(3)))
        >>> found[0] == found[2], found[0] == found[1]
        (True, False)
    """
    sources = {best_source(dataset, indices) for dataset, indices in asked if len(indices)}
    source = sources.pop() if len(sources) == 1 else "items"
    if source == "files":
        return _files(asked)
    forms = {form(dataset, indices) for dataset, indices in asked if len(indices)} if source == "arrays" else set()
    if len(forms) == 1 and (shape := forms.pop()) is not None:
        return [_rows(dataset, indices, shape) for dataset, indices in asked]
    # Arrays of unlike form may still give the same items, and are only comparable as such.
    if any(isinstance(dataset, Repeatable) for dataset, _ in asked):
        why = "items are changed at random when they are fetched, so copies do not look alike"
        return [_contents([], [], None, len(indices), why) for _, indices in asked]
    with isolate_rng(include_cuda=False):
        return [_timed(partial(_item, dataset), indices, "items") for dataset, indices in asked]


def best_source(dataset: Any, indices: Sequence[int] | np.ndarray) -> Source:
    """Name what lies below the user's transforms: arrays in memory, files on disk, or nothing that can be told."""
    probed = [locate(dataset, int(index)) for index in (indices[0], indices[-1])]
    if all(kept(owner) for owner, _ in probed):
        return "arrays"
    return "files" if all(_path(owner, position) is not None for owner, position in probed) else "items"


def _contents(
    index: Sequence[int] | np.ndarray,
    keys: Sequence[int] | np.ndarray,
    source: Source | None,
    asked: int,
    reason: str | None = None,
) -> Contents:
    return Contents(np.asarray(index, dtype=np.int64), np.asarray(keys, dtype=np.uint64), source, asked, reason)


def _timed(read: Callable[[int], int], indices: Sequence[int] | np.ndarray, source: Source) -> Contents:
    """Read samples in order until the time is up."""
    keys = np.empty(len(indices), dtype=np.uint64)
    started = time.perf_counter()
    for place, index in enumerate(indices):
        if time.perf_counter() - started > LIMIT:
            why = f"only the first {place:,} could be read in {LIMIT:.0f} s"
            return _contents(indices[:place], keys[:place], source, len(indices), why)
        keys[place] = read(int(index))
    return _contents(indices, keys, source, len(indices))


def _rows(dataset: Any, indices: Sequence[int] | np.ndarray, shape: Form) -> Contents:
    """Hash rows of arrays, some thousands at once, until the time is up."""
    index = np.asarray(indices, dtype=np.int64)
    parts = [np.empty(0, dtype=np.uint64)]
    started = time.perf_counter()
    for start in range(0, len(index), _TOGETHER):
        if time.perf_counter() - started > LIMIT:
            why = f"only the first {start:,} could be read in {LIMIT:.0f} s"
            return _contents(index[:start], np.concatenate(parts), "arrays", len(index), why)
        parts.append(keys(dataset, index[start : start + _TOGETHER], shape))
    return _contents(index, np.concatenate(parts), "arrays", len(index))


def _item(dataset: Any, index: int) -> int:
    return _hashed(inputs_of(dataset[index]))


def inputs_of(item: Any) -> Any:
    """Take the inputs out of an item: all but its label and other single numbers.

    Example:
        >>> inputs_of((torch.zeros(2), 3))
        [tensor([0., 0.])]
        >>> inputs_of({"text": "to be", "label": 1})
        [('text', 'to be')]
    """
    if isinstance(item, Mapping):
        parts = [(name, value) for name, value in item.items() if name not in _TARGETS and not _single(value)]
        arrays = [(name, value) for name, value in parts if isinstance(value, _ARRAYS)]
        return arrays or parts or item  # beside arrays, strings are names and paths
    if isinstance(item, (list, tuple)):
        return [part for part in item if not _single(part)] or item[0]
    return item


def _single(value: Any) -> bool:
    return isinstance(value, Number) or (isinstance(value, _ARRAYS) and value.ndim == 0)


def _hashed(value: Any) -> int:
    sha = hashlib.blake2b(digest_size=8)
    hash_value(sha, value)
    return _number(sha)


def _number(sha: Any) -> int:
    return int.from_bytes(sha.digest(), "little")


def _path(owner: Any, position: int) -> str | None:
    """Find the file of a sample of an image folder."""
    samples = getattr(owner, "samples", None)
    if not isinstance(samples, (list, tuple)) or position >= len(samples):
        return None
    entry = samples[position]
    path = entry[0] if isinstance(entry, (list, tuple)) and entry else entry
    return os.fspath(path) if isinstance(path, (str, os.PathLike)) and os.path.isfile(path) else None


def _files(asked: Sequence[Asked]) -> list[Contents]:
    """Hash files; a size that no other file has is hash enough."""
    paths = [[_path(*locate(dataset, int(index))) for index in indices] for dataset, indices in asked]
    sizes = [np.array([os.path.getsize(path) if path else -1 for path in side], dtype=np.int64) for side in paths]
    values, counts = np.unique(np.concatenate(sizes), return_counts=True)
    found = []
    for (_, indices), side, own in zip(asked, paths, sizes, strict=True):
        index = np.array(indices, dtype=np.int64)
        shared = np.isin(own, values[counts > 1]) & (own >= 0)
        keys = own.astype(np.uint64)  # of no other file: its size is as good as a hash
        read = _timed(partial(_file, side), np.flatnonzero(shared).tolist(), "files")
        keys[read.index] = read.keys
        known = (own >= 0) & ~shared
        known[read.index] = True
        reason = read.reason and f"{int((~known).sum()):,} files could not be read in {LIMIT:.0f} s"
        found.append(Contents(index[known], keys[known], "files", len(index), reason))
    return found


def _file(paths: Sequence[str | None], place: int) -> int:
    sha = hashlib.blake2b(digest_size=8)
    with open(paths[place] or "", "rb") as stream:  # only those that are there are asked
        while block := stream.read(1 << 20):
            sha.update(block)
    return _number(sha)
