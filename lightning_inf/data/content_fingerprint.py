"""Which samples a dataset holds, whatever view of them it is: what decisions about samples are kept by."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import ConcatDataset, Dataset, Subset, TensorDataset

from lightning_inf.data.corrected import Corrected
from lightning_inf.data.differences import UNLISTED, VARYING
from lightning_inf.data.identity import hash_value, probed
from lightning_inf.data.relabelled import Relabelled
from lightning_inf.data.repeatable import Repeatable, vary


def content_fingerprint(dataset: Dataset[Any]) -> str:
    """Name the samples of a dataset, in their order: ``<number>-<hash of labels and paths>-<hash of 64 items>``.

    It covers the number of samples; every label and path that the dataset lists (``targets``, ``labels``, ``samples``,
    ``imgs``, the tensors of a TensorDataset), through Subset, ConcatDataset and corrections; and 64 items, evenly spaced,
    as they are fetched under a fixed seed. Paths count from the dataset's ``root``, so that a copy elsewhere is the same
    data. What is planted for a run doesn't count. A change in an item that is neither listed nor among the 64 goes
    unnoticed.

    Args:
        dataset: A map-style dataset.

    Returns:
        The name. The second part is ``unlisted`` where nothing is listed, the third ``varying`` where items differ at
        every fetch even under a fixed seed.

    Example:
        >>> data = TensorDataset(torch.zeros(3, 2), torch.tensor([0, 1, 1]))
        >>> content_fingerprint(data).split("-")[0]
        '3'
        >>> content_fingerprint(data) == content_fingerprint(Subset(data, [0, 1]))
        False
    """
    while isinstance(dataset, (Repeatable, Relabelled)):
        dataset = dataset.dataset
    count = len(dataset)  # type: ignore[arg-type]
    listing = hashlib.sha256()
    listed = _listing(listing.update, dataset)
    return f"{count}-{listing.hexdigest()[:12] if listed else UNLISTED}-{_items(dataset, count)}"


def _items(dataset: Any, count: int) -> str:
    """Hash items under a fixed seed each."""
    view = Repeatable(dataset, 0)
    if count == 0 or vary(view, count):
        return VARYING
    sha = hashlib.sha256()
    for index in probed(count):
        hash_value(sha, view[index])
    return sha.hexdigest()[:12]


def _listing(update: Callable[[bytes], None], dataset: Any) -> bool:
    """Hash what lists every sample; say whether there is any such thing."""
    if isinstance(dataset, Corrected):
        labels = sorted((index, decision.new_label) for index, decision in dataset.relabelled.items())
        update(f"corrected{labels}{dataset.positions.tolist()}".encode())
        return _listing(update, dataset.dataset)
    if isinstance(dataset, (Repeatable, Relabelled)):
        return _listing(update, dataset.dataset)
    if isinstance(dataset, Subset):
        update(np.asarray(dataset.indices, dtype=np.int64).tobytes())
        return _listing(update, dataset.dataset)
    if isinstance(dataset, ConcatDataset):
        return all([_listing(update, part) for part in dataset.datasets])  # noqa: C419 - each has to be hashed
    if isinstance(dataset, TensorDataset):
        for tensor in dataset.tensors:
            update(_bytes(tensor))
        return True
    root = getattr(dataset, "root", None)
    prefix = os.path.join(os.fspath(root), "") if isinstance(root, (str, os.PathLike)) else ""
    found = False
    for name in ("targets", "labels", "samples", "imgs"):
        value = getattr(dataset, name, None)
        if isinstance(value, (list, tuple, np.ndarray, Tensor)) and len(value) == len(dataset):
            update(name.encode() + _bytes(value, prefix))
            found = True
    return found


def _bytes(value: Any, prefix: str = "") -> bytes:
    """Turn a list of labels or paths into bytes that are the same for a list, an array and a tensor of integers."""
    if isinstance(value, Tensor):
        value = value.detach().cpu()
        value = value.float().numpy() if value.dtype == torch.bfloat16 else value.numpy()
    array = value if isinstance(value, np.ndarray) else None
    if array is None and all(type(entry) is int for entry in value):
        array = np.asarray(value)
    if array is not None and array.dtype != object:
        array = array.astype(np.int64) if array.dtype.kind in "iu" else array
        return f"{array.shape}{array.dtype}".encode() + np.ascontiguousarray(array).tobytes()
    return "\n".join(_entry(entry, prefix) for entry in value).encode("utf-8", "surrogatepass")


def _entry(entry: Any, prefix: str) -> str:
    if isinstance(entry, (tuple, list)):
        return "\t".join(_entry(part, prefix) for part in entry)
    if isinstance(entry, (str, os.PathLike)):
        return os.fspath(entry).removeprefix(prefix).replace(os.sep, "/")
    return repr(entry.item() if isinstance(entry, (Tensor, np.generic)) else entry)
