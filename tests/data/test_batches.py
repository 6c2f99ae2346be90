"""Batches hold the samples they are said to hold, and go to the device by the user's hooks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningDataModule
from torch.utils.data import Dataset, default_collate

from lightning_inf.data.batches import ToDevice, fetch, stream
from lightning_inf.data.sources import Samples
from tests.samples import Classifier, make_trainer


class Squares(Dataset[Any]):
    """Item i is (i, i * i)."""

    def __init__(self, count: int = 50) -> None:
        self.count = count
        self.fetched: list[int] = []

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[int, float]:
        assert type(index) is int  # as a plain DataLoader gives it
        self.fetched.append(index)
        return index, float(index * index)


def same(batch: Any) -> Any:
    return batch


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize(
    "lists", [[[3, 1, 2]], [[0], [49, 7], [7], [1, 2, 3, 4]], [range(i, i + 5) for i in range(0, 50, 5)]]
)
def test_a_stream_yields_the_lists_in_order(workers: int, lists: list[Any]) -> None:
    samples = Samples(Squares(), default_collate, "here", 4, {"num_workers": workers})
    seen = list(stream(samples, iter(lists), same))
    assert [indices for indices, _ in seen] == [list(part) for part in lists]
    for indices, (index, square) in seen:
        assert index.tolist() == indices
        assert square.tolist() == [float(i * i) for i in indices]


def test_a_stream_is_lazy() -> None:
    asked = []

    def lists() -> Any:
        for i in range(1000):
            asked.append(i)
            yield [i % 50]

    for number, _ in enumerate(stream(Samples(Squares(), default_collate, "here", 4), lists(), same)):
        if number == 2:
            break
    assert len(asked) < 10


def test_the_users_collate_makes_the_batch() -> None:
    samples = Samples(Squares(), lambda items: {"sum": sum(square for _, square in items)}, "here", 4)
    assert fetch(samples, [1, 2, 3], same) == {"sum": 14.0}
    assert [batch for _, batch in stream(samples, [[1], [2, 3]], same)] == [{"sum": 1.0}, {"sum": 13.0}]


HOOKS = ("on_before_batch_transfer", "transfer_batch_to_device", "on_after_batch_transfer")


class Noting:
    """Notes the transfer hooks that run."""

    ran: list[str]

    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        self.ran.append("before")
        return batch

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        self.ran.append(f"to {device}")
        return [part.to(device) for part in batch]

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        self.ran.append("after")
        return [part * 2 for part in batch]


class NotingModule(Noting, Classifier):
    pass


class NotingData(Noting, LightningDataModule):
    pass


class OneHook(LightningDataModule):
    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        return [part * 10 for part in batch]


@pytest.mark.parametrize("owner", ["module", "datamodule", "both", "one hook"])
def test_the_users_transfer_hooks_run(owner: str, tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path)
    module = NotingModule() if owner != "datamodule" else Classifier()
    datamodule: Any = {"datamodule": NotingData, "both": NotingData, "one hook": OneHook}.get(owner, lambda: None)()
    for noting in (module, datamodule):
        if isinstance(noting, Noting):
            noting.ran = []
    trainer._data_connector.attach_datamodule(module, datamodule)
    batch = ToDevice(trainer, module, torch.device("cpu"))([torch.ones(2)])
    assert batch[0].tolist() == ([10.0, 10.0] if owner == "one hook" else [2.0, 2.0])
    expected = ["before", "to cpu", "after"]
    if owner in ("datamodule", "both"):
        assert datamodule.ran == expected
        assert getattr(module, "ran", []) == []  # Lightning prefers the datamodule's
    else:
        assert module.ran == (expected if owner == "module" else expected[:2])


def test_floats_are_cast_on_request_and_nothing_else(tmp_path: Path) -> None:
    cast = ToDevice(make_trainer(tmp_path), Classifier(), torch.device("cpu"), torch.float64)
    batch = cast({"x": torch.zeros(2), "y": torch.tensor([1]), "names": ["a"], "nested": (torch.zeros(1).half(),)})
    assert batch["x"].dtype == batch["nested"][0].dtype == torch.float64
    assert batch["y"].dtype == torch.int64
    assert batch["names"] == ["a"]
