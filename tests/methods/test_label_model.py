"""The model of the labels against data whose truth is known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression

from lightning_inf.methods.label_model import WEIGHTS, Evidence, fit, planted_weights
from lightning_inf.methods.label_noise import (
    calibrate,
    calibrated,
    directions,
    estimate_rates,
    estimate_transitions,
    origins,
    posterior,
    shrink,
    structured,
    wrong,
)
from lightning_inf.methods.logits import log_sum, minimum, sigmoid, softmax

CLASSES = 5


def test_transitions_are_those_of_posteriors_written_down() -> None:
    _, evidence, references = world("pair")
    belief = calibrated(calibrate(references.unseen(), references.label), evidence.unseen())
    start = np.full((CLASSES, CLASSES), 0.05) + 0.75 * np.eye(CLASSES)
    counts = posterior(belief, evidence.label, start).T @ np.eye(CLASSES)[evidence.label]
    off = 1 - np.trace(counts) / counts.sum()
    counts += np.where(np.eye(CLASSES, dtype=bool), 1 - off, off / (CLASSES - 1))
    once = estimate_transitions(belief, evidence.label, start, rounds=1)
    np.testing.assert_allclose(once, counts / counts.sum(axis=1, keepdims=True), rtol=1e-12)


def world(
    kind: str,
    samples: int = 1500,
    rate: float = 0.2,
    seed: int = 0,
    clarity: float = 2.5,
    classes: int = CLASSES,
    alike: float = 0.0,
):
    """Noisy beliefs about true labels, given labels that went wrong in a known way, and clean references."""
    generator = np.random.default_rng(seed)
    looks = np.eye(classes) + (alike * generator.random((classes, classes)) ** 3 if alike else 0.0)

    def beliefs(labels):
        def source(noise):
            return softmax(clarity * looks[labels] + noise * generator.standard_normal((len(labels), classes)))

        linear = np.log(source(1.0))[None] * 0.15
        return linear, source(1.2)[None], source(1.0)

    true = generator.integers(0, classes, samples)
    label = true.copy()
    chosen = generator.random(samples) < rate
    other = (true + 1) % classes if kind == "pair" else (true + generator.integers(1, classes, samples)) % classes
    label[chosen] = other[chosen]
    linear, votes, course = beliefs(true)
    held = generator.integers(0, classes, 600)
    r_linear, r_votes, _ = beliefs(held)
    return true, Evidence(label, linear, votes, course), Evidence(held, r_linear, r_votes)


def test_calibration_is_a_logistic_regression():
    _, _, references = world("uniform")
    sources = references.unseen()
    ours = calibrated(calibrate(sources, references.label), sources)
    # The same beliefs as features, weakly penalised: the weights differ in form, the fitted probabilities hardly.
    design = np.concatenate(sources, axis=1)
    theirs = LogisticRegression(C=10.0, max_iter=2000).fit(design, references.label).predict_proba(design)
    rows = np.arange(len(references.label))
    loss = [-np.log(p[rows, references.label]).mean() for p in (ours, theirs)]
    assert loss[0] == pytest.approx(loss[1], abs=0.06)
    picked = ours.max(axis=1)
    assert picked.mean() == pytest.approx((ours.argmax(axis=1) == references.label).mean(), abs=0.02)


@pytest.mark.parametrize("kind", ["pair", "uniform"])
def test_transitions_are_found_without_the_truth(kind):
    true, evidence, references = world(kind, samples=6000)
    belief = calibrated(calibrate(references.unseen(), references.label), evidence.unseen())
    found = estimate_transitions(belief, evidence.label)
    expected = np.zeros((CLASSES, CLASSES))
    np.add.at(expected, (true, evidence.label), 1)
    expected /= expected.sum(axis=1, keepdims=True)
    assert np.abs(found - expected).max() < 0.05
    np.testing.assert_allclose(found.sum(axis=1), 1)


def test_expectation_maximisation_never_lowers_the_likelihood():
    _, evidence, references = world("pair")
    belief = calibrated(calibrate(references.unseen(), references.label), evidence.unseen())
    likelihood = [
        np.log((belief * estimate_transitions(belief, evidence.label, rounds=r)[:, evidence.label].T).sum(axis=1)).sum()
        for r in (1, 2, 5, 20, 100)
    ]
    assert all(later > earlier - 0.5 for earlier, later in zip(likelihood, likelihood[1:], strict=False))
    assert likelihood[-1] > likelihood[0]


def test_rates_are_the_maximum_where_it_is_known_where_wrong_labels_go():
    from scipy.optimize import minimize

    _, evidence, references = world("pair", samples=400)
    belief = calibrated(calibrate(references.unseen(), references.label), evidence.unseen())
    spread = directions(np.random.default_rng(0).dirichlet(np.ones(CLASSES), CLASSES))
    np.testing.assert_allclose(spread.sum(axis=1), 1)
    assert np.all(np.diag(spread) == 0)

    def loss(rates):
        rows = np.where(np.eye(CLASSES, dtype=bool), rates[:, None], (1 - rates)[:, None] * spread)
        prior = (0.9 * np.log(rates) + 0.1 * np.log(1 - rates)).sum()
        return -np.log((belief * rows[:, evidence.label].T).sum(axis=1)).sum() - prior

    best = minimize(loss, np.full(CLASSES, 0.5), bounds=[(1e-6, 1 - 1e-6)] * CLASSES, options={"ftol": 1e-14})
    for start in (None, np.full((CLASSES, CLASSES), 0.2)):
        found = estimate_rates(belief, evidence.label, spread, start)
        np.testing.assert_allclose(np.diag(found), best.x, atol=1e-3)
        np.testing.assert_allclose(found.sum(axis=1), 1)


def test_the_count_is_near_the_truth_where_beliefs_are_weak():
    # A third of the labels are foretold, and some classes look like others, which beliefs don't know of. A full matrix takes
    # that for structure of the noise, and off its diagonal, also where the structure itself is then refused.
    full, ours, held = [], [], []
    for seed in range(8):
        true, evidence, references = world("uniform", samples=2000, clarity=0.8, seed=seed, classes=10, alike=0.6)
        belief = calibrated(calibrate(references.unseen(), references.label), evidence.unseen())
        assert 0.2 < (belief.argmax(axis=1) == true).mean() < 0.45
        whole = estimate_transitions(belief, evidence.label)
        model, bad = fit(evidence, references), (evidence.label != true).mean()
        full.append(wrong(posterior(belief, evidence.label, whole), evidence.label).mean() - bad)
        ours.append(model.share - bad)
        held.append(model.interval[0] <= bad <= model.interval[1])
    assert np.mean(full) > 0.04
    assert abs(np.mean(ours)) < 0.02
    assert np.mean(held) >= 0.75


def test_what_features_have_learned_of_wrong_labels_is_counted():
    true, evidence, references = world("uniform", samples=4000)
    learned = np.eye(CLASSES)[
        evidence.label
    ]  # features of a training sample, never of a reference, come to show its label

    def twice(found, early=0.0, late=0.0):
        linear = np.concatenate([found.linear + 0.15 * early, found.linear + 0.15 * late])
        votes = [np.exp(np.log(found.votes[0]) + shown) for shown in (early, late)]
        votes = np.stack([v / v.sum(axis=1, keepdims=True) for v in votes])
        return replace(found, linear=linear, votes=votes)

    bad = (evidence.label != true).mean()
    untouched = fit(twice(evidence), twice(references))
    assert untouched.share == pytest.approx(bad, abs=0.02)
    seen = fit(twice(evidence, 0.4 * learned, 0.4 * learned), twice(references))  # as much at both: it can't be known
    counted = fit(twice(evidence, 0.4 * learned, 1.0 * learned), twice(references))
    assert seen.share < 0.9 * bad
    assert abs(counted.share - bad) < abs(seen.share - bad)
    assert counted.interval[0] <= bad <= counted.interval[1]


def test_structure_is_used_only_where_there_is_some():
    for kind, expected in (("pair", True), ("uniform", False)):
        _, evidence, references = world(kind)
        belief = calibrated(calibrate(references.unseen(), references.label), evidence.unseen())
        _, share, worth = structured(belief, evidence.label, estimate_transitions(belief, evidence.label), seed=0)
        assert (share > 0) == expected, (kind, share, worth)


@pytest.mark.parametrize("kind", ["pair", "uniform"])
@pytest.mark.parametrize("rate", [0.05, 0.2, 0.35])
def test_the_count_is_near_the_truth_and_probabilities_are_calibrated(kind, rate):
    true, evidence, references = world(kind, samples=3000, rate=rate)
    model = fit(evidence, references)
    bad = evidence.label != true
    assert model.share == pytest.approx(bad.mean(), abs=0.03)
    assert model.interval[0] - 0.01 <= bad.mean() <= model.interval[1] + 0.01
    chance = model.probability(model.suspicion(evidence))
    assert chance.mean() == pytest.approx(model.share, abs=1e-6)
    for low in (0.0, 0.25, 0.5, 0.75):
        part = (chance >= low) & (chance < low + 0.25)
        if part.sum() > 60:
            assert chance[part].mean() == pytest.approx(bad[part].mean(), abs=0.15)
    other, sure = model.suggestion(evidence)
    found = bad & (chance > 0.5)
    assert (other[found] == true[found]).mean() > 0.8
    assert np.all((sure > 0) & (sure <= 1))


def test_structure_makes_the_ranking_better():
    from sklearn.metrics import average_precision_score

    true, evidence, references = world("pair", samples=3000, clarity=1.0)
    model = fit(evidence, references)
    flat = np.full((CLASSES, CLASSES), 0.2 / (CLASSES - 1))
    np.fill_diagonal(flat, 0.8)
    bad = evidence.label != true
    with_it, without = (
        average_precision_score(bad, m.suspicion(evidence)) for m in (model, replace(model, transitions=flat))
    )
    assert with_it > without + 0.02


def test_planted_labels_move_the_weights_to_the_source_that_knows():
    generator = np.random.default_rng(3)
    true = generator.integers(0, CLASSES, 400)
    label = (true + 1) % CLASSES
    good = softmax(4.0 * np.eye(CLASSES)[true])
    useless = softmax(2.0 * generator.standard_normal((400, CLASSES)))
    evidence = Evidence(label, np.log(useless)[None] * 0.15, good[None], useless)
    course, read, votes = planted_weights(evidence, dict(enumerate(true.tolist())))
    assert votes > 1.5 * WEIGHTS[2]
    assert course < 0.7 * WEIGHTS[0]
    assert read < 0.7 * WEIGHTS[1]
    few = planted_weights(evidence, {0: int(true[0])})
    np.testing.assert_allclose(few, WEIGHTS, rtol=0.35)


@given(st.integers(2, 8), st.floats(0, 1), st.integers(0, 99))
@settings(max_examples=50)
def test_shrinking_keeps_rows_and_diagonal(classes, share, seed):
    rows = np.random.default_rng(seed).dirichlet(np.ones(classes), classes)
    found = shrink(rows, share)
    np.testing.assert_allclose(found.sum(axis=1), 1)
    np.testing.assert_allclose(np.diag(found), np.diag(rows))
    if share == 1:
        np.testing.assert_allclose(found, rows)
    assert np.all(np.diag(origins(found)) == 1)


def test_posterior_is_bayes_rule():
    belief, transitions = np.array([[0.7, 0.3]]), np.array([[0.9, 0.1], [0.4, 0.6]])
    chance = posterior(belief, np.array([1]), transitions)
    np.testing.assert_allclose(chance, [[0.07 / 0.25, 0.18 / 0.25]])
    np.testing.assert_allclose(wrong(chance, np.array([1])), [0.28])


def test_small_functions():
    np.testing.assert_allclose(minimum(lambda t: (float(((t - 3) ** 2).sum()), 2 * (t - 3)), np.zeros(2)), [3, 3])
    np.testing.assert_allclose(sigmoid(np.array([-1000.0, 0.0, 1000.0])), [0, 0.5, 1])
    np.testing.assert_allclose(log_sum(np.array([[-np.inf, 2.0]])), [2.0])
