"""Streams of random numbers that belong to samples."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats
from torch.utils._pytree import tree_map

from lightning_inf import keyed
from lightning_inf.keyed import Keyed, Keys


def test_the_mixing_is_that_of_splitmix64() -> None:
    """The published first outputs of the generator at seed 1234567."""
    steps = torch.arange(1, 6) * keyed._signed(0x9E3779B97F4A7C15) + 1234567
    found = [word % (1 << 64) for word in keyed._mixed(steps).tolist()]
    known = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431, 16408922859458223821]
    assert found == known
    assert [keyed._mixed_integer(step) for step in steps.tolist()] == known


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_numbers_have_the_distributions_they_should_have(dtype: torch.dtype) -> None:
    words = keyed.bits(Keys(0, "training").of(range(200)), draw=2, call=1, count=1000)
    uniform, normal = keyed.uniform(words, dtype), keyed.normal(words, dtype)
    assert uniform.dtype == normal.dtype == dtype
    assert 0 <= float(uniform.min())
    assert float(uniform.max()) < 1
    assert bool(normal.isfinite().all())
    assert stats.kstest(uniform.flatten().numpy(), "uniform").pvalue > 1e-3
    assert stats.kstest(normal.double().flatten().numpy(), "norm").pvalue > 1e-3


def test_streams_of_samples_draws_calls_sides_and_seeds_are_unrelated() -> None:
    def numbers(seed: int = 0, side: str = "training", index: int = 5, draw: int = 0, call: int = 0) -> np.ndarray:
        return keyed.normal(keyed.bits(Keys(seed, side).of([index]), draw, call, 4000), torch.float64)[0].numpy()

    others = [numbers(seed=1), numbers(side="references"), numbers(index=6), numbers(draw=1), numbers(call=1)]
    for other in others:
        assert abs(np.corrcoef(numbers(), other)[0, 1]) < 0.07
    np.testing.assert_array_equal(numbers(), numbers())


def test_the_leaves_of_a_keyed_batch_are_those_of_the_batch_and_the_keys() -> None:
    batch = Keyed((torch.ones(2, 3), {"t": torch.zeros(2)}), Keys(0, "training").of([1, 2]))
    doubled = tree_map(lambda leaf: leaf * 2, batch)
    assert isinstance(doubled, Keyed)
    assert doubled.batch[0].tolist() == [[2.0] * 3] * 2
    assert doubled.keys.tolist() == (batch.keys * 2).tolist()


def test_shared_numbers_are_those_of_all_samples_on_both_sides() -> None:
    keys = Keys(0, "training", shared=True).of([3, 9])
    assert keys[0] == keys[1] == Keys(0, "references", shared=True).of([5])[0]
    assert keys[0] != Keys(1, "training", shared=True).of([3])[0]
    assert keys[0] not in Keys(0, "training").of(range(100))
