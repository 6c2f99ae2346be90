"""Ranks order by suspicion."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_inf.audit.ranks import rank

VALUES = st.lists(st.one_of(st.floats(), st.integers(-3, 3).map(float)), max_size=40)


@given(VALUES, st.sampled_from(["lowest", "highest"]))
def test_ranks_are_a_permutation_of_the_finite_values(values: list[float], suspicious: str) -> None:
    ranks = rank(np.array(values, dtype=np.float64), suspicious)  # type: ignore[arg-type]
    assert ranks.dtype == np.int64
    finite = [i for i, v in enumerate(values) if math.isfinite(v)]
    assert sorted(ranks[finite].tolist()) == list(range(1, len(finite) + 1))
    assert all(r == 0 for i, r in enumerate(ranks) if i not in finite)
    sign = 1 if suspicious == "lowest" else -1
    expected = sorted(finite, key=lambda i: (sign * values[i], i))
    assert [i for _, i in sorted((ranks[i], i) for i in finite)] == expected


@pytest.mark.parametrize(("end", "ranks"), [("lowest", [3, 0, 1, 2, 0]), ("highest", [1, 0, 2, 3, 0])])
def test_ties_go_to_the_smaller_index(end: str, ranks: list[int]) -> None:
    assert rank(np.array([0.5, np.nan, 0.1, 0.1, np.inf]), end).tolist() == ranks  # type: ignore[arg-type]
