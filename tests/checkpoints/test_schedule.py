"""Evenly spaced epochs, however long the training becomes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_inf.checkpoints.schedule import Schedule


@given(keep=st.integers(1, 12), epochs=st.integers(1, 300))
def test_at_any_time_the_kept_are_even_few_and_begin_with_the_first(keep: int, epochs: int) -> None:
    schedule = Schedule(keep)
    files: set[int] = set()
    for epoch in range(epochs):
        captured, dropped = schedule.offer(epoch)
        assert set(dropped) <= files
        files -= set(dropped)
        if captured:
            files.add(epoch)
        assert sorted(files) == schedule.kept
        if keep == 1:
            assert files == set()  # the last alone, when training ends
            continue
        assert len(files) <= keep
        assert 0 in files
        assert set(range(0, epoch + 1, schedule.stride)) == files
        assert len(files) >= min(epoch + 1, keep // 2)


def test_an_epoch_is_offered_once() -> None:
    schedule = Schedule(10)
    assert schedule.offer(0) == (True, [])
    assert schedule.offer(0) == (False, [])
    assert schedule.kept == [0]


def test_at_least_one() -> None:
    with pytest.raises(ValueError, match="keep_checkpoints: expected at least 1, found 0"):
        Schedule(0)
