"""Training samples that are references, by content and by the model."""

from __future__ import annotations

import numpy as np

from lightning_inf.audit.leaked import ALIKE, describe, leaked, suspected


def test_against_a_join() -> None:
    make = np.random.default_rng(0)
    ours, theirs = make.integers(0, 30, 50), make.integers(0, 60, 20)
    labels, others = make.integers(0, 3, 50), make.integers(0, 3, 20)
    found = leaked(
        (np.arange(50), ours),
        (np.arange(20), theirs),
        50,
        labels,
        dict(enumerate(others.tolist())),
        "items",
    )
    expected = [(i, j, bool(labels[i] == others[j])) for i in range(50) for j in range(20) if ours[i] == theirs[j]]
    assert found.pairs == expected
    assert expected
    assert found.count == len({i for i, _, _ in expected}) == np.isin(ours, theirs).sum()
    assert found.references == np.isin(theirs, ours).sum()
    assert describe(found, None)["conflicts"] == sum(not same for *_, same in expected)


def test_without_labels_nothing_is_said_of_them() -> None:
    sides = (np.array([0]), np.array([9])), (np.array([3]), np.array([9]))
    found = leaked(*sides, 1)
    assert found.pairs == [(0, 3, None)]
    assert leaked(*sides, 1, np.array([-1]), {3: 1}).pairs == [(0, 3, None)]
    assert describe(found, [])["conflicts"] == 0


def test_nothing_leaked() -> None:
    none = np.array([], dtype=np.int64)
    found = leaked((np.array([0]), np.array([9])), (none, none.astype(np.uint64)), 1)
    assert (found.count, found.references, found.pairs) == (0, 0, [])


def test_suspects_are_those_above_the_cosine_and_not_known() -> None:
    ends = {
        1: [(5, 0.2 * ALIKE + 1e-9), (6, 0.2 * ALIKE)],
        2: [(8, 0.199)],
        3: [(9, 0.2 * ALIKE - 1e-6)],
        4: [(9, 0.2)],
    }
    found = suspected(ends, 0.2, {2: {8}})
    assert [(pair["reference_index"], pair["train_index"]) for pair in found] == [(4, 9), (1, 5)]
    assert suspected(ends, 0.0, {}) == []
