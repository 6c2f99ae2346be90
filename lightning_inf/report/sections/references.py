"""Section 5: which training samples move the predictions on held-out references."""

from __future__ import annotations

from typing import Any

from lightning_inf.report.format import finite
from lightning_inf.report.run import SAMPLE, Run
from lightning_inf.report.sections.ranking import LIST_LENGTH, of_kind, ranked_list

TITLE = "Influence"
REFERENCES = 16
EACH_WAY = 5
BAR_WIDTH = 60


def context(run: Run) -> dict[str, Any]:
    """Give the most harmful samples, and the strongest ones in both directions for the first references."""
    method = of_kind(run, "references")
    found = ranked_list(run, method) if method else None
    one_by_one = _attributions(run, found.name if found else None)
    return {"list": found, "label_issue": run.label_issue, "length": LIST_LENGTH, "attributions": one_by_one}


def _attributions(run: Run, preferred: str | None) -> dict[str, Any]:
    methods = list(dict.fromkeys(method for method, _ in run.attributions))
    if not methods:
        return {"method": None, "methods": [], "total": 0, "references": []}
    method = preferred if preferred in methods else methods[0]
    references = [reference for name, reference in run.attributions if name == method]
    groups = [_reference(run.attributions[method, index]) for index in references[:REFERENCES]]
    _add_labels(run, [row for group in groups for row in (*group["helps"], *group["hurts"])])
    return {"method": method, "methods": methods, "total": len(references), "references": groups}


def _reference(rows: list[dict[str, Any]]) -> dict[str, Any]:
    ends = {way: [dict(row) for row in rows if row["direction"] == way][:EACH_WAY] for way in ("helps", "hurts")}
    sizes = [abs(row["influence"]) for end in ends.values() for row in end if finite(row["influence"])]
    largest = max(sizes, default=0.0) or 1.0
    for row in (*ends["helps"], *ends["hurts"]):
        size = abs(row["influence"]) / largest if finite(row["influence"]) else 0.0
        row["bar"] = max(1, round(BAR_WIDTH * size)) if size else 0
    return {"index": rows[0]["reference_index"], "id": rows[0]["reference_id"], **ends}


def _add_labels(run: Run, rows: list[dict[str, Any]]) -> None:
    wanted = sorted({row["train_index"] for row in rows})
    samples = {sample["index"]: sample for sample in run.rows(wanted, SAMPLE)}
    for row in rows:
        sample = samples.get(row["train_index"], {})
        row.update({column: sample.get(column) for column in ("label", "label_name", "is_label_issue")})
