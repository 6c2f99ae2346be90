import math

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score

from lightning_inf.metrics.functional import auroc, average_precision, found_after, precision_recall_at_k, target_rank

SAMPLES = st.lists(st.tuples(st.integers(-4, 4), st.booleans()), min_size=2, max_size=40)


def both_classes(samples):
    flags = [flag for _, flag in samples]
    assume(any(flags) and not all(flags))
    return torch.tensor([float(score) for score, _ in samples]), torch.tensor(flags)


@given(SAMPLES)
@settings(max_examples=80)
def test_areas_are_scikit_learns_under_ties(samples):
    suspicion, is_issue = both_classes(samples)
    assert float(average_precision(suspicion, is_issue)) == pytest.approx(
        average_precision_score(is_issue, suspicion), abs=1e-6
    )
    assert float(auroc(suspicion, is_issue)) == pytest.approx(roc_auc_score(is_issue, suspicion), abs=1e-6)


def test_large_scores_are_not_squashed_by_a_sigmoid():
    # handed to torchmetrics as they are, 100 and 101 both become 1.0 and tie
    suspicion, is_issue = torch.tensor([100.0, 101.0, -5.0]), torch.tensor([False, True, False])
    assert average_precision(suspicion, is_issue) == 1
    assert auroc(suspicion, is_issue) == 1


def test_float64_differences_are_seen():
    suspicion = torch.tensor([1.0, 1.0 + 1e-12], dtype=torch.float64)
    assert average_precision(suspicion, torch.tensor([False, True])) == 1


@given(SAMPLES, st.randoms(use_true_random=False))
@settings(max_examples=40)
def test_areas_ignore_order_and_monotone_transforms(samples, random):
    suspicion, is_issue = both_classes(samples)
    shuffle = list(range(len(samples)))
    random.shuffle(shuffle)
    for measure in (average_precision, auroc):
        value = measure(suspicion, is_issue)
        assert measure(suspicion[shuffle], is_issue[shuffle]) == value
        assert measure(suspicion.double().exp() * 1e6 - 3, is_issue) == value


@given(st.lists(st.booleans(), min_size=1, max_size=60), st.randoms(use_true_random=False))
@settings(max_examples=60)
def test_at_k_and_found_after_count_what_a_loop_counts(flags, random):
    scores = [float(i) for i in range(len(flags))]
    random.shuffle(scores)
    ranked = [flag for _, flag in sorted(zip(scores, flags, strict=True), key=lambda pair: -pair[0])]
    suspicion, is_issue = torch.tensor(scores), torch.tensor(flags)
    cuts = range(1, len(flags) + 1)
    precision, recall = precision_recall_at_k(suspicion, is_issue, cuts)
    np.testing.assert_allclose(precision.numpy(), [sum(ranked[:k]) / k for k in cuts])
    if sum(flags):
        np.testing.assert_allclose(recall.numpy(), [sum(ranked[:k]) / sum(flags) for k in cuts])
        share = found_after(suspicion, is_issue, (1, 7, 50, 100)).tolist()
        inspected = [math.ceil(x * len(flags) / 100) for x in (1, 7, 50, 100)]
        np.testing.assert_allclose(share, [sum(ranked[:k]) / sum(flags) for k in inspected])
    else:
        assert recall.isnan().all()
        assert found_after(suspicion, is_issue).isnan().all()


def test_ties_are_inspected_in_order_of_arrival():
    constant = torch.zeros(100)
    first_half = torch.arange(100) < 50
    assert precision_recall_at_k(constant, first_half, [10])[0] == 1
    assert precision_recall_at_k(constant, ~first_half, [10])[0] == 0
    assert found_after(constant, first_half, [50]) == 1


def test_k_beyond_the_samples_is_undefined():
    precision, recall = precision_recall_at_k(torch.tensor([1.0, 0.0]), torch.tensor([True, False]), [2, 3])
    assert precision.tolist()[0] == 0.5
    assert precision[1].isnan()
    assert recall[1].isnan()


def test_one_class_only_is_undefined():
    for flag in (True, False):
        assert average_precision(torch.tensor([1.0, 2.0]), torch.tensor([flag, flag])).isnan()
        assert auroc(torch.tensor([1.0, 2.0]), torch.tensor([flag, flag])).isnan()


def test_target_rank_counts_ties_against_the_method():
    scores = torch.tensor([[0.1, 0.9, 0.5], [0.3, 0.3, 0.3], [0.9, 0.1, 0.2]])
    assert target_rank(scores, torch.tensor([2, 0, 0])).tolist() == [2, 3, 1]


def test_target_rank_refuses_indices_outside():
    with pytest.raises(ValueError, match=r"between 0 and 2.*found 2 of 2 outside"):
        target_rank(torch.zeros(2, 3), torch.tensor([-1, 3]))
    with pytest.raises(TypeError, match=r"integer tensor, found torch\.float32"):
        target_rank(torch.zeros(1, 3), torch.zeros(1))


@pytest.mark.parametrize("percent", [[0], [101], [2.5]])
def test_found_after_refuses_odd_percentages(percent):
    with pytest.raises(ValueError, match="whole percentages"):
        found_after(torch.zeros(2), torch.tensor([True, False]), percent)


@pytest.mark.parametrize("k", [[], [0], [-1], [1.5], [True]])
def test_at_k_refuses_odd_cut_offs(k):
    with pytest.raises(ValueError, match="positive whole numbers"):
        precision_recall_at_k(torch.zeros(2), torch.tensor([True, False]), k)
