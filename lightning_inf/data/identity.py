"""What a sample is called, what its classes are called, and which data set this is."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningModule, Trainer
from torch.utils.data import ConcatDataset, Dataset, Subset, TensorDataset

from lightning_inf.data.corrected import Corrected, corrected
from lightning_inf.data.relabelled import Relabelled
from lightning_inf.data.repeatable import Repeatable
from lightning_inf.randomness import isolated_rng, seed_all

_PROBED = 64
#: Bytes that are copied at once where an array does not lie in memory as it is hashed.
_BLOCK = 1 << 20
#: What to change where an argument names an attribute that is nowhere.
_REMEDIES = {
    "known_issues": "Give indices, or name an attribute that holds indices or one boolean a sample.",
    "groups": "Give one value a sample, name an attribute that holds them, or `label` for classes.",
}
#: Datasets of ours that show another dataset under the same indices.
VIEWS = (Repeatable, Relabelled)


def sample_id(dataset: Dataset[Any], index: int) -> str:
    """Name a sample: the path of an ImageFolder item, through Subset and ConcatDataset; else its index.

    Of a corrected dataset it is the name in the dataset that was reviewed, whatever was dropped since.

    Args:
        dataset: The dataset that ``index`` counts in.
        index: Position of the sample.

    Returns:
        The name, relative to the image folder's root.
    """
    while (view := corrected(dataset)) is not None:  # what was dropped moves no name
        dataset, index = view.dataset, int(view.positions[index])
    owner, position = locate(dataset, index)
    samples = getattr(owner, "samples", None)
    if isinstance(samples, (list, tuple)) and position < len(samples):
        entry = samples[position]
        path = entry[0] if isinstance(entry, (list, tuple)) and entry else entry
        if isinstance(path, (str, os.PathLike)):
            root = getattr(owner, "root", None)
            return os.path.relpath(path, root) if isinstance(root, (str, os.PathLike)) else os.fspath(path)
    return str(index)


def locate(dataset: Any, index: int) -> tuple[Any, int]:
    """Follow an index through views, Subset and ConcatDataset to the dataset that holds the item."""
    while True:
        if isinstance(dataset, VIEWS):
            dataset = dataset.dataset
        elif isinstance(dataset, Corrected):
            dataset, index = dataset.dataset, int(dataset.positions[index])
        elif isinstance(dataset, Subset):
            dataset, index = dataset.dataset, int(dataset.indices[index])
        elif isinstance(dataset, ConcatDataset):
            part = int(np.searchsorted(dataset.cumulative_sizes, index, side="right"))
            index -= dataset.cumulative_sizes[part - 1] if part else 0
            dataset = dataset.datasets[part]
        else:
            return dataset, index


@dataclass(frozen=True)
class Namer:
    """Names training samples.

    Attributes:
        name: Names the sample with an index.
        numbers: Whether each is called by its index, so that nobody need be asked.
    """

    name: Callable[[int], Any]
    numbers: bool = False

    def __call__(self, index: int) -> str:
        """Name a sample."""
        return str(self.name(index))


def namer(trainer: Trainer, module: LightningModule, dataset: Dataset[Any]) -> Namer:
    """Return what names training samples: the hook ``influence_id(index)``, else :func:`sample_id`."""
    for owner in (getattr(trainer, "datamodule", None), module):
        hook = getattr(owner, "influence_id", None)
        if callable(hook):
            return Namer(hook)
    return Namer(lambda index: sample_id(dataset, index), numbers=not _lists_samples(dataset))


def _lists_samples(dataset: Any) -> bool:
    """Tell whether a dataset, or one inside of it, lists its samples, maybe by path."""
    while isinstance(dataset, (*VIEWS, Subset)):
        dataset = dataset.dataset
    if isinstance(dataset, ConcatDataset):
        return any(_lists_samples(part) for part in dataset.datasets)
    return isinstance(getattr(dataset, "samples", None), (list, tuple))


def class_names(trainer: Trainer, module: LightningModule, dataset: Dataset[Any]) -> list[str] | None:
    """Find names of the classes: ``class_names`` on datamodule or module, else ``classes`` of the dataset."""
    for owner in (getattr(trainer, "datamodule", None), module):
        names = getattr(owner, "class_names", None)
        if isinstance(names, (list, tuple)):
            return [str(name) for name in names]
    names = getattr(locate(dataset, 0)[0], "classes", None)
    return [str(name) for name in names] if isinstance(names, (list, tuple)) else None


def fingerprint(dataset: Dataset[Any]) -> str:
    """Hash what tells a data set from another: its length, its labels and paths where it lists them, and 64 items.

    Tensor datasets are hashed whole. A change in an item that is neither listed nor among the 64 goes unnoticed: the
    whole of a data set can't be read twice before every run.
    """
    sha = hashlib.sha256(str(len(dataset)).encode())  # type: ignore[arg-type]
    _hash_listing(sha, dataset)
    count = len(dataset)  # type: ignore[arg-type]
    with isolated_rng(include_cuda=False):
        seed_all(0)
        for index in probed(count):
            hash_value(sha, dataset[index])
    return sha.hexdigest()[:24]


def probed(samples: int) -> list[int]:
    """Choose the items that stand for a dataset: the first, the last and evenly spaced ones, 64 or all."""
    if samples <= _PROBED:
        return list(range(samples))
    return [round(i * (samples - 1) / (_PROBED - 1)) for i in range(_PROBED)]


def _hash_listing(sha: Any, dataset: Any) -> None:
    """Hash the parts of a dataset that list every sample."""
    if isinstance(dataset, Repeatable):
        sha.update(f"repeatable{dataset.seed}".encode())
        _hash_listing(sha, dataset.dataset)
    elif isinstance(dataset, Relabelled):
        sha.update(f"relabelled{sorted(dataset.labels.items())}".encode())
        _hash_listing(sha, dataset.dataset)
    elif isinstance(dataset, Corrected):
        labels = sorted((index, decision.new_label) for index, decision in dataset.relabelled.items())
        sha.update(f"corrected{labels}".encode())
        hash_value(sha, dataset.positions)
        _hash_listing(sha, dataset.dataset)
    elif isinstance(dataset, Subset):
        hash_value(sha, np.asarray(dataset.indices))
        _hash_listing(sha, dataset.dataset)
    elif isinstance(dataset, ConcatDataset):
        for part in dataset.datasets:
            _hash_listing(sha, part)
    elif isinstance(dataset, TensorDataset):
        for tensor in dataset.tensors:
            hash_value(sha, tensor)
    else:
        for name in ("targets", "labels", "imgs", "samples"):
            value = getattr(dataset, name, None)
            if isinstance(value, (list, tuple, np.ndarray, torch.Tensor)):
                hash_value(sha, value)


def hash_value(sha: Any, value: Any) -> None:
    """Feed an item's contents to a hash, through containers, tensors, arrays and images."""
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu().numpy()
    if isinstance(value, np.ndarray):
        sha.update(_form(value.shape, value.dtype))
        if value.dtype == object:
            sha.update(repr(value).encode())
        else:
            _hash_array(sha, value)
    elif isinstance(value, dict):
        for key in value:
            sha.update(str(key).encode())
            hash_value(sha, value[key])
    elif isinstance(value, (list, tuple)):
        for item in value:
            hash_value(sha, item)
    elif hasattr(value, "tobytes"):
        sha.update(value.tobytes())
    elif isinstance(value, (str, bytes, int, float, bool, type(None))):
        sha.update(repr(value).encode())
    elif hasattr(value, "__dict__"):
        hash_value(sha, vars(value))


@lru_cache(maxsize=256)
def _form(shape: tuple[int, ...], dtype: np.dtype) -> bytes:
    """Name shape and type; the items of a dataset are of a few, and to spell one takes as long as to hash a picture."""
    return f"{shape}{dtype}".encode()


def _hash_array(sha: Any, array: np.ndarray) -> None:
    """Feed an array's bytes to a hash, in row-major order, without a copy of the whole: it may be mapped from disk."""
    if array.flags.c_contiguous and not array.dtype.hasobject:
        sha.update(array.reshape(-1).view(np.uint8))
        return
    rows = max(_BLOCK // max(array[:1].nbytes, 1), 1)
    for start in range(0, len(array), rows):
        sha.update(np.ascontiguousarray(array[start : start + rows]).tobytes())


def known_indices(known: Sequence[int] | str, dataset: Any, samples: int) -> np.ndarray:
    """Turn the user's ``known_issues`` into a boolean array of shape ``(samples,)``.

    Args:
        known: Indices of the samples with a wrong label, or the name of an attribute of the dataset that holds them
            (indices, or one boolean a sample). Looked for through Subset.
        dataset: The training dataset.
        samples: Its length.

    Raises:
        ValueError: If the attribute is missing, or an index is out of range.
    """
    if isinstance(known, str):
        values, subset = attribute(dataset, known, "known_issues")
    else:
        values, subset = known, None
    values = np.asarray(values.cpu() if isinstance(values, torch.Tensor) else values)
    if values.dtype == bool:
        values = values[subset] if subset is not None else values
        if len(values) != samples:
            raise ValueError(f"known_issues: expected one boolean for each of {samples} samples, found {len(values)}")
        return values
    mask = np.zeros(samples, dtype=bool)
    if values.size and (values.dtype.kind not in "iu" or len(np.unique(values)) != values.size):
        raise ValueError(
            f"known_issues: expected distinct integer indices or one boolean a sample, found {values.dtype} values such as"
            f" {values.ravel()[:3].tolist()}; turn a mask of zeros and ones into booleans"
        )
    indices = values.astype(np.int64).ravel()
    if subset is not None:
        indices = np.flatnonzero(np.isin(subset, indices))
    if len(indices) and (indices.min() < 0 or indices.max() >= samples):
        raise ValueError(
            f"known_issues: expected indices in [0, {samples}), found {indices.min()}..{indices.max()}; an index is a"
            " position in the training dataset"
        )
    mask[indices] = True
    return mask


def attribute(dataset: Any, name: str, argument: str) -> tuple[Any, np.ndarray | None]:
    """Find an attribute on a dataset or inside its Subsets.

    Args:
        dataset: The training dataset.
        name: Of the attribute.
        argument: Which argument of the user's names it, for errors.

    Returns:
        The attribute, and the outermost positions in the dataset that has it; None where they are all of them in order.

    Raises:
        ValueError: If there is no such attribute, or what it says of labels may not hold after they were corrected.
    """
    positions: np.ndarray | None = None
    seen = []
    while True:
        seen.append(type(dataset).__name__)
        if isinstance(dataset, Corrected):
            if dataset.relabelled and argument == "known_issues":
                raise ValueError(
                    f"known_issues={name!r}: {len(dataset.relabelled):,} labels of the training dataset were corrected by"
                    f" {dataset.decisions.path}, and what was known of them before may not hold now. Give the indices in the"
                    " corrected dataset whose labels are still wrong, or leave known_issues out."
                )
            positions = dataset.positions if positions is None else dataset.positions[positions]
            dataset = dataset.dataset
            continue
        if not isinstance(dataset, VIEWS) and hasattr(dataset, name):
            return getattr(dataset, name), positions
        if isinstance(dataset, VIEWS):
            dataset = dataset.dataset
        elif isinstance(dataset, Subset):
            inner = np.asarray(dataset.indices)
            positions = inner if positions is None else inner[positions]
            dataset = dataset.dataset
        else:
            raise ValueError(
                f"{argument}={name!r}: expected an attribute of the training dataset, found none on {' > '.join(seen)}."
                f" {_REMEDIES[argument]}"
            )
