r"""How likely each label is to be wrong, from several sources of evidence about the true one.

A source gives a log-belief :math:`\log p_m(k \mid x_i)` in each class. Three sources are known for training samples: the
mean probabilities over the course of training, which have seen the given label, and the read-out and the neighbours'
votes, which have not. The last two are known for the references as well, whose labels are taken to be right.

1. *Calibrate*: weights and class biases are fitted on the references, so that
   :math:`q_i(k) \propto \exp(\sum_m a_m \log p_m(k \mid x_i) + b_k)` is a calibrated belief that never saw the label.
2. *Transitions*: :math:`T_{ky}`, how often a sample of class k is labelled y, maximises
   :math:`\sum_i \log \sum_k q_i(k) T_{k y_i}`, which is concave. Its off-diagonal structure is kept in the part that
   predicts held-out labels, and only where it predicts them by more than beliefs are wrong anyway.
3. *Count*: :math:`\sum_i P_i`, with :math:`P_i = 1 - q_i(y_i) T_{y_i y_i} / \sum_k q_i(k) T_{k y_i}`.
4. *Rank* by the log-odds :math:`u_i` that another class, and not the given one, is the true one, under all three sources
   with fixed weights (or fitted ones, where some truth was planted) and the structure of T.
5. *Probability*: a logistic curve over :math:`u_i` that agrees with :math:`P_i` and adds up to the count.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

#: Weights of the sources in the ranking: the course of training, the read-out, the neighbours. Chosen on data sets with
#: planted flips under other seeds than those that are reported on; see docs/evidence.md.
WEIGHTS = (1.0, 0.5, 0.25)
#: How far planted truth may move the logarithm of a weight, as a standard deviation of its prior.
FREEDOM = 0.5
#: Width of the softmax over the read-out's values, which are about 0 and 1.
TEMPERATURE = 0.15
#: No class is ruled out by a single source.
FLOOR = 1e-3
#: Nats of held-out likelihood a wrong label that the structure of T must be worth. What beliefs that are calibrated on
#: other samples get wrong looks like structure, too, and is worth about half of this.
WORTH = 0.1
SHARES = (0.0, 0.1, 0.2, 0.4, 0.6, 0.8, 0.9, 0.95, 1.0)
_FOLDS = 5
_RESAMPLES = 20


@dataclass(frozen=True)
class Evidence:
    """What is known of m samples.

    Attributes:
        label: Given labels, shape ``(m,)``.
        linear: The read-out at each checkpoint, shape ``(checkpoints, m, C)``.
        votes: Shares of the neighbours' votes at each checkpoint, shape ``(checkpoints, m, C)``.
        course: Mean probabilities over the course of training, shape ``(m, C)``; None for references.
    """

    label: NDArray[np.int64]
    linear: Array
    votes: Array
    course: Array | None = None

    def take(self, rows: NDArray[np.int64] | NDArray[np.bool_]) -> Evidence:
        """Return some of the samples."""
        course = None if self.course is None else self.course[rows]
        return Evidence(self.label[rows], self.linear[:, rows], self.votes[:, rows], course)

    def unseen(self, early: bool = True) -> list[Array]:
        """Log-beliefs of the two sources that have not seen the label, shape ``(m, C)`` each.

        Args:
            early: Of the first half of the checkpoints alone: features that were trained on a label for long begin to
                show it.
        """
        half = slice(0, max(1, len(self.linear) // 2)) if early else slice(None)
        return [self.linear[half].mean(axis=0) / TEMPERATURE, np.log(self.votes[half].mean(axis=0) + FLOOR)]

    def all(self) -> list[Array]:
        """Log-beliefs of all sources over all checkpoints, shape ``(m, C)`` each."""
        read = np.log(np.mean([softmax(values / TEMPERATURE) for values in self.linear], axis=0) + FLOOR)
        course = [] if self.course is None else [np.log(self.course + FLOOR)]
        return [*course, read, np.log(self.votes.mean(axis=0) + FLOOR)]


@dataclass(frozen=True)
class LabelModel:
    """The fitted model.

    Attributes:
        weights: Of the sources in the ranking.
        calibration: Weights and class biases of the unseen sources, shape ``(2 + C,)``.
        transitions: T, shape ``(C, C)``; a row is a true class.
        structure: The share of T's off-diagonal structure that is used; 0: every wrong class is as likely.
        worth: Nats of held-out likelihood a wrong label that the structure is worth.
        share: Estimated share of wrong labels.
        interval: 95 % interval of that.
        slope: Of the logistic curve.
        offset: Of the logistic curve.
        sharpness: Exponent of the beliefs among the other classes, for the confidence in a suggestion.
    """

    weights: tuple[float, ...]
    calibration: Array
    transitions: Array
    structure: float
    worth: float
    share: float
    interval: tuple[float, float]
    slope: float = 1.0
    offset: float = 0.0
    sharpness: float = 1.0
    notes: list[str] = field(default_factory=list)

    def belief(self, evidence: Evidence, early: bool = True) -> Array:
        """Calibrated beliefs that have not seen the label, shape ``(m, C)``."""
        return calibrated(self.calibration, evidence.unseen(early))

    def others(self, evidence: Evidence) -> tuple[Array, Array]:
        """Log-belief in each class as the origin of the given label, and in the given label: ``(m, C)``, ``(m,)``.

        The given label's own entry of the first is minus infinity.
        """
        total = sum(w * source for w, source in zip(self.weights, evidence.all(), strict=True))
        assert isinstance(total, np.ndarray)
        rows = np.arange(len(evidence.label))
        own = total[rows, evidence.label].copy()
        total = total + np.log(origins(self.transitions)[:, evidence.label].T)
        total[rows, evidence.label] = -np.inf
        return total, own

    def suspicion(self, evidence: Evidence) -> Array:
        """The log-odds u that another class is the true one, shape ``(m,)``."""
        other, own = self.others(evidence)
        return log_sum(other) - own

    def probability(self, suspicion: Array) -> Array:
        """Turn log-odds into the probability that the label is wrong, shape ``(m,)``."""
        return sigmoid(self.slope * suspicion + self.offset)

    def suggestion(self, evidence: Evidence) -> tuple[NDArray[np.int64], Array]:
        """The likeliest other label, and its probability where the given one is wrong: shape ``(m,)`` each."""
        other, _ = self.others(evidence)
        return other.argmax(axis=1), softmax(self.sharpness * other).max(axis=1)


def fit(evidence: Evidence, references: Evidence, planted: dict[int, int] | None = None, seed: int = 0) -> LabelModel:
    """Fit the model.

    Args:
        evidence: Of training samples.
        references: Of samples whose labels are right.
        planted: The true label by row of ``evidence``, where the given one was planted.
        seed: Seed of folds and resamples.

    Returns:
        The model.
    """
    truth = planted or {}
    kept = np.setdiff1d(np.arange(len(evidence.label)), np.array(list(truth), dtype=np.int64))
    natural = evidence.take(kept)
    calibration = calibrate(references.unseen(), references.label)
    belief = calibrated(calibration, natural.unseen())
    transitions, structure, worth = structured(belief, natural.label, seed)
    chance = posterior(belief, natural.label, transitions)
    share = float(wrong(chance, natural.label).mean())
    weights = planted_weights(evidence, truth) if truth else WEIGHTS[-len(evidence.all()) :]
    model = LabelModel(weights, calibration, transitions, structure, worth, share, (share, share))
    model = replace(model, interval=_interval(model, natural, references, seed))
    return _curve(model, evidence, kept, chance, truth)


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
        chance = softmax(logits)
        value = float(np.mean(log_sum(logits) - logits[rows, labels]))
        residual = chance.copy()
        residual[rows, labels] -= 1
        slope = np.concatenate([scale * (residual[None] * stack).sum(axis=(1, 2)), residual.sum(axis=0)]) / len(labels)
        # A weak prior: no weight leaves the order of 1, no class is made up by a few samples.
        penalty = np.concatenate([0.01 * theta[:count], 0.02 * theta[count:]])
        return value + float(penalty @ theta), slope + 2 * penalty

    first = np.zeros(count + stack.shape[2]) if start is None else np.concatenate([np.log(start[:count]), start[count:]])
    found = minimum(loss, first)
    return np.concatenate([np.exp(found[:count]), found[count:]])


def calibrated(calibration: Array, sources: Sequence[Array]) -> Array:
    """Apply :func:`calibrate`'s result: beliefs of shape ``(m, C)``."""
    scale, bias = calibration[: len(sources)], calibration[len(sources) :]
    return softmax(np.tensordot(scale, np.stack(sources), axes=1) + bias)


def estimate_transitions(belief: Array, labels: NDArray[np.int64], start: Array | None = None, rounds: int = 200) -> Array:
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
        counts = posterior(belief, labels, current).T @ given
        share = 1 - np.trace(counts) / counts.sum()
        counts += np.where(off, share / max(classes - 1, 1), 1 - share)  # one sample a class, spread evenly
        following = counts / counts.sum(axis=1, keepdims=True)
        if np.abs(following - current).max() < 1e-5:
            return following
        current = following
    return current


def structured(belief: Array, labels: NDArray[np.int64], seed: int) -> tuple[Array, float, float]:
    """Estimate T, with as much of its off-diagonal structure as predicts held-out labels.

    Returns:
        T; the share of the structure that is kept; nats of held-out likelihood a wrong label that it is worth.
    """
    folds = np.random.default_rng(seed).integers(0, _FOLDS, len(labels))
    gain = np.zeros(len(SHARES))
    whole = estimate_transitions(belief, labels)
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
    return shrink(whole, kept), kept, worth


def shrink(transitions: Array, share: float) -> Array:
    """Keep a share of each row's off-diagonal structure and spread the rest evenly; the diagonal stays."""
    classes = len(transitions)
    off = np.where(np.eye(classes, dtype=bool), 0.0, transitions)
    total = off.sum(axis=1, keepdims=True)
    even = np.where(np.eye(classes, dtype=bool), 0.0, total / max(classes - 1, 1))
    return np.where(np.eye(classes, dtype=bool), transitions, share * off + (1 - share) * even)


def origins(transitions: Array) -> Array:
    """Where a class's wrong labels go, by row, the diagonal being 1: what the structure adds to a ranking."""
    off = np.where(np.eye(len(transitions), dtype=bool), 0.0, transitions)
    rows = off / np.maximum(off.sum(axis=1, keepdims=True), 1e-12)
    return np.where(np.eye(len(transitions), dtype=bool), 1.0, np.maximum(rows, 1e-6))


def posterior(belief: Array, labels: NDArray[np.int64], transitions: Array) -> Array:
    r"""Compute :math:`q_i(k) T_{k y_i} / \sum_j q_i(j) T_{j y_i}`, shape ``(m, C)``."""
    joint = belief * transitions[:, labels].T
    return joint / np.maximum(joint.sum(axis=1, keepdims=True), 1e-300)


def wrong(chance: Array, labels: NDArray[np.int64]) -> Array:
    """Probability that another class than the given one is the true one, shape ``(m,)``."""
    return 1 - chance[np.arange(len(labels)), labels]


def planted_weights(evidence: Evidence, truth: dict[int, int]) -> tuple[float, ...]:
    """Fit the sources' weights on planted labels: which weighing is surest of the labels that were replaced?

    The planted label itself is handicapped by a constant of its own, because the course of training has seen it.

    Returns:
        The weights, near :data:`WEIGHTS` where little was planted.
    """
    rows = np.array(list(truth), dtype=np.int64)
    right = np.array(list(truth.values()), dtype=np.int64)
    part = evidence.take(rows)
    stack = np.stack(part.all())
    prior = np.concatenate([np.log(WEIGHTS[-len(stack) :]), [1.0]])
    freedom = np.array([FREEDOM] * len(stack) + [1.0])
    each = np.arange(len(rows))

    def loss(theta: Array) -> tuple[float, Array]:
        scale = np.exp(theta[:-1])
        logits = np.tensordot(scale, stack, axes=1)
        logits[each, part.label] -= theta[-1]
        residual = softmax(logits)
        value = float((log_sum(logits) - logits[each, right]).sum())
        own = residual[each, part.label] - (part.label == right)
        residual[each, right] -= 1
        slope = np.concatenate([scale * (residual[None] * stack).sum(axis=(1, 2)), [-own.sum()]])
        apart = (theta - prior) / freedom
        return value + 0.5 * float(apart @ apart), slope + apart / freedom

    return tuple(float(w) for w in np.exp(minimum(loss, prior)[:-1]))


def _interval(model: LabelModel, natural: Evidence, references: Evidence, seed: int) -> tuple[float, float]:
    """Resample both sides, and widen by what the later checkpoints say: they have begun to show the given label."""
    generator = np.random.default_rng(seed)
    sides = (natural.unseen(), references.unseen())
    shares = []
    for _ in range(_RESAMPLES):
        rows = generator.integers(0, len(natural.label), len(natural.label))
        held = generator.integers(0, len(references.label), len(references.label))
        again = calibrate([s[held] for s in sides[1]], references.label[held], model.calibration)
        shares.append(_share(again, [s[rows] for s in sides[0]], natural.label[rows], model.transitions))
    middle, spread = model.share, 1.96 * float(np.std(shares))
    late = calibrate(references.unseen(early=False), references.label, model.calibration)
    later = _share(late, natural.unseen(early=False), natural.label, model.transitions)
    return max(0.0, min(middle, later) - spread), min(1.0, max(middle, later) + spread)


def _share(calibration: Array, sources: Sequence[Array], labels: NDArray[np.int64], start: Array) -> float:
    belief = calibrated(calibration, sources)
    transitions = estimate_transitions(belief, labels, np.maximum(start, 1e-4), rounds=25)
    return float(wrong(posterior(belief, labels, transitions), labels).mean())


def _curve(
    model: LabelModel, evidence: Evidence, kept: NDArray[np.int64], chance: Array, truth: dict[int, int]
) -> LabelModel:
    """Fit the logistic curve and the sharpness to the unseen posterior and to what was planted."""
    suspicion = model.suspicion(evidence)
    rows = np.concatenate([kept, np.array(list(truth), dtype=np.int64)])
    labels = evidence.label[kept]
    target = np.concatenate([wrong(chance, labels), np.ones(len(truth))])
    u = suspicion[rows]

    def curve(theta: Array) -> tuple[float, Array]:
        slope = np.exp(theta[0])
        z = slope * u + theta[1]
        value = float((np.logaddexp(0, z) - target * z).mean())
        residual = (sigmoid(z) - target) / len(u)
        return value, np.array([slope * float(residual @ u), float(residual.sum())])

    found = minimum(curve, np.array([0.0, -1.0]))
    slope = float(np.exp(found[0]))
    # The offset is moved so that the probabilities add up to the count.
    low, high = -60.0, 60.0
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if sigmoid(slope * suspicion[kept] + middle).mean() < model.share else (low, middle)
    other, _ = model.others(evidence)
    known = np.zeros((len(rows), chance.shape[1]))
    known[: len(kept)] = chance
    known[np.arange(len(kept)), labels] = 0.0
    for place, right in enumerate(truth.values(), start=len(kept)):
        known[place, right] = float(right != evidence.label[rows[place]])
    finite = np.where(np.isfinite(other[rows]), other[rows], -1e9)
    options = np.geomspace(0.1, 3.0, 25)
    fits = [float((known * (b * finite - log_sum(b * finite)[:, None])).sum()) for b in options]
    return replace(model, slope=slope, offset=(low + high) / 2, sharpness=float(options[int(np.argmax(fits))]))


def minimum(loss: object, start: Array) -> Array:
    """Minimise a smooth function that returns its value and gradient (L-BFGS)."""
    import torch

    theta = torch.tensor(start, dtype=torch.float64, requires_grad=True)
    solver = torch.optim.LBFGS([theta], max_iter=100, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        value, slope = loss(theta.detach().numpy())  # type: ignore[operator]
        theta.grad = torch.from_numpy(np.asarray(slope, dtype=np.float64))
        return torch.tensor(value, dtype=torch.float64)

    solver.step(closure)  # type: ignore[no-untyped-call]
    return theta.detach().numpy().copy()


def softmax(values: Array) -> Array:
    """Softmax over the last dimension."""
    raised = np.exp(values - values.max(axis=-1, keepdims=True))
    total: Array = raised / raised.sum(axis=-1, keepdims=True)
    return total


def log_sum(values: Array) -> Array:
    """Logarithm of the sum of exponentials over the last dimension."""
    most = values.max(axis=-1)
    total: Array = most + np.log(np.exp(values - most[..., None]).sum(axis=-1))
    return total


def sigmoid(values: Array) -> Array:
    """The logistic function, without overflow."""
    found: Array = 0.5 * (1 + np.tanh(values / 2))
    return found
