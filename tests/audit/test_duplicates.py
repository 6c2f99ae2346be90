"""Groups of copies, and which sample of each is kept."""

from __future__ import annotations

import numpy as np
import pytest

from lightning_inf.audit.duplicates import describe, duplicates


def test_against_pandas() -> None:
    pandas = pytest.importorskip("pandas")
    keys = np.random.default_rng(0).integers(0, 40, 100)
    found = duplicates(np.arange(100), keys, 100)
    frame = pandas.DataFrame({"key": keys})
    assert found.count == frame.duplicated("key").sum()
    np.testing.assert_array_equal(found.drop, frame.duplicated("key", keep="first"))
    np.testing.assert_array_equal(found.group >= 0, frame.duplicated("key", keep=False))
    grouped = frame.assign(group=found.group)[found.group >= 0].groupby("key")["group"]
    assert (grouped.nunique() == 1).all()
    assert found.groups == frame[frame.duplicated("key", keep=False)]["key"].nunique()


@pytest.mark.parametrize(
    ("labels", "scores", "kept"),
    [
        ([0, 0, 0], None, 0),
        ([1, 2, 2], None, 1),  # the majority
        ([1, 2], None, 0),  # nothing speaks for either
        ([1, 2], [0.1, 0.9], 1),  # the evidence does
        ([1, 2], [np.nan, np.nan], 0),
        ([-1, -1], None, 0),  # no labels
    ],
)
def test_which_sample_is_kept(labels: list[int], scores: list[float] | None, kept: int) -> None:
    n = len(labels)
    found = duplicates(np.arange(n), np.full(n, 5), n, np.array(labels), None if scores is None else np.array(scores))
    assert np.flatnonzero(~found.drop).tolist() == [kept]
    assert found.conflicts == ((0,) if len(set(labels)) > 1 else ())


def test_every_group_keeps_exactly_one_and_the_summary_says_which() -> None:
    make = np.random.default_rng(3)
    found = duplicates(make.permutation(80), make.integers(0, 20, 80), 80, make.integers(0, 3, 80), make.random(80))
    said = describe(found)
    assert said["groups"] == len(said["listed"]) == found.groups
    assert said["copies"] == sum(len(group["drop"]) for group in said["listed"]) == found.count
    for group in said["listed"]:
        members = np.flatnonzero(found.group == group["group"]).tolist()
        assert sorted([group["keep"], *group["drop"]]) == members
        assert not found.drop[group["keep"]]


def test_nothing_and_one_sample() -> None:
    for index, samples in (([], 3), ([0], 1), ([], 0)):
        found = duplicates(np.array(index, dtype=np.int64), np.ones(len(index), np.uint64), samples)
        assert (found.groups, found.count, describe(found)["listed"]) == (0, 0, [])
