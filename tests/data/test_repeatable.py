"""Random items are the same at every fetch, and fetching them moves nobody's generator."""

from __future__ import annotations

import copy
import pickle
import random
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset
from torchvision.datasets import FakeData

from lightning_inf.data.repeatable import Repeatable, same, vary
from tests.samples import Augmented, blobs


class Dice(Dataset[Any]):
    """An item from each global generator."""

    targets = (1, 2, 3)

    def __len__(self) -> int:
        return 9

    def __getitem__(self, index: int) -> Any:
        return torch.rand(2), random.random(), np.random.rand()  # noqa: NPY002


class Own(Dataset[Any]):
    """A generator of its own, which nobody can seed."""

    def __init__(self) -> None:
        self.generator = np.random.default_rng(0)

    def __len__(self) -> int:
        return 9

    def __getitem__(self, index: int) -> Any:
        return self.generator.random()


def test_a_fetch_is_seeded_by_seed_and_index() -> None:
    view = Repeatable(Dice(), 7)
    first = [view[i] for i in range(9)]
    assert all(same(view[i], first[i]) for i in reversed(range(9)))
    assert len({item[1] for item in first}) == len({item[2] for item in first}) == 9
    assert not same(Repeatable(Dice(), 8)[0], first[0])
    batches = list(DataLoader(view, batch_size=3, num_workers=2))
    assert torch.equal(torch.cat([b[0] for b in batches]), torch.stack([item[0] for item in first]))


def test_fetching_moves_no_generator() -> None:
    view = Repeatable(Dice(), 7)
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()  # noqa: NPY002
    assert len(view) == 9
    view[3]
    vary(Dice(), 9)
    assert torch.equal(torch.get_rng_state(), states[0])
    assert random.getstate() == states[1]
    assert np.random.get_state()[1].tolist() == states[2]  # noqa: NPY002


def test_attributes_stay_readable_and_it_can_be_copied() -> None:
    view = Repeatable(Dice(), 7)
    assert view.targets == (1, 2, 3)
    assert not hasattr(view, "nothing")
    for twin in (copy.deepcopy(view), pickle.loads(pickle.dumps(view))):
        assert same(twin[2], view[2])


@pytest.mark.parametrize(
    ("data", "random_items"),
    [(blobs(), False), (Augmented(blobs()), True), (Dice(), True), (Own(), True), (FakeData(5, (1, 2, 2)), False)],
)
def test_whether_items_vary(data: Any, random_items: bool) -> None:
    assert vary(data, len(data)) == random_items
    if not isinstance(data, Own):
        assert not vary(Repeatable(data, 0), len(data))
    else:
        assert vary(Repeatable(data, 0), len(data))


@pytest.mark.parametrize("samples", [1, 2, 3])
def test_few_samples(samples: int) -> None:
    assert vary(Augmented(blobs(samples)), samples)
    assert not vary(blobs(samples), samples)


class Thing:
    def __init__(self, value: Any) -> None:
        self.value = value


@pytest.mark.parametrize(
    ("left", "right", "equal"),
    [
        (torch.tensor([1.0, float("nan")]), torch.tensor([1.0, float("nan")]), True),
        (torch.tensor([1]), torch.tensor([1.0]), False),
        (torch.tensor([1, 2]), torch.tensor([[1, 2]]), False),
        (np.array([1.0]), np.array([1.0]), True),
        (np.array([1.0]), np.array([2.0]), False),
        ({"a": [1, (2, "x")]}, {"a": [1, (2, "x")]}, True),
        ({"a": 1}, {"b": 1}, False),
        ((1, 2), (1, 2, 3), False),
        ((1, 2), [1, 2], False),
        (Thing(torch.ones(2)), Thing(torch.ones(2)), True),
        (Thing(torch.ones(2)), Thing(torch.zeros(2)), False),
        (float("nan"), float("nan"), True),
        (None, None, True),
        ("a", "b", False),
    ],
)
def test_same(left: Any, right: Any, equal: bool) -> None:
    assert same(left, right) == equal


def test_no_accelerator_that_was_never_used_is_seeded(monkeypatch):
    """torch.manual_seed would note the call for each of them, which takes longer than the fetch."""
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: False)
    for backend in (torch.cuda, torch.xpu, torch.mtia):
        monkeypatch.setattr(backend, "_lazy_call", lambda *args, **kwargs: pytest.fail("seeded an accelerator"))
    view = Repeatable(Dice(), seed=3)
    assert same(view[1], view[1])
    assert not same(view[1], view[2])
