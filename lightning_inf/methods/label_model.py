r"""How likely each label is to be wrong, from several sources of evidence about the true one.

A source gives a log-belief :math:`\log p_m(k \mid x_i)` in each class. Three sources are known for training samples: the
mean probabilities over the course of training, which have seen the given label, and the read-out and the neighbours'
votes, which have not. The last two are known for the references as well, whose labels are taken to be right.

1. *Calibrate*: weights and class biases are fitted on the references, so that
   :math:`q_i(k) \propto \exp(\sum_m a_m \log p_m(k \mid x_i) + b_k)` is a calibrated belief that never saw the label.
2. *Transitions*: :math:`T_{ky}`, how often a sample of class k is labelled y, maximises
   :math:`\sum_i \log \sum_k q_i(k) T_{k y_i}`, which is concave. Its off-diagonal structure is kept in the part that
   predicts held-out labels, and only where it predicts them by more than beliefs are wrong anyway; its diagonal is then
   the maximum for that structure.
3. *Count*: :math:`\sum_i P_i`, with :math:`P_i = 1 - q_i(y_i) T_{y_i y_i} / \sum_k q_i(k) T_{k y_i}`, at the early
   checkpoints, and something for what that misses: noise whose structure was refused, and wrong labels that features
   have learned, of which the fall towards the late checkpoints tells.
4. *Rank* by the log-odds :math:`u_i` that another class, and not the given one, is the true one, under all three sources
   with fixed weights (or fitted ones, where some truth was planted) and the structure of T.
5. *Probability*: a logistic curve over :math:`u_i` that agrees with :math:`P_i` and adds up to the count.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from lightning_inf.methods.label_noise import (
    calibrate,
    calibrated,
    directions,
    estimate_rates,
    estimate_transitions,
    origins,
    posterior,
    structured,
    wrong,
)
from lightning_inf.methods.logits import Array, log_sum, minimum, sigmoid, softmax

#: Weights of the sources in the ranking: the course of training, the read-out, the neighbours. Chosen on data sets with
#: planted flips under other seeds than those that are reported on; see docs/evidence.md.
WEIGHTS = (1.0, 0.5, 0.25)
#: How far planted truth may move the logarithm of a weight, as a standard deviation of its prior.
FREEDOM = 0.5
#: Width of the softmax over the read-out's values, which are about 0 and 1.
TEMPERATURE = 0.15
#: No class is ruled out by a single source.
FLOOR = 1e-3
#: What is added to the share of wrong labels that early features show: of those that only the refused structure tells, and of
#: what the share falls by towards the late checkpoints. Chosen on the same seeds as the weights.
REFUSED, LEARNED = 0.25, 1 / 3
_RESAMPLES = 10


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
            early: Of the first half of the checkpoints alone, as features that were trained on a label for long begin to
                show it; else of the second half.
        """
        count = max(1, len(self.linear) // 2)
        half = slice(0, count) if early else slice(-count, None)
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


def fit(
    evidence: Evidence, references: Evidence, planted: Mapping[int, int] | None = None, seed: int = 0
) -> LabelModel:
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
    whole = estimate_transitions(belief, natural.label)
    transitions, structure, worth = structured(belief, natural.label, whole, seed)
    chance = posterior(belief, natural.label, transitions)
    seen = float(wrong(chance, natural.label).mean())
    weights = planted_weights(evidence, truth) if truth else WEIGHTS[-len(evidence.all()) :]
    model = LabelModel(weights, calibration, transitions, structure, worth, seen, (seen, seen))
    most = float(wrong(posterior(belief, natural.label, whole), natural.label).mean())
    share, interval = _count(model, most, natural, references, seed)
    model = replace(model, share=share, interval=interval)
    return _curve(model, evidence, kept, chance, truth)


def planted_weights(evidence: Evidence, truth: Mapping[int, int]) -> tuple[float, ...]:
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


def _count(
    model: LabelModel, most: float, natural: Evidence, references: Evidence, seed: int
) -> tuple[float, tuple[float, float]]:
    """Estimate the share of wrong labels, and its 95 % interval: three things move it, and none of them is known.

    Where the structure of T was refused, noise that has some is missed, while with the whole of it classes that look alike are
    taken for noise; the truth lies between. And features that were trained on a wrong label for long begin to show it as
    the right one: the share that is seen falls. By how much it falls from the early checkpoints to the late ones says how
    fast; how far it had fallen before lies between not at all and as far again. The interval spans both, and by what
    resampling samples and references moves the estimate.

    Args:
        model: With the share that is seen under its T.
        most: The share that is seen under the whole structure.
        natural: Of samples whose labels were not planted.
        references: Of samples whose labels are right.
        seed: Seed of the resamples.
    """
    generator = np.random.default_rng((seed, 2))
    sides = (natural.unseen(), references.unseen())
    shares = []
    for _ in range(_RESAMPLES):
        rows = generator.integers(0, len(natural.label), len(natural.label))
        held = generator.integers(0, len(references.label), len(references.label))
        again = calibrate([s[held] for s in sides[1]], references.label[held], model.calibration)
        shares.append(_share(again, [s[rows] for s in sides[0]], natural.label[rows], model.transitions))
    seen, spread = model.share, 1.96 * float(np.std(shares))
    late = calibrate(references.unseen(early=False), references.label, model.calibration)
    fallen = max(0.0, seen - _share(late, natural.unseen(early=False), natural.label, model.transitions))
    refused = max(0.0, most - seen)
    share = min(1.0, seen + REFUSED * refused + LEARNED * fallen)
    return share, (max(0.0, seen - spread), min(1.0, seen + refused + fallen + spread))


def _share(calibration: Array, sources: Sequence[Array], labels: NDArray[np.int64], start: Array) -> float:
    belief = calibrated(calibration, sources)
    transitions = estimate_rates(belief, labels, directions(start), start)
    return float(wrong(posterior(belief, labels, transitions), labels).mean())


def _curve(
    model: LabelModel, evidence: Evidence, kept: NDArray[np.int64], chance: Array, truth: Mapping[int, int]
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
