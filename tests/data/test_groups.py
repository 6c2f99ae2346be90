"""What training samples belong to."""

import numpy as np
import pytest
import torch
from torch.utils.data import Subset, TensorDataset

from lightning_inf.data.groups import Groups, given_groups


class Sourced(TensorDataset):
    """Ten samples of three sources."""

    source = ("b", "b", "a", "a", "c", "c", "c", "a", "b", "a")
    labeller = torch.tensor([3, 3, 10, 10, 10, 3, 3, 3, 3, 10])


def dataset():
    return Sourced(torch.zeros(10, 2))


def named(groups):
    return [groups.names[code] if code >= 0 else None for code in groups.codes.tolist()]


def test_names_are_sorted_and_numbers_by_value():
    assert Groups.of([10, 9, "x", 10, -1], 5, "").names == ["-1", "9", "10", "x"]
    assert named(Groups.of(["b", None, "a", float("nan"), "b"], 5, "")) == ["b", None, "a", None, "b"]
    assert Groups.of([None, None], 2, "").names == []


def test_an_attribute_is_found_through_subsets():
    assert named(given_groups("source", dataset(), 10)) == list(Sourced.source)
    inner = Subset(Subset(dataset(), [9, 4, 0, 5]), [2, 0, 1])
    assert named(given_groups("source", inner, 3)) == ["b", "a", "c"]
    assert named(given_groups("labeller", inner, 3)) == ["3", "10", "10"]


def test_values_are_taken_as_they_come():
    values = np.array(["x", "y"] * 5)
    assert named(given_groups(values, dataset(), 10)) == ["x", "y"] * 5
    assert given_groups("label", dataset(), 10) is None


def test_what_is_missing_or_too_short_is_refused():
    with pytest.raises(ValueError, match=r"groups='sauce': expected an attribute .* none on Subset > Sourced"):
        given_groups("sauce", Subset(dataset(), [0]), 1)
    with pytest.raises(ValueError, match=r"expected one value for each of 10 training samples, found 3"):
        given_groups(["a", "b", "c"], dataset(), 10)
