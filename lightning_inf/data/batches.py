"""Batches on the device, made from sample indices and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from typing import Any, Literal

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities.model_helpers import is_overridden
from torch.utils.data import DataLoader, Sampler

from lightning_inf.containers import mapped
from lightning_inf.data.ahead import lane_to, moved_ahead
from lightning_inf.data.sources import Samples

#: Moves a collated batch to the device as the user's hooks say.
Transfer = Callable[[Any], Any]

#: How images lie in memory.
Layout = Literal["contiguous", "channels_last"]


class IndexBatches(Sampler[list[int]]):
    """Hands given lists of indices to a DataLoader, and remembers the ones that are under way.

    A loader with workers asks ahead of what it yields, in order; :attr:`pending` keeps the lists until their batch
    comes out.
    """

    def __init__(self, lists: Iterable[Sequence[int]]) -> None:
        self.lists = lists
        self.pending: list[list[int]] = []

    def __iter__(self) -> Iterator[list[int]]:
        for indices in self.lists:
            self.pending.append([int(i) for i in indices])
            yield self.pending[-1]


def stream(
    samples: Samples, lists: Iterable[Sequence[int]], transfer: Transfer, device: torch.device | None = None
) -> Generator[tuple[list[int], Any], None, None]:
    """Yield ``(indices, batch on the device)`` for each list of indices, in order.

    Args:
        samples: The dataset and how it is collated.
        lists: Lists of sample indices, one a batch; consumed lazily.
        transfer: Moves a batch to the device.
        device: Where that is; a GPU is sent the next batch from pinned memory while it computes this one.
    """
    sampler, lane = IndexBatches(lists), lane_to(device)
    options = samples.options if lane is None else {**samples.options, "pin_memory": True}
    loader = DataLoader(samples.dataset, batch_sampler=sampler, collate_fn=samples.collate_fn, **options)
    fetched = ((sampler.pending.pop(0), batch) for batch in loader)
    moved = moved_ahead(fetched, transfer, lane) if lane else ((indices, transfer(batch)) for indices, batch in fetched)
    for indices, batch in moved:
        yield indices, samples.keyed(indices, batch)


def out_of_memory(error: BaseException) -> bool:
    """Tell whether an error says that memory ran out, on an accelerator or on the host."""
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "can't allocate memory" in str(error)


def fetch(samples: Samples, indices: Sequence[int], transfer: Transfer) -> Any:
    """Make one batch of the samples with the given indices, in this process, as a DataLoader would."""
    return samples.keyed(indices, transfer(collated(samples, indices)))


def collated(samples: Samples, indices: Sequence[int]) -> Any:
    """Make one batch as it is before it is moved to the device."""
    dataset: Any = samples.dataset
    positions = [int(index) for index in indices]
    at_once = getattr(dataset, "__getitems__", None)  # what torch's loaders ask, where a dataset has it
    return samples.collate_fn(at_once(positions) if at_once else [dataset[i] for i in positions])


def laid_out(batch: Any, layout: Layout) -> Any:
    """Put the channels of a batch's images last in memory, where this is the layout; shapes stay as they are.

    Convolutions then keep to it from the first to the last, which halves the time of small networks on a CPU.

    Args:
        batch: Any nested containers; floating-point tensors of four dimensions are taken for images.
        layout: The layout.
    """
    return batch if layout == "contiguous" else mapped(_channels_last, batch)


def _channels_last(leaf: Any) -> Any:
    image = isinstance(leaf, torch.Tensor) and leaf.dim() == 4 and leaf.is_floating_point()
    # `to` sets the strides even of a single channel, by which convolutions tell the layout; `contiguous` doesn't.
    return leaf.to(memory_format=torch.channels_last) if image else leaf


class ToDevice:
    """Runs the user's batch transfer hooks, on the datamodule where it overrides them, else on the module.

    Args:
        trainer: The Trainer, for its datamodule; None where there is none.
        module: The isolated module.
        device: The device of the analysis.
        dtype: What floating-point leaves are cast to where the Trainer runs in true half or double precision; the
            analysis has its weights in this type.
    """

    def __init__(
        self, trainer: Trainer | None, module: LightningModule, device: torch.device, dtype: torch.dtype | None = None
    ) -> None:
        self.device = device
        self.dtype = dtype
        #: How images lie in memory: everything that reads a batch, sweep and probes alike, gets it so.
        self.layout: Layout = "contiguous"
        #: Called before each batch; it may raise to end the analysis.
        self.before: Callable[[], None] = lambda: None
        self._hooks = {name: self._owner(trainer, module, name) for name in _HOOKS}

    @staticmethod
    def _owner(trainer: Trainer | None, module: LightningModule, hook: str) -> Any:
        datamodule = getattr(trainer, "datamodule", None)
        overridden = datamodule is not None and is_overridden(hook, datamodule)
        return getattr(datamodule if overridden else module, hook)

    def __call__(self, batch: Any) -> Any:
        """Move a batch."""
        self.before()
        batch = self._hooks["on_before_batch_transfer"](batch, 0)
        batch = self._hooks["transfer_batch_to_device"](batch, self.device, 0)
        batch = self._hooks["on_after_batch_transfer"](batch, 0)
        return laid_out(batch if self.dtype is None else mapped(self._cast, batch), self.layout)

    def _cast(self, leaf: Any) -> Any:
        return leaf.to(self.dtype) if isinstance(leaf, torch.Tensor) and leaf.is_floating_point() else leaf


_HOOKS = ("on_before_batch_transfer", "transfer_batch_to_device", "on_after_batch_transfer")
