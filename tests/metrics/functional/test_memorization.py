"""Memorisation and influence from a bank of models, against plain means."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lightning_inf.metrics.functional import subset_effects


def test_it_is_a_difference_of_means() -> None:
    generator = np.random.default_rng(0)
    subsets, outcomes = generator.random((30, 7)) < 0.7, generator.random((30, 4))
    found = subset_effects(torch.from_numpy(subsets), torch.from_numpy(outcomes)).numpy()
    for i in range(7):
        for j in range(4):
            expected = outcomes[subsets[:, i], j].mean() - outcomes[~subsets[:, i], j].mean()
            assert found[i, j] == pytest.approx(expected)


def test_a_sample_that_is_everywhere_says_nothing() -> None:
    subsets = torch.tensor([[True, False, True], [True, False, False]])
    found = subset_effects(subsets, torch.tensor([[1.0], [0.0]]))
    assert found[:2].isnan().all()
    assert found[2, 0] == 1.0


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(TypeError):
        subset_effects(torch.ones(3, 2), torch.ones(3, 1))
    with pytest.raises(ValueError, match="outcomes"):
        subset_effects(torch.ones(3, 2).bool(), torch.ones(2, 1))
