"""What could not be scored is named."""

from __future__ import annotations

import numpy as np

from lightning_inf.audit.nonfinite import LISTED, non_finite


def test_only_scored_samples_count() -> None:
    columns = {"a": np.array([1.0, np.nan, np.inf, np.nan, -np.inf]), "b": np.zeros(5), "c": np.full(5, np.nan)}
    assert non_finite(columns, np.array([0, 2, 3])) == [
        {"column": "a", "count": 2, "indices": [2, 3]},
        {"column": "c", "count": 3, "indices": [0, 2, 3]},
    ]


def test_the_count_is_whole_where_the_list_is_not() -> None:
    found = non_finite({"a": np.full(500, np.nan)}, np.arange(500))
    assert found == [{"column": "a", "count": 500, "indices": list(range(LISTED))}]
