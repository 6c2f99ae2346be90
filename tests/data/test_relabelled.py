"""Planted labels: which samples, which labels, and how an item takes one."""

from __future__ import annotations

import pickle
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch.utils.data import ConcatDataset, Dataset, Subset, TensorDataset

from lightning_inf.data.identity import fingerprint, known_indices, sample_id
from lightning_inf.data.relabelled import Calibration, Relabelled, draw, listed, relabeller, second
from lightning_inf.data.repeatable import Repeatable


class Listed(Dataset):
    """Lists its labels, as torchvision's data sets do."""

    def __init__(self, labels, kind=list):
        self.targets = kind(labels)
        self.classes = ["a", "b", "c"]
        self.known_issues = [1]

    def __len__(self):
        return len(self.targets)

    def __getitem__(self, index):
        return torch.tensor([float(index)]), int(self.targets[index])


@given(samples=st.integers(1, 300), share=st.floats(0.001, 0.1), classes=st.integers(2, 12), seed=st.integers(0, 9))
@settings(max_examples=60)
def test_every_planted_label_is_another_class(samples, share, classes, seed):
    labels = np.random.default_rng(seed).integers(0, classes, samples)
    data = TensorDataset(torch.zeros(samples, 1))
    found = draw(share, data, labels, classes, seed)
    assert len(found.labels) == max(round(share * samples), 1)
    assert all(0 <= label < classes and label != labels[i] for i, label in found.labels.items())
    assert found == draw(share, data, labels, classes, seed) == Calibration.of(found.state())


def test_a_view_changes_the_planted_samples_alone_and_leaves_the_dataset_as_it_was():
    data = Listed([0, 1, 2, 0])
    view = Relabelled(data, {1: 0, 3: 2}, second)
    assert [y for _, y in view] == [0, 0, 2, 2]
    assert [y for _, y in (data[i] for i in range(4))] == [0, 1, 2, 0]
    assert view.classes == ["a", "b", "c"]  # other attributes stay readable
    assert [y for _, y in pickle.loads(pickle.dumps(view))] == [0, 0, 2, 2]  # as workers get it


def test_names_truth_and_fingerprint_see_through_the_view():
    data = Listed([0, 1, 2, 0])
    view = Relabelled(data, {1: 0}, second)
    assert sample_id(view, 2) == "2"
    assert known_indices("known_issues", view, 4).tolist() == [False, True, False, False]
    assert fingerprint(view) != fingerprint(data)
    assert fingerprint(view) == fingerprint(Relabelled(Listed([0, 1, 2, 0]), {1: 0}, second))


@pytest.mark.parametrize("kind", [list, np.array, torch.tensor])
def test_labels_are_listed_through_views(kind):
    first, other = Listed([0, 1, 2], kind), Listed([2, 0], kind)
    both = ConcatDataset([Subset(first, [2, 0]), other])
    assert listed(Relabelled(Repeatable(both, 0), {0: 1}, second)).tolist() == [2, 0, 2, 0]
    assert listed(TensorDataset(torch.zeros(2))) is None
    assert listed(Listed([0.5, 1.5])) is None


@pytest.mark.parametrize("label", [1, np.int64(1), torch.tensor(1)])
def test_an_item_keeps_the_type_of_its_label(label):
    item = second(("x", label, "extra"), 2)
    assert item[0] == "x"
    assert item[2] == "extra"
    assert int(item[1]) == 2
    assert type(item[1]) is type(label)


@pytest.mark.parametrize("item", [{"x": 1, "y": 2}, (1.0, 0.5), (1,), (1, True)])
def test_other_items_are_refused_with_the_hook(item):
    with pytest.raises(ValueError, match="influence_relabel"):
        second(item, 1)


def test_a_hook_is_used_and_without_one_or_targets_it_is_asked_for():
    trainer = SimpleNamespace(datamodule=None)
    hook = lambda item, label: {**item, "y": label}  # noqa: E731
    assert relabeller(trainer, SimpleNamespace(influence_relabel=hook), Listed([0])) is hook
    assert relabeller(trainer, SimpleNamespace(), Listed([0])) is second
    with pytest.raises(MisconfigurationException, match=r"integer `targets`.*influence_relabel"):
        relabeller(trainer, SimpleNamespace(), TensorDataset(torch.zeros(2)))
