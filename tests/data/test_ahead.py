"""The next batch is on its way to an accelerator while this one is computed. No GPU here: lane and streams are stand-ins."""

from __future__ import annotations

from collections import UserDict
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.utils.data import default_collate

from lightning_inf.data import ahead, batches
from lightning_inf.data.ahead import CopyStream, lane_to, moved_ahead
from lightning_inf.data.batches import stream
from lightning_inf.data.sources import Samples
from tests.data.test_batches import Squares


class Noted:
    """A lane that notes what happens."""

    def __init__(self) -> None:
        self.said: list[tuple[str, Any]] = []

    def start(self, move: Any) -> Any:
        moved = move()
        self.said.append(("start", moved))
        return moved

    def arrive(self, batch: Any) -> None:
        self.said.append(("arrive", batch))


@pytest.mark.parametrize("count", [0, 1, 2, 4])
def test_the_next_batch_is_started_before_this_one_is_computed(count: int) -> None:
    lane = Noted()
    for name, batch in moved_ahead(((str(i), i) for i in range(count)), lambda batch: 10 * batch, lane):
        assert (name, batch) == (str(batch // 10), batch)
        lane.said.append(("compute", batch))
    assert [batch for what, batch in lane.said if what == "compute"] == [10 * i for i in range(count)]
    place = {event: position for position, event in enumerate(lane.said)}
    for i in range(count):
        assert place["start", 10 * i] < place["arrive", 10 * i] < place["compute", 10 * i]
        if i + 1 < count:
            assert place["start", 10 * i + 10] < place["arrive", 10 * i]
        if i + 2 < count:  # no more than one ahead: memory holds two batches
            assert place["start", 10 * i + 20] > place["compute", 10 * i]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_stream_to_a_gpu_pins_and_keeps_indices_and_batches_together(
    workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    lane, loaders = Noted(), []
    loader = batches.DataLoader
    monkeypatch.setattr(batches, "lane_to", lambda device: lane)

    def pinning(*arguments: Any, pin_memory: bool, **options: Any) -> Any:
        loaders.append(pin_memory)
        return loader(*arguments, **options)  # there is nothing here that could be pinned

    monkeypatch.setattr(batches, "DataLoader", pinning)
    samples = Samples(Squares(), default_collate, "here", 4, {"num_workers": workers, "pin_memory": False})
    lists = [[3, 1], [2], [7, 9, 11]]
    found = list(stream(samples, lists, lambda batch: batch, torch.device("cuda")))
    assert [indices for indices, _ in found] == lists
    assert [index.tolist() for _, (index, _) in found] == lists
    assert loaders == [True]
    assert [what for what, _ in lane.said] == ["start", "start", "arrive", "start", "arrive", "arrive"]


def test_other_devices_have_no_lane() -> None:
    assert [lane_to(device) for device in (None, torch.device("cpu"), torch.device("mps"))] == [None] * 3


def test_the_computing_stream_waits_for_the_copy_and_the_memory_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[Any] = []

    class Stream:
        def __init__(self, name: Any) -> None:
            self.name = name

        def wait_stream(self, other: Any) -> None:
            said.append((self.name, "waits for", other.name))

        def __enter__(self) -> None:
            said.append(("entered", self.name))

        def __exit__(self, *exception: object) -> None:
            said.append(("left", self.name))

    class OnDevice(torch.Tensor):
        device = torch.device("cuda")  # type: ignore[assignment]

        def record_stream(self, stream: Any) -> None:
            said.append(("kept for", stream.name))

    computing = Stream("computing")
    fake = SimpleNamespace(
        Stream=lambda device: Stream("copying"), current_stream=lambda device: computing, stream=lambda stream: stream
    )
    monkeypatch.setattr(ahead.torch, "cuda", fake)
    lane = lane_to(torch.device("cuda"))
    assert isinstance(lane, CopyStream)
    batch = lane.start(lambda: [said.append("moved"), UserDict(x=torch.zeros(2).as_subclass(OnDevice)), "text"])
    lane.arrive(batch)
    assert said == [
        ("copying", "waits for", "computing"),
        ("entered", "copying"),
        "moved",
        ("left", "copying"),
        ("computing", "waits for", "copying"),
        ("kept for", "computing"),
    ]
