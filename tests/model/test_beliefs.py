"""The read-out against a refit without each sample, and the votes against scikit-learn."""

from __future__ import annotations

import numpy as np
import torch
from sklearn.linear_model import Ridge
from sklearn.neighbors import NearestNeighbors

from lightning_inf.model.beliefs import NEIGHBOURS, PRIOR, RIDGE, WIDTH, Bank, narrow

CLASSES = 4


def bank(samples: int = 40, width: int = 6) -> tuple[Bank, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    labels = torch.arange(samples) % CLASSES
    rows = torch.randn(samples, width, generator=generator) + labels[:, None] * 0.7
    return Bank.of(rows, labels, CLASSES), rows, labels


def test_the_read_out_leaves_each_sample_out():
    found, rows, labels = bank()
    features = found.prepared(rows)
    ours = found.linear(features, torch.arange(len(rows))).numpy()
    onehot = np.eye(CLASSES)[labels.numpy()]
    inputs = features.double().numpy()
    for i in range(len(rows)):
        kept = np.arange(len(rows)) != i
        # The last column is the intercept, penalised like the others.
        fit = Ridge(alpha=RIDGE * len(rows), fit_intercept=False).fit(inputs[kept], onehot[kept])
        np.testing.assert_allclose(ours[i], fit.predict(inputs[i : i + 1])[0], atol=1e-5)


def test_a_stranger_is_read_by_all():
    found, rows, labels = bank()
    features = found.prepared(rows[:5] + 0.1)
    fit = Ridge(alpha=RIDGE * len(rows), fit_intercept=False)
    fit.fit(found.prepared(rows).double().numpy(), np.eye(CLASSES)[labels.numpy()])
    ours = found.linear(features, torch.full((5,), -1)).numpy()
    np.testing.assert_allclose(ours, fit.predict(features.double().numpy()), atol=1e-5)


def test_votes_are_those_of_the_ten_nearest_others():
    found, rows, labels = bank()
    features = found.prepared(rows)
    ours = found.votes(features, torch.arange(len(rows))).numpy()
    plain = features[:, :-1].numpy()
    near = NearestNeighbors(n_neighbors=NEIGHBOURS + 1, metric="cosine").fit(plain)
    distance, who = near.kneighbors(plain)
    for i in range(len(rows)):
        others = [(d, j) for d, j in zip(distance[i], who[i], strict=True) if j != i][:NEIGHBOURS]
        expected = np.full(CLASSES, PRIOR)
        for d, j in others:
            expected[labels[j]] += max(1 - d, 0.0)
        np.testing.assert_allclose(ours[i], expected / expected.sum(), atol=1e-5)


def test_a_sample_has_no_vote_on_itself():
    found, rows, labels = bank()
    changed = Bank(**{**found.tensors(), "labels": labels.clone()})
    changed.labels[7] = (labels[7] + 1) % CLASSES
    features, place = found.prepared(rows[7:8]), torch.tensor([7])
    torch.testing.assert_close(found.votes(features, place), changed.votes(features, place))


def test_wide_features_keep_their_angles_and_are_projected_alike():
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(20, 4 * WIDTH, generator=generator)
    rows[1] = rows[0] + 0.3 * torch.randn(4 * WIDTH, generator=generator)
    small = narrow(rows)
    assert small.shape == (20, WIDTH)
    torch.testing.assert_close(small, narrow(rows))
    cosine = torch.nn.functional.cosine_similarity
    assert abs(cosine(small[0], small[1], dim=0) - cosine(rows[0], rows[1], dim=0)) < 0.1
    assert narrow(rows[:, :10]) is not None
    assert narrow(rows[:, :10]).shape == (20, 10)
