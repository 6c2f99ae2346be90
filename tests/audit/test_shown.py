"""Which samples a report shows."""

from __future__ import annotations

import numpy as np

from lightning_inf.audit.shown import shown


def test_the_heads_of_all_rankings_are_there_without_repeats() -> None:
    make = np.random.default_rng(0)
    ranks = {name: make.permutation(500) + 1 for name in "abc"}
    found = shown(ranks, [7, 7, 9], limit=80)
    assert found[:2] == [7, 9]
    assert len(found) == len(set(found)) == 80
    for name, depth in (("a", 30), ("b", 15), ("c", 15)):
        assert set(np.flatnonzero(ranks[name] <= depth)) <= set(found), name


def test_few_samples_are_all_shown_and_those_without_a_rank_are_not() -> None:
    assert shown({"a": np.array([2, 0, 1])}) == [2, 0]
    assert shown({}) == []
    assert shown({}, [3, 4, 5], limit=2) == [3, 4]
