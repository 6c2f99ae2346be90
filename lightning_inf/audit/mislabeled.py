"""Which labels are probably wrong, and what they should be."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass

import numpy as np

#: Without an estimate of how many labels are wrong, one is an issue where another was believed more over the course of
#: training.
THRESHOLD = 0.5
RULE = "label_score < 0.5: another label had a higher mean probability than the given one"
COUNT_RULE = "the most suspect samples, as many as labels are estimated to be wrong"
COUNT_RULE_OF_TARGETS = "the most suspect samples, as many as targets are estimated to be wrong"
RULE_OF_TARGETS = "not judged: there is no estimate of how many targets are wrong"


def complete_label_score(columns: MutableMapping[str, np.ndarray]) -> bool:
    """Let the course of training alone give ``label_score`` where nothing better is known.

    Args:
        columns: Scores by column; completed in place.

    Returns:
        Whether all the evidence was weighed.
    """
    if "label_score" in columns and np.isfinite(columns["label_score"]).any():
        return True
    if "dynamics_score" in columns:
        pairs = {"label_score": "dynamics_score", "other_label": "dynamics_other"}
        for name, source in {**pairs, "other_confidence": "dynamics_other_confidence"}.items():
            columns[name] = columns[source]
    return False


@dataclass(frozen=True)
class LabelIssues:
    """Findings about labels; arrays of shape ``(n,)`` over all samples.

    Attributes:
        is_issue: Whether the label is an issue; False where there is no evidence.
        threshold: The label is an issue where its score is below this.
        rule: How the threshold was set.
        interval: 95 % interval of the number of wrong labels; None where it was not estimated.
        known: Whether there is evidence at all.
        suggested: The label believed most, where it is an issue; else -1.
        confidence: The probability that it is right; NaN where nothing is suggested.
    """

    is_issue: np.ndarray
    known: np.ndarray
    suggested: np.ndarray
    confidence: np.ndarray
    threshold: float = THRESHOLD
    rule: str = RULE
    interval: tuple[int, int] | None = None

    @property
    def count(self) -> int:
        """The one count of label issues that page, table, summary and terminal show."""
        return int(self.is_issue.sum())


def label_issues(
    columns: Mapping[str, np.ndarray],
    samples: int,
    share: float | None = None,
    interval: tuple[float, float] | None = None,
) -> LabelIssues | None:
    """Find label issues by ``label_score``.

    Args:
        columns: Scores by column, with ``label_score``, ``other_label`` and ``other_confidence`` where there are classes,
            or with ``label_score`` and ``residual`` where there are targets of a regression.
        samples: n.
        share: Estimated share of wrong labels; None: the threshold is :data:`THRESHOLD`.
        interval: 95 % interval of the share.

    Returns:
        The findings, or None where there is nothing to judge.
    """
    if "label_score" not in columns:
        return None
    score = columns["label_score"]
    known = np.isfinite(score)
    threshold, rule, bounds = THRESHOLD, RULE, None
    if share is not None:
        rule = COUNT_RULE if "other_label" in columns else COUNT_RULE_OF_TARGETS
        threshold = _threshold(score[known], round(share * int(known.sum())))
    if interval is not None:
        bounds = (round(interval[0] * int(known.sum())), round(interval[1] * int(known.sum())))
    is_issue = known & (score < threshold)  # NaN is below nothing
    suggested, confidence = np.full(samples, -1, dtype=np.int64), np.full(samples, np.nan)
    rows = np.flatnonzero(is_issue)  # a few: only of these is anything suggested
    if "other_label" not in columns:  # what is expected of a target has a column of its own
        return LabelIssues(is_issue, known, suggested, confidence, threshold, rule, bounds)
    suggested[rows] = np.nan_to_num(columns["other_label"][rows], nan=-1)
    confidence[rows] = columns["other_confidence"][rows]
    return LabelIssues(is_issue, known, suggested, confidence, threshold, rule, bounds)


def _threshold(scores: np.ndarray, count: int) -> float:
    """Find the score that ``count`` samples are below; ties stay out together."""
    if count >= len(scores):
        return float("inf") if count else 0.0
    ordered = scores.copy()
    ordered.partition(count)
    return float(ordered[count])


def per_class(labels: np.ndarray, issues: np.ndarray, names: list[str] | None) -> list[dict[str, object]]:
    """Count samples and label issues for each given label.

    Args:
        labels: Given labels, -1 where there is none, shape ``(n,)``.
        issues: Whether each is an issue.
        names: Names of the classes.
    """
    found = []
    # One sort for all classes: there may be as many as a vocabulary has words.
    listed, samples = np.unique(labels[labels >= 0], return_counts=True)
    flawed = dict(zip(*(part.tolist() for part in np.unique(labels[issues], return_counts=True)), strict=True))
    for label, count in zip(listed.tolist(), samples.tolist(), strict=True):
        name = names[label] if names and label < len(names) else str(label)
        found.append({"label": label, "label_name": name, "samples": count, "label_issues": flawed.get(label, 0)})
    return found
