"""Label issues, and counts by class."""

from __future__ import annotations

import numpy as np

from lightning_inf.audit.mislabeled import THRESHOLD, label_issues, per_class

NAN = float("nan")


def test_a_label_is_an_issue_below_one_half() -> None:
    columns = {
        "label_score": np.array([0.1, 0.5, 0.4999, NAN, 0.9, 0.0]),
        "other_label": np.array([2.0, 1.0, 0.0, NAN, 1.0, 3.0]),
        "other_confidence": np.array([0.9, 0.5, 0.4, NAN, 0.1, 1.0]),
    }
    found = label_issues(columns, 6)
    assert found is not None
    assert THRESHOLD == 0.5
    assert found.is_issue.tolist() == [True, False, True, False, False, True]
    assert found.known.tolist() == [True, True, True, False, True, True]
    assert found.suggested.tolist() == [2, -1, 0, -1, -1, 3]
    np.testing.assert_array_equal(found.confidence, [0.9, NAN, 0.4, NAN, NAN, 1.0])
    assert found.suggested.dtype == np.int64
    assert found.count == 3


def test_without_classes_there_are_none() -> None:
    assert label_issues({"loss": np.zeros(3)}, 3) is None


def test_counts_by_class() -> None:
    labels = np.array([0, 1, 1, -1, 3, 1])
    issues = np.array([False, True, False, True, True, True])
    assert per_class(labels, issues, ["a", "b"]) == [
        {"label": 0, "label_name": "a", "samples": 1, "label_issues": 0},
        {"label": 1, "label_name": "b", "samples": 3, "label_issues": 2},
        {"label": 3, "label_name": "3", "samples": 1, "label_issues": 1},
    ]
    assert per_class(labels, issues, None)[0]["label_name"] == "0"
    assert per_class(np.array([-1, -1]), np.array([True, True]), None) == []
