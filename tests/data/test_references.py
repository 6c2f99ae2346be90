"""The held-out side."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils.data import TensorDataset, default_collate

from lightning_inf.data.references import POOL, References
from lightning_inf.data.sources import Samples
from tests.samples import blobs


def choose(count: int, seed: int = 0, transfer: Any = lambda batch: batch, **kwargs: Any) -> References:
    return References.choose(Samples(blobs(count), default_collate, "here", 8), transfer, 8, seed, **kwargs)


def test_all_of_few_and_a_seeded_part_of_many() -> None:
    assert choose(20).pool == list(range(20))
    part = choose(200, limit=50).pool
    assert part == sorted(set(part))
    assert len(part) == 50
    assert max(part) > 100
    assert choose(200, limit=50).pool == part
    assert choose(200, seed=1, limit=50).pool != part
    many = TensorDataset(torch.zeros(POOL + 5, 1))
    assert len(References.choose(Samples(many, default_collate, "", 8), lambda b: b, 8, 0).pool) == POOL == 2048


def test_questions() -> None:
    references = choose(20)
    joint = references.joint
    assert joint.indices == tuple(range(20))
    assert joint.reference is None
    alone = references.alone(3)
    assert (alone.indices, alone.reference) == ((3,), 3)
    references.excluded = {3: "its loss is not finite"}
    assert 3 not in references.joint.indices
    keys = {joint.key, references.joint.key, alone.key, references.alone(4).key, choose(21).alone(3).key}
    assert len(keys) == 5
    assert choose(20).joint.key == joint.key


def test_batches_hold_the_references_and_are_collated_once() -> None:
    moved = []
    references = choose(20, transfer=lambda batch: moved.append(1) or batch)
    fetched = []
    data = references.samples.dataset
    item = type(data).__getitem__

    class Watched(TensorDataset):
        def __getitem__(self, index: int) -> Any:
            fetched.append(index)
            return item(self, index)

    data.__class__ = Watched
    for _ in range(3):
        seen = list(references.batches(range(18)))
        assert [len(indices) for indices, _ in seen] == [8, 8, 2]
        for indices, (x, _) in seen:
            assert torch.equal(x, data.tensors[0][indices])
    assert sorted(fetched) == list(range(18))
    assert len(moved) == 9
