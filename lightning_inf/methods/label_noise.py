"""Calibrated beliefs about true labels, and how labels go wrong: the transition matrix."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from lightning_inf.methods.logits import Array, minimum, normalised, softmax

#: Nats of held-out likelihood a wrong label that the structure of T must be worth. What beliefs that are calibrated on
#: other samples get wrong looks like structure, too; on data whose noise has none it was worth about half of this, on
#: data whose noise has some, twice.
WORTH = 0.15
SHARES = (0.0, 0.1, 0.2, 0.4, 0.6, 0.8, 0.9, 0.95, 1.0)
_FOLDS = 5


def calibrate(sources: Sequence[Array], labels: NDArray[np.int64], start: Array | None = None) -> Array:
    r"""Fit weights and class biases by maximum likelihood (vector scaling, Guo et al., ICML 2017).

    Args:
        sources: Log-beliefs, shape ``(m, C)`` each.
        labels: True labels, shape ``(m,)``.
        start: Where to start from.

    Returns:
        The weights, then the C biases.
    """
    stack = np.stack(sources)
    count, rows = len(sources), np.arange(len(labels))

    def loss(theta: Array) -> tuple[float, Array]:
        scale = np.exp(theta[:count])
        logits = np.tensordot(scale, stack, axes=1) + theta[count:]
        residual, total = normalised(logits)
        value = float(np.mean(total - logits[rows, labels]))
        residual[rows, labels] -= 1
        slope = np.concatenate([scale * np.tensordot(stack, residual, axes=2), residual.sum(axis=0)]) / len(labels)
        # A weak prior: no weight leaves the order of 1, no class is made up by a few samples.
        penalty = np.concatenate([0.01 * theta[:count], 0.02 * theta[count:]])
        return value + float(penalty @ theta), slope + 2 * penalty

    first = (
        np.zeros(count + stack.shape[2]) if start is None else np.concatenate([np.log(start[:count]), start[count:]])
    )
    found = minimum(loss, first, rounds=60 if start is None else 10)
    return np.concatenate([np.exp(found[:count]), found[count:]])


def calibrated(calibration: Array, sources: Sequence[Array]) -> Array:
    """Apply :func:`calibrate`'s result: beliefs of shape ``(m, C)``."""
    scale, bias = calibration[: len(sources)], calibration[len(sources) :]
    return softmax(np.tensordot(scale, np.stack(sources), axes=1) + bias)


def estimate_transitions(
    belief: Array, labels: NDArray[np.int64], start: Array | None = None, rounds: int = 200
) -> Array:
    r"""Maximise :math:`\sum_i \log \sum_k q_i(k) T_{k y_i}` by expectation maximisation.

    Args:
        belief: q, shape ``(m, C)``.
        labels: Given labels, shape ``(m,)``.
        start: T to start from.
        rounds: The most rounds.

    Returns:
        T, shape ``(C, C)``, rows adding up to 1.
    """
    classes = belief.shape[1]
    off = ~np.eye(classes, dtype=bool)
    current = np.where(off, 0.1 / max(classes - 1, 1), 0.9) if start is None else start
    given = np.eye(classes)[labels]
    for _ in range(rounds):
        # The posterior of a sample differs from its belief by its label's column of T, and by what it is divided by; so
        # all of them are added up by one product, and none is written down.
        whole = np.einsum("ik,ik->i", belief, current.T[labels])
        counts = current * (belief.T @ (given / np.maximum(whole, 1e-300)[:, None]))
        share = 1 - np.trace(counts) / counts.sum()
        counts += np.where(off, share / max(classes - 1, 1), 1 - share)  # one sample a class, spread evenly
        following = counts / counts.sum(axis=1, keepdims=True)
        if np.abs(following - current).max() < 1e-5:
            return following
        current = following
    return current


def estimate_rates(belief: Array, labels: NDArray[np.int64], spread: Array, start: Array | None = None) -> Array:
    r"""Maximise the same likelihood over how often labels of each class are right, where it is known where wrong ones go.

    .. math:: \sum_i \log \sum_k q_i(k) T_{k y_i}, \qquad T_{ky} = t_k \delta_{ky} + (1 - t_k) S_{ky}

    over the rates :math:`t_k`, for a given spread S. Each sample's term is the logarithm of a linear function of the rates, so
    Newton's method finds them in a few steps. A sample a class, right nine times in ten, keeps them between 0 and 1.

    Args:
        belief: q, shape ``(m, C)``.
        labels: Given labels, shape ``(m,)``.
        spread: S, shape ``(C, C)``, rows adding up to 1 and the diagonal 0.
        start: T to start from.

    Returns:
        T, shape ``(C, C)``, rows adding up to 1.
    """
    classes, away = belief.shape[1], spread.T[labels]
    linear, constant = belief * (np.eye(classes)[labels] - away), (belief * away).sum(axis=1)
    right = np.full(classes, 0.9) if start is None else np.clip(np.diag(start), 0.01, 0.99)

    def value(rates: Array) -> float:
        if rates.min() <= 0 or rates.max() >= 1:
            return -np.inf
        chance = np.maximum(constant + linear @ rates, 1e-300)
        return float(np.log(chance).sum() + (0.9 * np.log(rates) + 0.1 * np.log1p(-rates)).sum())

    reached = value(right)
    for _ in range(50):
        each = linear / np.maximum(constant + linear @ right, 1e-300)[:, None]
        slope = each.sum(axis=0) + 0.9 / right - 0.1 / (1 - right)
        curvature = each.T @ each + np.diag(0.9 / right**2 + 0.1 / (1 - right) ** 2)
        step = np.linalg.solve(curvature, slope)
        gained = float(slope @ step)
        while (further := value(right + step)) < reached and gained > 1e-6:
            step, gained = step / 2, gained / 2
        if gained <= 1e-6:
            break
        right, reached = right + step, further
    return np.where(np.eye(classes, dtype=bool), right[:, None], (1 - right)[:, None] * spread)


def structured(belief: Array, labels: NDArray[np.int64], whole: Array, seed: int) -> tuple[Array, float, float]:
    """Estimate T, with as much of its off-diagonal structure as predicts held-out labels.

    The diagonal is estimated anew under that structure: where beliefs are weak, what is left of a structure that isn't there
    takes a good part of it away.

    Args:
        belief: q, shape ``(m, C)``.
        labels: Given labels, shape ``(m,)``.
        whole: T by :func:`estimate_transitions`.
        seed: Seed of the folds.

    Returns:
        T; the share of the structure that is kept; nats of held-out likelihood a wrong label that it is worth.
    """
    folds = np.random.default_rng((seed, 1)).integers(0, _FOLDS, len(labels))
    gain = np.zeros(len(SHARES))
    for fold in range(_FOLDS):
        inside = folds != fold
        part = estimate_transitions(belief[inside], labels[inside], whole, rounds=50)
        gain += [
            np.log((belief[~inside] * shrink(part, share)[:, labels[~inside]].T).sum(axis=1) + 1e-12).sum()
            for share in SHARES
        ]
    expected = float(wrong(posterior(belief, labels, whole), labels).sum())
    best = int(gain.argmax())
    worth = float(gain[best] - gain[0]) / max(expected, 1.0)
    kept = SHARES[best] if worth >= WORTH else 0.0
    some = shrink(whole, kept)
    return estimate_rates(belief, labels, directions(some), some), kept, worth


def shrink(transitions: Array, share: float) -> Array:
    """Keep a share of each row's off-diagonal structure and spread the rest evenly; the diagonal stays."""
    classes = len(transitions)
    off = np.where(np.eye(classes, dtype=bool), 0.0, transitions)
    total = off.sum(axis=1, keepdims=True)
    even = np.where(np.eye(classes, dtype=bool), 0.0, total / max(classes - 1, 1))
    return np.where(np.eye(classes, dtype=bool), transitions, share * off + (1 - share) * even)


def directions(transitions: Array) -> Array:
    """Where a class's wrong labels go, shape ``(C, C)``, by row, the diagonal being 0; evenly where it has none."""
    off = np.where(np.eye(len(transitions), dtype=bool), 0.0, np.maximum(transitions, 1e-12))
    rows: Array = off / np.maximum(off.sum(axis=1, keepdims=True), 1e-300)
    return rows


def origins(transitions: Array) -> Array:
    """The same, the diagonal being 1: what the structure adds to a ranking."""
    diagonal = np.eye(len(transitions), dtype=bool)
    return np.where(diagonal, 1.0, np.maximum(directions(transitions), 1e-6))


def posterior(belief: Array, labels: NDArray[np.int64], transitions: Array) -> Array:
    r"""Compute :math:`q_i(k) T_{k y_i} / \sum_j q_i(j) T_{j y_i}`, shape ``(m, C)``."""
    joint = belief * transitions[:, labels].T
    return joint / np.maximum(joint.sum(axis=1, keepdims=True), 1e-300)


def wrong(chance: Array, labels: NDArray[np.int64]) -> Array:
    """Probability that another class than the given one is the true one, shape ``(m,)``."""
    return 1 - chance[np.arange(len(labels)), labels]
