"""Which samples a training batch held, from the batch sampler of the train loader."""

from __future__ import annotations

import itertools
import operator
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from lightning.pytorch import Trainer
from torch.utils.data import DataLoader, IterableDataset

from lightning_inf.recording.off import NotRecordable
from lightning_inf.recording.patch import Patch


class Stream:
    """An iterator over a batch sampler that remembers what it gave out until the batch comes back.

    A loader with workers asks ahead of what it yields, but yields in the order in which it asked: a queue does it.
    Each iterator over a loader has its own queue, so what one epoch left over (``limit_train_batches``) or what the
    user draws from the loader on the side can't shift another.

    Example:
        >>> stream = Stream(iter([[4, 0], [2]]))
        >>> _ = next(stream), next(stream)  # asked ahead
        >>> stream.pop(), stream.pop(), stream.pop()
        ([4, 0], [2], None)
    """

    def __init__(self, source: Iterator[Any]) -> None:
        self._source = source
        self._pending: deque[Any] = deque()

    def __iter__(self) -> Stream:
        return self

    def __next__(self) -> Any:
        batch = next(self._source)
        # A copy: a sampler may reuse its list.
        self._pending.append(list(batch) if isinstance(batch, (list, tuple)) else batch)
        return batch

    def pop(self) -> Any:
        """Return what the sampler gave for the oldest batch that is under way; None if there is none."""
        return self._pending.popleft() if self._pending else None


class Indices:
    """Records the sample indices of training batches while attached.

    Lightning hands every loader to ``strategy.process_dataloader`` after it has put in its own samplers; those that
    pass there while the Trainer is in its training stage are train loaders. A batch sampler's class is swapped for a
    subclass of it with another ``__iter__`` (a ``DataLoader`` refuses a new ``batch_sampler``); its order, its
    attributes and ``isinstance`` stay as they were. :meth:`detach` puts everything back.

    An index is a position in the loader's dataset, also under ``overfit_batches`` and for a ``Subset``.

    Attributes:
        samples: The number of samples in the training dataset; None before a train loader was seen.
    """

    def __init__(self) -> None:
        self.samples: int | None = None
        self._trainer: Trainer | None = None
        self._patch: Patch | None = None
        self._loader: DataLoader[Any] | None = None
        self._swapped: tuple[Any, type] | None = None
        self._reason: str | None = None

    def attach(self, trainer: Trainer) -> None:
        """Begin, in ``on_fit_start``: later, the first epoch's iterator exists already."""
        self.detach()
        self._trainer = trainer
        self._patch = Patch(trainer.strategy, "process_dataloader")
        self._patch.put(self._process)
        # The learning rate finder leaves loaders behind, which Lightning takes over as they are. Their first iterator
        # exists; it is recognised as not ours by `pop`.
        combined = getattr(trainer.fit_loop, "_combined_loader", None)
        for loader in getattr(combined, "flattened", ()):
            self._watch(loader)

    def detach(self) -> None:
        """Put the strategy's method and the sampler's class back. May be called at any time, and twice."""
        if self._patch is not None:
            self._patch.undo()
        self._restore()
        self._trainer = self._patch = self._loader = self._reason = None

    def pop(self) -> Sequence[Any] | None:
        """Return the indices of the batch that the Trainer is about to train on.

        Returns:
            What the batch sampler gave for it, as it is (see :func:`as_array`); None where the batch comes from an
            iterator that is older than :meth:`attach`.

        Raises:
            NotRecordable: If the loader can't say which samples a batch holds.
        """
        if self._reason is not None:
            raise NotRecordable(self._reason)
        stream = self._stream()
        if stream is None:
            return None
        batch = stream.pop()
        if batch is None:
            raise NotRecordable("the train loader yielded a batch that its batch sampler had not asked for")
        if not hasattr(batch, "__len__"):
            raise NotRecordable(f"the batch sampler yields {type(batch).__name__}s, not lists of indices")
        return batch

    def _process(self, loader: object) -> object:
        """Stand in for ``strategy.process_dataloader``."""
        assert self._patch is not None
        loader = self._patch.original(loader)
        if self._trainer is not None and self._trainer.training:  # not validating, not in the sanity check
            self._watch(loader)
        return loader

    def _watch(self, loader: Any) -> None:
        """Make the loader's batch sampler a recording one, or note why not."""
        self._restore()
        self._loader = loader
        self._reason = _obstacle(loader)
        if self._reason is not None:
            return
        self.samples = len(loader.dataset)
        sampler = loader.batch_sampler
        cls = type(sampler)
        body = {"__iter__": _recording(cls), "__slots__": (), "__module__": cls.__module__}
        try:
            # Single inheritance and no slots: another base, or a new `__dict__`, would change the layout.
            sampler.__class__ = type(cls.__name__, (cls,), body)
        except TypeError:  # a list, for one
            self._reason = f"the train loader's batch sampler ({cls.__name__}) can't be watched"
            return
        self._swapped = (sampler, cls)

    def _restore(self) -> None:
        if self._swapped is not None:
            sampler, cls = self._swapped
            sampler.__class__ = cls
            self._swapped = None

    def _stream(self) -> Stream | None:
        """Find the queue of the iterator that the fit loop consumes."""
        assert self._trainer is not None
        # Private, but the only thing that tells the loop's own iterator from one that the user made on the side.
        combined: Any = getattr(self._trainer.fit_loop, "_combined_loader", None)
        loaders = getattr(combined, "flattened", [])
        if len(loaders) != 1 or loaders[0] is not self._loader:
            raise NotRecordable(f"there are {len(loaders)} train loaders; an index must name one sample")
        iterators = getattr(getattr(combined, "_iterator", None), "iterators", [])
        stream = getattr(iterators[0], "_sampler_iter", None) if iterators else None
        return stream if isinstance(stream, Stream) else None


def as_array(batches: Sequence[Sequence[Any]]) -> np.ndarray:
    """Turn what a batch sampler gave for some batches into one array of indices. Many at once: it is slow on few.

    Raises:
        NotRecordable: If these are no indices.

    Example:
        >>> as_array([[3, 1], (2,), np.array([0])]).tolist()
        [3, 1, 2, 0]
    """
    try:
        indices = np.asarray([operator.index(index) for index in itertools.chain.from_iterable(batches)])
    except (ValueError, TypeError) as error:
        raise NotRecordable(f"the batch sampler yields other things than integer indices: {error}") from error
    return indices.astype(np.int64, copy=False)


def _recording(cls: type) -> Any:
    """Make the ``__iter__`` that wraps the class's own."""

    def __iter__(self: Any) -> Stream:
        return Stream(cls.__iter__(self))  # type: ignore[attr-defined]

    return __iter__


def _obstacle(loader: Any) -> str | None:
    """Say why a loader's batches can't be told apart into samples, if so."""
    if not isinstance(loader, DataLoader):
        return f"the train loader is a {type(loader).__name__}, not a torch DataLoader"
    if isinstance(loader.dataset, IterableDataset):
        return f"the training data is an IterableDataset ({type(loader.dataset).__name__}), whose samples have no index"
    if loader.batch_sampler is None:
        return "the train loader has `batch_size=None`, so its dataset yields whole batches and samples have no index"
    if loader.num_workers and not getattr(loader, "in_order", True):
        return "the train loader has `in_order=False`, so its batches come in another order than they were asked for"
    try:
        len(loader.dataset)  # type: ignore[arg-type]
    except (TypeError, NotImplementedError):
        return f"the training dataset ({type(loader.dataset).__name__}) has no length, so its samples can't be numbered"
    return None
