"""Which labels are probably wrong, and what they should be."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

#: A label is an issue where another one was believed more than it, on average over the course of training.
THRESHOLD = 0.5
RULE = "label_score < 0.5: another label had a higher mean probability than the given one"


@dataclass(frozen=True)
class LabelIssues:
    """Findings about labels; arrays of shape ``(n,)`` over all samples.

    Attributes:
        is_issue: Whether the label is an issue; False where there is no evidence.
        known: Whether there is evidence at all.
        suggested: The label believed most, where it is an issue; else -1.
        confidence: Its mean probability; NaN where nothing is suggested.
    """

    is_issue: np.ndarray
    known: np.ndarray
    suggested: np.ndarray
    confidence: np.ndarray

    @property
    def count(self) -> int:
        """The one count of label issues that page, table, summary and terminal show."""
        return int(self.is_issue.sum())


def label_issues(columns: Mapping[str, np.ndarray], samples: int) -> LabelIssues | None:
    """Find label issues in the columns of :class:`~lightning_inf.methods.training_dynamics.TrainingDynamics`.

    Args:
        columns: Scores by column.
        samples: n.

    Returns:
        The findings, or None where there are no classes.
    """
    if "label_score" not in columns:
        return None
    score = columns["label_score"]
    known = np.isfinite(score)
    is_issue = known & (np.where(known, score, 1.0) < THRESHOLD)
    suggested = np.where(is_issue, np.nan_to_num(columns["other_label"], nan=-1), -1).astype(np.int64)
    confidence = np.where(is_issue, columns["other_confidence"], np.nan)
    return LabelIssues(is_issue, known, suggested, confidence)


def per_class(labels: np.ndarray, issues: np.ndarray, names: list[str] | None) -> list[dict[str, object]]:
    """Count samples and label issues for each given label.

    Args:
        labels: Given labels, -1 where there is none, shape ``(n,)``.
        issues: Whether each is an issue.
        names: Names of the classes.
    """
    found = []
    for label in np.unique(labels[labels >= 0]).tolist():
        of_class = labels == label
        name = names[label] if names and label < len(names) else str(label)
        counts = {"samples": int(of_class.sum()), "label_issues": int((of_class & issues).sum())}
        found.append({"label": label, "label_name": name, **counts})
    return found
