"""Columns on disk: the same numbers as an array would have, whatever the chunks."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_inf.methods.collect import TOP, Ends
from lightning_inf.methods.columns import Columns


@settings(max_examples=60)
@given(data=st.data(), samples=st.integers(0, 40))
def test_columns_hold_what_an_array_would(data, samples, tmp_path_factory):
    columns = Columns(tmp_path_factory.mktemp("columns"), samples)
    expected = {}
    chosen = sorted(data.draw(st.sets(st.integers(0, samples - 1)))) if samples else []
    while chosen:
        size = data.draw(st.integers(1, len(chosen)))
        part, chosen = np.array(chosen[:size]), chosen[size:]
        for name in data.draw(st.sets(st.sampled_from(["a", "b", "a/b.c"]))):
            values = np.array([data.draw(st.floats(width=64)) for _ in part])
            columns.take(part, {name: values})
            expected.setdefault(name, np.full(samples, np.nan))[part] = values
    columns.finish()
    assert set(columns) == set(expected)
    for name, values in expected.items():
        np.testing.assert_array_equal(columns[name], values)


def test_a_column_may_have_another_name_and_be_replaced(tmp_path):
    columns = Columns(tmp_path, 3)
    columns.declare("a")
    columns.finish()
    columns["b"] = columns["a"]
    columns["b"][1] = 5.0
    assert columns["a"].tolist()[1] == 5.0  # two names of one column
    columns["a"] = np.arange(3)
    assert columns["a"].tolist() == [0, 1, 2]
    assert columns["b"].tolist()[1] == 5.0
    with pytest.raises(ValueError, match="shape"):
        columns["a"] = np.arange(4)


def test_chunks_ascend(tmp_path):
    columns = Columns(tmp_path, 4)
    columns.take(np.array([2]), {"a": np.ones(1)})
    with pytest.raises(ValueError, match="ascend"):
        columns.take(np.array([1]), {"a": np.ones(1)})
    columns.close()


def test_a_full_disk_is_an_error_and_no_signal(tmp_path):
    columns = Columns(tmp_path, 4)
    columns.declare("a")
    columns._open["a"][0].close()
    columns._open["a"] = (open("/dev/full", "wb", buffering=0), 0)  # noqa: SIM115 - closed below
    with pytest.raises(OSError, match="No space"):
        columns.finish()
    columns.close()


@pytest.mark.parametrize("seed", range(3))
def test_ends_are_those_of_a_sort(seed):
    generator = np.random.default_rng(seed)
    values = generator.integers(-30, 30, 500).astype(np.float64)  # ties, and both signs
    values[::17], values[::41] = np.nan, np.inf
    ends = Ends()
    for start in range(0, 500, 64):
        ends.take(np.arange(start, min(start + 64, 500)), values[start : start + 64])
    finite = [(i, v) for i, v in enumerate(values.tolist()) if np.isfinite(v)]
    assert ends.helps == sorted((p for p in finite if p[1] > 0), key=lambda p: (-p[1], p[0]))[:TOP]
    assert ends.hurts == sorted((p for p in finite if p[1] < 0), key=lambda p: (p[1], p[0]))[:TOP]
