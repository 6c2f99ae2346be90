import json

import numpy as np
import pytest
import torch
from scipy import stats

from lightning_inf.metrics import LinearDatamodelingScore


def case(queries=12, samples=20, subsets=40, seeds=4, noise=1.0):
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(queries, samples, generator=generator)
    masks = torch.rand(subsets, samples, generator=generator) < 0.5
    outputs = masks.float() @ scores.T + noise * torch.randn(seeds, subsets, queries, generator=generator)
    return scores, masks, outputs


def whole(scores, masks, outputs, **kwargs):
    metric = LinearDatamodelingScore(**kwargs)
    metric.update(scores, masks, outputs)
    return metric.compute()


def assert_same(result, expected):
    """Equal up to the last digits, which the order of a sum decides; approx does not look into nested lists."""
    assert result.keys() == expected.keys()
    for key, value in expected.items():
        assert result[key] == pytest.approx(value, abs=1e-9), key


def test_score_is_the_mean_over_scipy():
    scores, masks, outputs = case()
    predicted = (masks.double() @ scores.double().T).numpy()
    measured = outputs.double().mean(0).numpy()
    expected = np.mean([stats.spearmanr(predicted[:, q], measured[:, q]).statistic for q in range(12)])
    result = whole(scores, masks, outputs)
    assert result["score"] == pytest.approx(expected, abs=1e-9)
    assert result["interval"][0] < expected < result["interval"][1]
    assert (result["queries"], result["undefined"]) == (12, 0)


@pytest.mark.parametrize("sizes", [(12,), (5, 7), (1, 3, 8)])
def test_chunks_of_queries_in_any_order_give_the_whole(sizes):
    scores, masks, outputs = case()
    metric = LinearDatamodelingScore()
    for chunk in reversed(torch.arange(12).split(sizes)):
        metric.update(scores[chunk], masks, outputs[:, :, chunk])
    assert_same(metric.compute(), whole(scores, masks, outputs))


def test_exact_scores_give_one_whatever_the_monotone_scale():
    scores, masks, outputs = case(seeds=1, noise=0.0)
    result = whole(scores, masks, (outputs[0] / 5).double().exp())
    assert result["score"] == pytest.approx(1.0, abs=1e-3)
    assert whole(-scores, masks, outputs)["score"] == pytest.approx(-result["score"], abs=1e-3)
    assert result["noise_ceiling"] is None
    assert result["attainable"] is None


def test_permuting_subsets_and_samples_changes_nothing():
    scores, masks, outputs = case()
    subsets, samples = torch.randperm(40), torch.randperm(20)
    shuffled = whole(scores[:, samples], masks[subsets][:, samples], outputs[:, subsets])
    assert_same(shuffled, whole(scores, masks, outputs))


def test_attainable_is_what_the_true_scores_get():
    # the scores are the truth here, so their score against the noisy mean estimates the attainable one
    result = whole(*case(queries=40, subsets=300, seeds=4, noise=3.0))
    assert result["attainable"] == pytest.approx(result["score"], abs=0.03)
    assert result["noise_ceiling"] < result["score"] - 0.05


def test_undefined_queries_are_left_out_and_silent_ones_are_not():
    scores, masks, outputs = case(queries=4)
    outputs[:, :, 0] = 1.0
    alone = whole(scores[1:], masks, outputs[:, :, 1:])
    result = whole(scores, masks, outputs)
    assert result["score"] == pytest.approx(alone["score"])
    assert (result["queries"], result["undefined"]) == (4, 1)
    assert result["noise_ceiling"] == pytest.approx(alone["noise_ceiling"])
    silent = whole(
        torch.cat([torch.zeros(1, 20), scores[1:]]), masks, torch.cat([outputs[:, :, 1:2], outputs[:, :, 1:]], 2)
    )
    assert silent["score"] == pytest.approx(alone["score"] * 3 / 4)
    assert silent["undefined"] == 0


def test_undefined_results_are_none_and_json():
    scores, masks, outputs = case(queries=1)
    one = whole(scores, masks, outputs)
    assert one["interval"] is None
    assert isinstance(one["score"], float)
    none = whole(scores, masks, torch.zeros_like(outputs))
    assert none["score"] is none["interval"] is none["noise_ceiling"] is none["attainable"] is None
    json.dumps([one, none], allow_nan=False)


def test_attainable_is_zero_when_the_halves_disagree():
    scores, masks, outputs = case(seeds=1)
    result = whole(scores, masks, torch.cat([outputs, -outputs + 1e-3 * torch.randn_like(outputs)]))
    assert result["noise_ceiling"] < 0
    assert result["attainable"] == 0


def test_seed_sets_the_interval():
    first = whole(*case(), seed=1)
    assert whole(*case(), seed=1) == first
    assert whole(*case(), seed=2)["interval"] != first["interval"]


def test_refuses_bad_input():
    scores, masks, outputs = case()
    with pytest.raises(ValueError, match="at least one resample"):
        LinearDatamodelingScore(resamples=0)
    with pytest.raises(ValueError, match="`outputs` to be finite, found 1920 of 1920"):
        whole(scores, masks, outputs / 0.0)
    with pytest.raises(TypeError, match="bool tensor"):
        whole(scores, masks.long(), outputs)
