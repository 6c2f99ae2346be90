"""Rows of arrays, hashed many at once, against plain comparison."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import ConcatDataset, Subset, TensorDataset

from lightning_inf.data import rows as module
from lightning_inf.data.contents import contents
from lightning_inf.data.identity import locate
from lightning_inf.data.repeatable import Repeatable
from lightning_inf.data.rows import form, keys, located


def nested():
    parts = [TensorDataset(torch.arange(n * 2.0).reshape(n, 2) + 100 * n, torch.zeros(n)) for n in (4, 1, 6)]
    return Repeatable(
        Subset(ConcatDataset([Subset(parts[0], [3, 1, 0]), parts[1], parts[2]]), [9, 0, 3, 2, 5, 1, 8]), 0
    )


def test_located_is_locate_for_many():
    data = nested()
    indices = np.array([6, 0, 3, 3, 1, 5, 2, 4])
    found = {}
    for owner, positions, places in located(data, indices):
        found |= {int(place): (owner, int(at)) for at, place in zip(positions, places, strict=True)}
    assert [found[place] for place in range(len(indices))] == [locate(data, int(index)) for index in indices]


@settings(max_examples=60)
@given(
    st.sampled_from([torch.uint8, torch.bool, torch.float16, torch.bfloat16, torch.float32, torch.int64]),
    st.integers(1, 11),
    st.integers(0, 2**32 - 1),
    st.booleans(),
)
def test_equal_rows_and_no_others_share_a_key(kind, width, seed, as_numpy):
    tensor = torch.from_numpy(np.random.default_rng(seed).integers(0, 2, (40, width))).to(kind)
    array = tensor.numpy() if as_numpy and kind is not torch.bfloat16 else tensor
    data = Kept(array)
    shape = form(data, range(40))
    assert shape is not None
    found = keys(data, np.arange(40), shape)
    plain = tensor.to(torch.int64).numpy()
    same = (plain[:, None] == plain[None]).all(axis=2)
    assert ((found[:, None] == found[None]) == same).all()


class Kept:
    """As torchvision's datasets keep them."""

    def __init__(self, data):
        self.data = data

    def __len__(self):
        return len(self.data)


def test_batches_of_rows_and_their_order_do_not_matter(monkeypatch):
    data = TensorDataset(torch.randn(50, 3, 5), torch.arange(50), torch.randn(50, 2))
    shape = form(data, range(50))
    assert shape == (("float32", (3, 5)), ("float32", (2,)))  # labels are no input
    order = np.random.default_rng(0).permutation(50)
    whole = keys(data, np.arange(50), shape)
    monkeypatch.setattr(module, "_BYTES", 100)
    assert (keys(data, order, shape) == whole[order]).all()
    assert len(set(whole.tolist())) == 50


def test_all_inputs_count():
    """Samples 0 and 3 are copies; 1 differs in the second input alone, 2 in the first."""
    data = TensorDataset(torch.tensor([[1.0, 1], [1, 1], [1, 2], [1, 1]]), torch.tensor([[1.0], [2], [1], [1]]))
    (found,) = contents((data, range(4)))
    assert found[0] == found[3]
    assert len({found[index] for index in range(3)}) == 3


@pytest.mark.parametrize("other", [torch.float64, torch.uint8])
def test_arrays_of_another_form_are_compared_by_item(other):
    """As where one side keeps bytes and the other what a transform made of them."""
    train = TensorDataset(torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
    held_out = Kept(torch.tensor([[3.0, 4.0]]).to(other))
    held_out.__class__ = type("Items", (Kept,), {"__getitem__": lambda self, i: (self.data[i].float(), 0)})
    left, right = contents((train, range(2)), (held_out, range(1)))
    assert left.source == right.source == "items"
    assert right[0] == left[1] != left[0]
