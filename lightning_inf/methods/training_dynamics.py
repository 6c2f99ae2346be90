"""Training dynamics: how the model took in each sample over the course of training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import ClassVar, Literal

import numpy as np

from lightning_inf.methods.method import Answers, Method, Question, Setting
from lightning_inf.sweep.measurements import OutputsAt

#: Entries of the dense table in which many classes are added up at once.
_DENSE = 20_000_000


class TrainingDynamics(Method):
    r"""Mean probabilities, margins and their spread over the checkpoints.

    ``label_score`` is :math:`\bar p_y / (\bar p_y + \max_{j \ne y} \bar p_j)` of the probabilities averaged over the
    checkpoints: in [0, 1], low where another label was believed more over the course of training. ``confidence`` and
    ``variability`` are mean and standard deviation of :math:`p_y` (Swayamdipta et al., EMNLP 2020), ``aum`` the mean
    of :math:`z_y - \max_{j \ne y} z_j` (Pleiss et al., NeurIPS 2020). ``loss``, ``probability`` and ``margin`` (the
    log-odds of the given label) are those of the analysed weights.

    For models that are no single-label classifiers only ``loss`` is filled in.

    Args:
        name: The method's name in the report.

    Example:
        >>> TrainingDynamics().rank_column
        'label_rank'
    """

    kind: ClassVar[Literal["references", "self", "dynamics"]] = "dynamics"
    polarity: ClassVar[str] = "low label_score: another label was believed more than the given one"
    formula = "label_score = p_y / (p_y + max of the others), p = mean probability over the checkpoints"

    def __init__(self, name: str = "training_dynamics") -> None:
        self.name = name

    @property
    def rank_column(self) -> str:
        """The default list's rank."""
        return "label_rank"

    @property
    def score_column(self) -> str:
        """The default list's score."""
        return "label_score"

    def ask(self, setting: Setting) -> list[Question]:
        """Ask for the outputs at each checkpoint."""
        looks = [OutputsAt(checkpoint) for checkpoint in setting.checkpoints]
        return [Question(None, looks, partial(self._score, looks, OutputsAt(setting.final)))]

    def _score(self, looks: list[OutputsAt], last: OutputsAt, answers: Answers) -> dict[str, np.ndarray]:
        """Average over the checkpoints."""
        final = answers[last.key]
        columns: dict[str, np.ndarray] = {"loss": final["loss"]}
        if "label" not in final:
            return columns
        seen = [answers[look.key] for look in looks]
        label = final["label"]
        given = np.stack([s["probability"] for s in seen]).astype(np.float64)
        mean = given.mean(axis=0)
        other_label, other = best_other(seen, label)
        total = mean + other
        score = np.divide(mean, total, out=np.full_like(mean, np.nan), where=total > 0)
        return columns | {
            "label": label,
            "probability": final["probability"],
            "margin": final["margin"],
            "confidence": mean,
            "variability": given.std(axis=0),
            "aum": np.stack([s["gap"] for s in seen]).astype(np.float64).mean(axis=0),
            "label_score": np.where(label >= 0, score, np.nan),
            "other_label": other_label,
            "other_confidence": other,
        }


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
