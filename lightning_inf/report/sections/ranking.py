"""The head of one ranking, as several sections show it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from lightning_inf.report.run import SAMPLE, SUGGESTION, Run

LIST_LENGTH = 50


@dataclass
class RankedList:
    """The head of one ranking, worst first.

    Attributes:
        name: Of the ranking.
        score: The column that is ranked.
        rank: The column of ranks.
        polarity: What the sign means.
        average_precision: Against known truth, where there is some.
        rows: Samples, first rank first.
        others: (heading, column) of the other rankings whose ranks stand beside each row.
    """

    name: str
    score: str
    rank: str
    polarity: str | None
    average_precision: float | None
    rows: list[dict[str, Any]]
    others: list[tuple[str, str]] = field(default_factory=list)

    @property
    def issues(self) -> int:
        """How many of the samples shown are label issues."""
        return sum(bool(row["is_label_issue"]) for row in self.rows)


#: The default list, described as methods are.
LABEL = {"name": "label_score", "columns": ["label_score"], "rank_column": "label_rank", "polarity": None}


def ranked_list(run: Run, method: dict[str, Any], limit: int = LIST_LENGTH) -> RankedList:
    """Read the head of a method's ranking.

    Args:
        run: The run.
        method: An entry of ``summary["methods"]``, or :data:`LABEL`.
        limit: How many samples.
    """
    name = method["name"]
    score = method["columns"][0] if method["columns"] else name
    rank = method["rank_column"] or f"{name}_rank"
    rows = run.ranked(rank, [*SAMPLE, *SUGGESTION, score, *run.rankings], limit)
    measured = (run.summary["known_issues"] or {}).get("methods", {})
    quality = measured.get(name) or measured.get(score) or {}
    # A ranking that is null for all these rows would be a column of dashes.
    filled = {column for row in rows for column in run.rankings if row[column] is not None}
    others = [(text, column) for column, text in run.rankings.items() if column != rank and column in filled]
    return RankedList(name, score, rank, method["polarity"], quality.get("average_precision"), rows, others)


def of_kind(run: Run, kind: str) -> dict[str, Any] | None:
    """Find the first method of a kind; among those of references, Forward-INF comes first."""
    found = [method for method in run.summary["methods"] if method["kind"] == kind]
    found.sort(key=lambda method: kind == "references" and not method["name"].startswith("forward_inf"))
    return found[0] if found else None
