import numpy as np
import pytest
import torch
from scipy import stats

from lightning_inf.metrics.functional import linear_datamodeling_correlation, split_half_correlation


def case(queries=4, samples=15, subsets=25, seeds=4):
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(queries, samples, generator=generator)
    masks = torch.rand(subsets, samples, generator=generator) < 0.5
    outputs = (masks.float() @ scores.T) + torch.randn(seeds, subsets, queries, generator=generator)
    return scores, masks, outputs


def test_correlation_is_a_loop_over_scipy():
    scores, masks, outputs = case()
    mean = outputs.double().mean(0)
    expected = []
    for query in range(4):
        predicted = [sum(scores[query, i].item() for i in range(15) if mask[i]) for mask in masks]
        expected.append(stats.spearmanr(predicted, mean[:, query]).statistic)
    np.testing.assert_allclose(linear_datamodeling_correlation(scores, masks, outputs).numpy(), expected, atol=1e-9)
    assert min(expected) > 0.5


def test_one_seed_may_drop_its_dimension():
    scores, masks, outputs = case(seeds=1)
    assert torch.equal(
        linear_datamodeling_correlation(scores, masks, outputs),
        linear_datamodeling_correlation(scores, masks, outputs[0]),
    )


def test_silent_scores_count_as_zero_and_constant_outputs_as_undefined():
    scores, masks, outputs = case()
    scores[0] = 0.0
    outputs[:, :, 1] = 0.1
    value = linear_datamodeling_correlation(scores, masks, outputs)
    assert value[0] == 0
    assert value.isnan().tolist() == [False, True, False, False]


@pytest.mark.parametrize("seeds", [2, 3])
def test_split_half_is_every_split_of_few_seeds(seeds):
    outputs = case(seeds=seeds)[2].double()
    halves = [(a,) for a in range(seeds)] if seeds == 3 else [(0,)]
    expected = np.zeros(4)
    for half in halves:
        rest = [seed for seed in range(seeds) if seed not in half]
        a, b = outputs[list(half)].mean(0), outputs[rest].mean(0)
        expected += [stats.spearmanr(a[:, q], b[:, q]).statistic / len(halves) for q in range(4)]
    np.testing.assert_allclose(split_half_correlation(outputs).numpy(), expected, atol=1e-12)


def test_split_half_of_four_seeds_uses_neighbouring_windows():
    outputs = case(seeds=4)[2].double()
    windows = [({0, 1}, {2, 3}), ({1, 2}, {3, 0})]  # the third split, {0, 2} against {1, 3}, is no window
    expected = np.mean(
        [
            [
                stats.spearmanr(outputs[sorted(a)].mean(0)[:, q], outputs[sorted(b)].mean(0)[:, q]).statistic
                for q in range(4)
            ]
            for a, b in windows
        ],
        axis=0,
    )
    np.testing.assert_allclose(split_half_correlation(outputs).numpy(), expected, atol=1e-12)


def test_refuses_what_cannot_be_scored():
    scores, masks, outputs = case()
    with pytest.raises(TypeError, match=r"bool tensor, found torch\.float32"):
        linear_datamodeling_correlation(scores, masks.float(), outputs)
    with pytest.raises(ValueError, match=r"`outputs` of shape \(any, 25, 4\), found \(1, 4, 25\)"):
        linear_datamodeling_correlation(scores, masks, outputs[0].T)
    with pytest.raises(ValueError, match=r"`subsets` of shape \(any, 15\), found \(15, 25\)"):
        linear_datamodeling_correlation(scores, masks.T, outputs)
    with pytest.raises(ValueError, match="at least 3 subsets"):
        linear_datamodeling_correlation(scores, masks[:2], outputs[:, :2])
    with pytest.raises(ValueError, match="subsets that differ"):
        linear_datamodeling_correlation(scores, masks[:1].expand(25, -1), outputs)
    with pytest.raises(ValueError, match="at least one seed"):
        linear_datamodeling_correlation(scores, masks, outputs[:0])
    with pytest.raises(ValueError, match="`scores` to be finite"):
        linear_datamodeling_correlation(scores * float("nan"), masks, outputs)
    with pytest.raises(ValueError, match="at least 2 seeds"):
        split_half_correlation(outputs[:1])
