"""Training dynamics: how the model took in each sample over the course of training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import ClassVar, Literal

import numpy as np

from lightning_inf.methods.method import Answers, Method, Question, Setting
from lightning_inf.recording.recorded import Recorded
from lightning_inf.sweep.measurements import OutputsAt

#: Entries of the dense table in which many classes are added up at once.
_DENSE = 20_000_000


class TrainingDynamics(Method):
    r"""Mean probabilities, margins and their spread over the course of training.

    ``dynamics_score`` is :math:`\bar p_y / (\bar p_y + \max_{j \ne y} \bar p_j)` of the mean probabilities: in [0, 1], low
    where another label was believed more over the course of training. ``confidence`` and ``variability`` are mean and
    standard deviation of :math:`p_y` (Swayamdipta et al., EMNLP 2020), ``aum`` the mean of
    :math:`z_y - \max_{j \ne y} z_j` (Pleiss et al., NeurIPS 2020), ``el2n`` the mean of
    :math:`\lVert p - e_y \rVert_2` (Paul et al., NeurIPS 2021), ``forgetting`` counts how often the sample was predicted
    right and then wrong (Toneva et al., ICLR 2019), ``learned_epoch`` is the first epoch in which it was right.
    ``loss``, ``probability`` and ``margin`` (the log-odds of the given label) are those of the analysed weights.

    The means are over the epochs, as the training steps themselves saw the samples, where that was recorded; else over
    the checkpoints, where ``el2n``, ``forgetting`` and ``learned_epoch`` stay empty. For models that are no single-label
    classifiers only ``loss`` is filled in, for regressions of one number a sample also ``target`` and ``prediction``.

    Args:
        source: ``recorded`` while training, the captured ``checkpoints``, or ``auto``: recorded where it was.
        name: The method's name in the report.

    Raises:
        ValueError: If ``source`` is none of these.

    Example:
        >>> TrainingDynamics().rank_column
        'dynamics_rank'
    """

    kind: ClassVar[Literal["references", "self", "dynamics"]] = "dynamics"
    polarity: ClassVar[str] = "low dynamics_score: another label was believed more than the given one"
    formula = "dynamics_score = p_y / (p_y + max of the others), p = mean probability over the course of training"

    def __init__(
        self, source: Literal["auto", "recorded", "checkpoints"] = "auto", name: str = "training_dynamics"
    ) -> None:
        if source not in ("auto", "recorded", "checkpoints"):
            raise ValueError(
                f"TrainingDynamics(source=...): expected 'auto', 'recorded' or 'checkpoints', found {source!r}"
            )
        self.source = source
        self.name = name

    @property
    def rank_column(self) -> str:
        """Where its rank stands."""
        return "dynamics_rank"

    @property
    def score_column(self) -> str:
        """Where its score stands; also ``label_score`` where nothing better is known."""
        return "dynamics_score"

    def evidence(self, setting: Setting) -> str | None:
        """Say whether the means are over epochs or checkpoints."""
        if self._recorded(setting) is not None:
            return "recorded while training"
        return f"forward passes at {len(setting.checkpoints)} checkpoint(s)"

    def ask(self, setting: Setting) -> list[Question]:
        """Ask for the outputs at the analysed weights, and at each checkpoint where nothing was recorded."""
        last = OutputsAt(setting.final)
        recorded = self._recorded(setting)
        if recorded is not None:
            return [Question(None, [last], partial(self._from_recording, recorded, last))]
        looks = [OutputsAt(checkpoint) for checkpoint in setting.checkpoints]
        return [Question(None, looks, partial(self._from_checkpoints, looks, last))]

    def _recorded(self, setting: Setting) -> Recorded | None:
        """Return the recording, if it is to be used and knows probabilities."""
        recorded = setting.recorded
        usable = recorded is not None and recorded.reason is None and recorded.confidence is not None
        if self.source == "recorded" and not usable:
            reason = (
                recorded.reason if recorded is not None and recorded.reason else "nothing was recorded for these data"
            )
            raise ValueError(f"TrainingDynamics(source='recorded'): {reason}; use source='auto' or 'checkpoints'.")
        return recorded if usable and self.source != "checkpoints" else None

    def _from_recording(
        self, recorded: Recorded, last: OutputsAt, answers: Answers, indices: np.ndarray
    ) -> dict[str, np.ndarray]:
        """Read the means that the training steps left."""
        final = answers[last.key]
        assert recorded.label is not None
        assert recorded.confidence is not None
        assert recorded.learned_epoch is not None
        label, confidence = recorded.label[indices], recorded.confidence[indices]
        other_label, other = _recorded_other(recorded, label, indices)
        seen = {name: getattr(recorded, name)[indices] for name in ("variability", "aum", "el2n", "forgetting")}
        learned = recorded.learned_epoch[indices].astype(np.float64)
        unseen = ~np.isfinite(confidence)
        return at_final(final) | {
            "confidence": confidence,
            **{name: np.where(unseen, np.nan, values) for name, values in seen.items()},
            "learned_epoch": np.where(unseen | (learned < 0), np.nan, learned),
            "dynamics_score": _score(confidence, other, label),
            "dynamics_other": other_label,
            "dynamics_other_confidence": other,
        }

    def _from_checkpoints(
        self, looks: list[OutputsAt], last: OutputsAt, answers: Answers, indices: np.ndarray
    ) -> dict[str, np.ndarray]:
        """Average over the checkpoints."""
        final = answers[last.key]
        if "label" not in final:
            return at_final(final)
        seen = [answers[look.key] for look in looks]
        label = final["label"]
        given = np.stack([s["probability"] for s in seen]).astype(np.float64)
        confidence = given.mean(axis=0)
        other_label, other = best_other(seen, label)
        return at_final(final) | {
            "confidence": confidence,
            "variability": given.std(axis=0),
            "aum": np.stack([s["gap"] for s in seen]).astype(np.float64).mean(axis=0),
            "dynamics_score": _score(confidence, other, label),
            "dynamics_other": other_label,
            "dynamics_other_confidence": other,
        }


def at_final(final: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Columns of the analysed weights."""
    names = ("loss", "label", "probability", "margin", "target", "prediction")
    return {name: final[name] for name in names if name in final}


def _score(given: np.ndarray, other: np.ndarray, label: np.ndarray) -> np.ndarray:
    """Set the given label's mean probability against the best other's; NaN without a label."""
    total = given + other
    score = np.divide(given, total, out=np.full_like(given, np.nan), where=total > 0)
    return np.where(label >= 0, score, np.nan)


def _recorded_other(recorded: Recorded, label: np.ndarray, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Find the best label besides the given one in a recording."""
    if recorded.mean_probabilities is not None:
        mean = recorded.mean_probabilities[indices].astype(np.float64)
        unseen = ~np.isfinite(mean).all(axis=1)
        mean[unseen] = 0.0
        rows = np.arange(len(label))
        mean[rows[label >= 0], label[label >= 0]] = -1.0
        other = mean.argmax(axis=1)
        return other, np.where(unseen, np.nan, mean[rows, other])
    assert recorded.top_label is not None
    assert recorded.top is not None
    return recorded.top_label[indices, 1], recorded.top[indices, 1].astype(np.float64)


def best_other(seen: Sequence[Mapping[str, np.ndarray]], label: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Find the best label besides the given one, by probabilities averaged over checkpoints.

    Args:
        seen: The columns of ``OutputsAt`` at each checkpoint.
        label: Given labels, shape ``(n,)``; -1 where there is none.

    Returns:
        The label, shape ``(n,)``, and its mean probability, fp64. Where only the 16 largest probabilities were kept,
        a label counts as 0 at checkpoints that did not have it among them.
    """
    first = seen[0]
    count = len(label)
    rows = np.arange(count)
    if "probabilities" in first:
        mean: np.ndarray = np.asarray(np.mean([s["probabilities"] for s in seen], axis=0, dtype=np.float64))
        mean[rows[label >= 0], label[label >= 0]] = -1.0
        other = mean.argmax(axis=1)
        return other, mean[rows, other]
    classes = int(first["classes"][0]) if count else 0
    labels, values = np.zeros(count, dtype=np.int64), np.zeros(count)
    step = max(1, _DENSE // max(classes, 1))
    for start in range(0, count, step):
        part = slice(start, start + step)
        table = np.zeros((len(label[part]), classes))
        local = np.arange(len(table))
        for s in seen:
            np.add.at(table, (local[:, None], s["top_label"][part]), s["top"][part])
        known = label[part] >= 0
        table[local[known], label[part][known]] = -1.0
        labels[part] = table.argmax(axis=1)
        values[part] = table[local, labels[part]] / len(seen)
    return labels, values
