"""The label score: every source of evidence about a label, weighed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import numpy as np

from lightning_inf.checkpoints.checkpoint import Checkpoint
from lightning_inf.methods.label_model import Evidence, LabelModel, fit
from lightning_inf.methods.method import Answers, Method, Question, Setting
from lightning_inf.methods.training_dynamics import at_final
from lightning_inf.probes.neighbourhood import POOL, Neighbourhood
from lightning_inf.recording.recorded import Recorded
from lightning_inf.sweep.measurements import BeliefsAt, OutputsAt

#: Training samples that the model of the labels is fitted on, a seeded part where there are more.
FITTED = 5_000
#: References with a label below which beliefs can't be calibrated.
LEAST_REFERENCES = 30
#: Above this many classes a transition matrix has more entries than there are wrong labels to fill it.
MOST_CLASSES = 200


class LabelQuality(Method):
    r"""The probability that a given label is right, from all that training left behind.

    .. math:: s_i = 1 - \sigma(a u_i + b), \qquad
        u_i = \log \sum_{k \ne y_i} T_{k y_i} \prod_m p_m(k \mid i)^{w_m} - \log \prod_m p_m(y_i \mid i)^{w_m}

    The sources :math:`p_m` are the mean probabilities over the course of training, and, in the features of a few
    checkpoints, a read-out and the nearest neighbours, neither of which looks at the sample's own label. T says which
    classes are taken for which: it is estimated from the two sources that have not seen the label, calibrated on the
    references, and gives the number of wrong labels as well (:mod:`lightning_inf.methods.label_model`). A reference
    whose label is wrong does harm here: the references are the truth that everything is calibrated by.

    With ``InfluenceCallback(calibration_flips=0.01)`` the weights :math:`w_m` are fitted on the labels that were planted.
    Self-influence, the influence of the references and the final loss are not among the sources: on every data set with
    known flips that was tried, adding them took more from the ranking than it gave, and none says which class is right.

    Where the model is no single-label classifier, has more than 200 classes, or too few references with a label, it
    says nothing, and ``label_score`` is that of :class:`~lightning_inf.methods.training_dynamics.TrainingDynamics`.

    Args:
        checkpoints: How many checkpoints' features are asked: of two, one after a third of the training and the last.
        pool: The most training samples among which neighbours are sought.
        seed: Seed of the part that it is fitted on.
        name: The method's name in the report.

    Raises:
        ValueError: If a number is out of range.

    Example:
        >>> LabelQuality().score_column
        'label_score'
    """

    kind: ClassVar[Literal["references", "self", "dynamics"]] = "dynamics"
    judges: ClassVar[Literal["classes", "values"] | None] = "classes"
    polarity: ClassVar[str] = "low label_score: the given label is probably wrong"
    formula = (
        "label_score = 1 - P(wrong), from mean probabilities over the course of training, a read-out of the features"
        " without the sample, its nearest neighbours, and which classes are taken for which"
    )

    def __init__(self, checkpoints: int = 2, pool: int = POOL, seed: int = 0, name: str = "label_quality") -> None:
        if checkpoints < 1:
            raise ValueError(f"LabelQuality(checkpoints=...): expected 1 or more, found {checkpoints}")
        if pool < 10:
            raise ValueError(f"LabelQuality(pool=...): expected 10 samples or more, found {pool}")
        self.checkpoints = checkpoints
        self.pool = pool
        self.seed = seed
        self.name = name

    @property
    def rank_column(self) -> str:
        """The default list's rank."""
        return "label_rank"

    @property
    def score_column(self) -> str:
        """The default list's score."""
        return "label_score"

    def evidence(self, setting: Setting) -> str | None:
        """Say what the course of training is seen by."""
        if _usable(setting.recorded) is not None:
            return f"recorded while training; features at {len(self._places(setting))} checkpoint(s)"
        return f"forward passes at {len(self._places(setting))} checkpoint(s)"

    def ask(self, setting: Setting) -> list[Question]:
        """Ask for neighbours at a few checkpoints, and for outputs there where nothing was recorded."""
        places = self._places(setting)
        recorded = _usable(setting.recorded)
        beliefs = [BeliefsAt(c, Neighbourhood(c, self.pool, setting.joint.key)) for c in places]
        # What was recorded knows the labels, too: then no forward pass is needed for them.
        looks = [OutputsAt(c) for c in places] if recorded is None else []
        inquiry = _Inquiry(beliefs, looks, recorded, self._fitted(setting), dict(setting.planted), self.seed)
        return [Question(None, [*beliefs, *looks], inquiry.score, inquiry.remarks, inquiry.study, inquiry.details)]

    def _places(self, setting: Setting) -> list[Checkpoint]:
        """Choose evenly spaced checkpoints, the analysed one last, the first half a stride after the beginning."""
        found = list(setting.checkpoints)
        count = min(self.checkpoints, len(found))
        return [found[round((2 * i + 1) * (len(found) - 1) / (2 * count - 1))] for i in range(count)]

    def _fitted(self, setting: Setting) -> np.ndarray:
        """Draw the samples that the model is fitted on; planted ones are always among them."""
        scored = setting.samples
        if len(scored) > FITTED:
            drawn = np.random.default_rng(self.seed).choice(len(scored), FITTED, replace=False)
            scored = [scored[i] for i in drawn.tolist()]
        planted = np.array(sorted(setting.planted), dtype=np.int64)
        return np.union1d(np.asarray(scored, dtype=np.int64), planted[_among(planted, setting.samples)])


@dataclass
class _Inquiry:
    """One question: gathers evidence, fits the model on a part, then scores chunk by chunk."""

    beliefs: Sequence[BeliefsAt]
    looks: Sequence[OutputsAt]
    recorded: Recorded | None
    fitted: np.ndarray
    planted: Mapping[int, int]
    seed: int
    model: LabelModel | None = None
    reason: str | None = None
    _recalled: list[float] = field(default_factory=list)

    def study(self, chunks: Iterable[tuple[Answers, np.ndarray]]) -> None:
        """Fit the model on a part of the samples."""
        parts, indices, references = [], [], None
        for answers, chunk in chunks:
            near = slice(*np.searchsorted(self.fitted, [chunk[0], chunk[-1] + 1]))
            rows = np.isin(chunk, self.fitted[near])
            found = self._evidence(answers, chunk)
            if found is None:
                return
            references = references or self._references(answers)
            rows &= found.label >= 0
            parts.append(found.take(rows))
            indices.append(chunk[rows])
        if references is None or len(references.label) < LEAST_REFERENCES:
            count = 0 if references is None else len(references.label)
            self.reason = f"expected {LEAST_REFERENCES} references with a label or more, found {count}"
            return
        evidence, who = _joined(parts), np.concatenate(indices)
        if len(np.unique(evidence.label)) < 2:
            self.reason = "the training samples are of one class"
            return
        truth = {row: self.planted[i] for row, i in enumerate(who.tolist()) if i in self.planted}
        self.model = fit(evidence, references, truth, self.seed)
        rows = np.array(list(truth), dtype=np.int64)
        planted = evidence.take(rows)
        self._recalled = self.model.probability(self.model.suspicion(planted)).tolist() if truth else []

    def score(self, answers: Answers, indices: np.ndarray) -> dict[str, np.ndarray]:
        """Score a chunk; the labels and outputs alone where there is no model."""
        final = at_final(answers[self.looks[-1].key]) if self.looks else {"label": self._recorded_labels(indices)}
        found = self._evidence(answers, indices) if self.model is not None else None
        if found is None or self.model is None:
            return final | {"neighbour_agreement": np.full(len(indices), np.nan)}  # the column is always there
        known = np.flatnonzero(found.label >= 0)
        part = found.take(known)
        columns = {
            name: np.full(len(indices), np.nan)
            for name in ("label_score", "other_label", "other_confidence", "neighbour_agreement")
        }
        chance = self.model.probability(self.model.suspicion(part))
        other, sure = self.model.suggestion(part)
        columns["label_score"][known] = 1 - chance
        columns["other_label"][known] = other
        columns["other_confidence"][known] = chance * sure
        votes = part.votes.mean(axis=0)
        columns["neighbour_agreement"][known] = votes[np.arange(len(known)), part.label]
        return final | columns

    def remarks(self) -> list[str]:
        """Say why there is no model."""
        return [] if self.reason is None else [f"no combined label score: {self.reason}; see dynamics_score."]

    def details(self) -> dict[str, Any]:
        """Describe how the evidence was combined."""
        model = self.model
        if model is None:
            return {}
        names = ["course of training", "read-out of the features", "nearest neighbours"]
        return {
            "share": model.share,
            "interval": list(model.interval),
            "weights": dict(zip(names, model.weights, strict=True)),
            "weights_fitted_on_planted": bool(self._recalled),
            "structure": model.structure,
            "structure_worth_nats": model.worth,
            "transitions": model.transitions.round(5).tolist(),
            "curve": {"slope": model.slope, "offset": model.offset, "sharpness": model.sharpness},
            "fitted_on": len(self.fitted),
            "planted_probability_wrong": [round(p, 5) for p in self._recalled],
        }

    def _evidence(self, answers: Answers, indices: np.ndarray) -> Evidence | None:
        """Read a chunk's answers; None, with the reason, where a source is missing."""
        here = [answers[b.key] for b in self.beliefs if b.key in answers]
        outputs = [answers[look.key] for look in self.looks]
        if not here or (outputs and "label" not in outputs[0]):
            self.reason = self.reason or "the model is no single-label classifier, or its last module takes no features"
            return None
        classes = here[0]["linear"].shape[1]
        if classes > MOST_CLASSES:
            self.reason = f"there are {classes} classes, more than {MOST_CLASSES}"
            return None
        linear = np.stack([found["linear"] for found in here]).astype(np.float64)
        votes = np.stack([found["votes"] for found in here]).astype(np.float64)
        given = outputs[-1]["label"] if outputs else self._recorded_labels(indices)
        label = np.where(np.isfinite(linear).all(axis=(0, 2)), given, -1).astype(np.int64)
        return Evidence(label, linear, votes, self._course(outputs, indices, classes))

    def _recorded_labels(self, indices: np.ndarray) -> np.ndarray:
        """Labels as training saw them; -1 for samples that it never saw or that its loss ignored."""
        assert self.recorded is not None
        assert self.recorded.label is not None
        return self.recorded.label[indices].astype(np.int64)

    def _course(self, outputs: Sequence[Mapping[str, np.ndarray]], indices: np.ndarray, classes: int) -> np.ndarray:
        """Mean probabilities over the course of training, shape ``(n, C)``."""
        if self.recorded is None:
            return np.mean([_dense(found, classes) for found in outputs], axis=0)
        if self.recorded.mean_probabilities is not None:
            mean = self.recorded.mean_probabilities[indices].astype(np.float64)
        else:
            assert self.recorded.top is not None
            assert self.recorded.top_label is not None
            mean = _spread(self.recorded.top_label[indices], self.recorded.top[indices], classes)
        return np.where(np.isfinite(mean), mean, 1 / classes)  # never seen while training: no evidence

    def _references(self, answers: Answers) -> Evidence | None:
        """Read what was said of the references."""
        aside = [answers[b.neighbourhood.key] for b in self.beliefs if b.neighbourhood.key in answers]
        if not aside:
            return None
        stacks = [np.stack([a[f"reference_{name}"] for a in aside]).astype(np.float64) for name in ("linear", "votes")]
        labels = aside[0]["reference_label"].astype(np.int64)
        known = (labels >= 0) & (labels < stacks[0].shape[2]) & np.isfinite(stacks[0]).all(axis=(0, 2))
        return Evidence(labels, stacks[0], stacks[1]).take(known)


def _among(wanted: np.ndarray, samples: Sequence[int]) -> np.ndarray:
    """Tell which indices are scored; a range is not made into a list for it."""
    if isinstance(samples, range):
        return (wanted >= samples.start) & (wanted < samples.stop)
    return np.isin(wanted, np.asarray(samples, dtype=np.int64))


def _usable(recorded: Recorded | None) -> Recorded | None:
    """Return a recording that knows probabilities."""
    usable = recorded is not None and recorded.reason is None and recorded.confidence is not None
    return recorded if usable else None


def _joined(parts: Sequence[Evidence]) -> Evidence:
    """Put chunks together."""
    return Evidence(
        np.concatenate([p.label for p in parts]),
        np.concatenate([p.linear for p in parts], axis=1),
        np.concatenate([p.votes for p in parts], axis=1),
        np.concatenate([p.course for p in parts if p.course is not None]),
    )


def _dense(found: Mapping[str, np.ndarray], classes: int) -> np.ndarray:
    """Probabilities of all classes at one checkpoint."""
    if "probabilities" in found:
        return found["probabilities"].astype(np.float64)
    return _spread(found["top_label"], found["top"], classes)


def _spread(labels: np.ndarray, values: np.ndarray, classes: int) -> np.ndarray:
    """Fill a row from its largest entries, and spread what they leave over the other classes."""
    known = labels >= 0
    values = np.where(known, values, 0.0).astype(np.float64)
    left = np.clip(1 - np.nansum(values, axis=1, keepdims=True), 0, 1) / max(classes - labels.shape[1], 1)
    table = np.repeat(left, classes, axis=1)
    rows = np.repeat(np.arange(len(labels))[:, None], labels.shape[1], axis=1)
    table[rows[known], labels[known].astype(np.int64)] = values[known]
    return table
