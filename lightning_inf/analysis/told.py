"""What the user sees of a run without opening a file: the terminal and the loggers."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def show(content: Mapping[str, Any], directory: Path) -> None:
    """Print the summary of at most 24 lines."""
    from lightning_inf.report.run import ranked_rows
    from lightning_inf.report.terminal import summarize

    ranks = [method["rank_column"] for method in content["methods"]]
    first = "label_rank" if content["issues"][0]["num_issues"] is not None else next(iter(ranks), "label_rank")
    wanted = ["index", "sample_id", "label", "label_name", "suggested_label", "suggested_label_name"]
    wanted += ["target", "expected_target", "suggested_confidence", "is_label_issue", "label_score", *ranks]
    rows = ranked_rows(directory / "scores.parquet", first, list(dict.fromkeys(wanted)), limit=5)
    summarize(dict(content), rows, run_directory=os.path.relpath(directory))


def headline(content: Mapping[str, Any]) -> dict[str, float]:
    """The numbers that every logger gets."""
    numbers: dict[str, float] = {"influence/samples": float(content["dataset"]["scored"])}
    if (count := content["issues"][0]["num_issues"]) is not None:
        numbers[f"influence/{content['issues'][0]['issue_type']}_issues"] = float(count)
    for issue in content["issues"][1:]:
        if issue["num_issues"] is not None:
            numbers[f"influence/{issue['issue_type']}"] = float(issue["num_issues"])
    for name, found in (content["known_issues"] or {"methods": {}})["methods"].items():
        if found["average_precision"] is not None:
            numbers[f"influence/average_precision/{name}"] = found["average_precision"]
    return numbers
