"""Moving the next batch to an accelerator while this one is computed.

The loader's workers fetch ahead by themselves, and pinned memory lets a copy run beside kernels; what is left to do is to
start the copy of the next batch before the present one is handed out, on a stream of its own. Without workers a batch is
fetched in this process, between two computations.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any, Protocol, TypeVar

import torch

from lightning_inf.containers import flattened

T = TypeVar("T")


class Lane(Protocol):
    """Where batches are moved."""

    def start(self, move: Callable[[], Any]) -> Any:
        """Start to move a batch and return it."""
        ...

    def arrive(self, batch: Any) -> None:
        """Have whatever is computed from now on wait until a batch is there."""
        ...


class CopyStream:
    """A stream of a CUDA device beside the one that computes.

    Args:
        device: The device.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.stream = torch.cuda.Stream(device)
        # The user's transfer hooks may read what the module holds.
        self.stream.wait_stream(torch.cuda.current_stream(device))

    def start(self, move: Callable[[], Any]) -> Any:
        """Start to move a batch."""
        with torch.cuda.stream(self.stream):
            return move()

    def arrive(self, batch: Any) -> None:
        """Let the computing stream wait for the copy, and keep the batch's memory until it has computed."""
        computing = torch.cuda.current_stream(self.device)
        computing.wait_stream(self.stream)
        for leaf in flattened(batch)[0]:
            if isinstance(leaf, torch.Tensor) and leaf.device.type == self.device.type:
                leaf.record_stream(computing)


def lane_to(device: torch.device | None) -> Lane | None:
    """Return the lane to a device; None where there is nothing to gain from one."""
    return CopyStream(device) if device is not None and device.type == "cuda" else None


def moved_ahead(batches: Iterable[tuple[T, Any]], move: Callable[[Any], Any], lane: Lane) -> Iterator[tuple[T, Any]]:
    """Yield batches on the device, each once the next one has been started.

    Args:
        batches: Names and batches on the host.
        move: Moves a batch.
        lane: Where.
    """
    waiting: list[tuple[T, Any]] = []
    for name, batch in batches:
        waiting.append((name, lane.start(partial(move, batch))))
        if len(waiting) > 1:
            lane.arrive(waiting[0][1])
            yield waiting.pop(0)
    for name, moved in waiting:
        lane.arrive(moved)
        yield name, moved
