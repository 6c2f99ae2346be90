"""Sums and means by group against pandas and SciPy."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from lightning_inf.audit.groups import by_group, counted
from lightning_inf.data.groups import Groups


@settings(max_examples=40)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["a", "b", "c", None]),
            st.one_of(st.floats(-1e6, 1e6, allow_subnormal=False), st.just(float("nan"))),
        ),
        min_size=1,
        max_size=40,
    )
)
def test_equal_to_pandas_and_scipy(rows):
    keys, values = [row[0] for row in rows], np.array([row[1] for row in rows])
    groups = Groups.of(keys, len(rows), "")
    found = by_group(groups, values)
    table = pd.DataFrame({"key": keys, "value": values}).dropna()
    for place, name in enumerate(groups.names):
        mine = table.value[table.key == name].to_numpy()
        assert found.scored[place] == len(mine)
        assert found.total[place] == pytest.approx(mine.sum(), rel=1e-9, abs=1e-6)
        if not len(mine):
            assert np.isnan(found.mean[place])
        if len(mine) < 2:
            assert np.isnan(found.low[place])
            continue
        error = stats.sem(mine)
        low, high = stats.t.interval(0.95, len(mine) - 1, loc=mine.mean(), scale=error) if error else (mine.mean(),) * 2
        assert found.low[place] == pytest.approx(low, abs=3e-3 * (high - low) + 1e-9 * abs(low) + 1e-9)
        assert found.high[place] == pytest.approx(high, abs=3e-3 * (high - low) + 1e-9 * abs(high) + 1e-9)


def test_scores_that_are_alike_keep_their_spread():
    """A difference of sums of squares would be all rounding here."""
    values = 1e9 + np.array([0.0, 1.0, 2.0])
    found = by_group(Groups.of(["a"] * 3, 3, ""), values)
    assert found.high[0] - found.mean[0] == pytest.approx(stats.t.ppf(0.975, 2) / np.sqrt(3), rel=1e-3)


def test_flags_are_counted_where_there_is_a_group():
    groups = Groups.of(["b", None, "a", "b"], 4, "")
    assert counted(groups, None).tolist() == [1, 2]
    assert counted(groups, np.array([True, True, False, True])).tolist() == [0, 2]
