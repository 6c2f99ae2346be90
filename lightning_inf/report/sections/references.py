"""Section 5: which training samples move the predictions on held-out references."""

from __future__ import annotations

from typing import Any

import pyarrow.parquet as pq

from lightning_inf.report.drawing.bars import signed_bar
from lightning_inf.report.format import finite
from lightning_inf.report.marks import marked
from lightning_inf.report.run import SAMPLE, SUGGESTION, Run
from lightning_inf.report.sections.ranking import LIST_LENGTH, of_kind, ranked_list

TITLE = "Influence"
#: References that stand in the page; the others are in the file.
REFERENCES = 48
EACH_WAY = 5
_SEEN = (
    "label",
    "label_name",
    "predicted_label",
    "predicted_label_name",
    "is_error",
    "probability",
    "confidence",
    "loss",
    "target",
    "prediction",
)


def context(run: Run) -> dict[str, Any]:
    """Give the most harmful samples, and the strongest ones in both directions for single references."""
    method = of_kind(run, "references")
    found = ranked_list(run, method) if method else None
    one_by_one = _attributions(run, found.name if found else None)
    return {"list": found, "label_issue": run.label_issue, "length": LIST_LENGTH, "attributions": one_by_one}


def _attributions(run: Run, preferred: str | None) -> dict[str, Any]:
    methods = list(dict.fromkeys(method for method, _ in run.attributions))
    nothing: dict[str, Any] = {
        "method": None,
        "methods": [],
        "total": 0,
        "errors": 0,
        "references": [],
        "marked": False,
    }
    if not methods:
        return nothing
    method = preferred if preferred in methods else methods[0]
    seen = _seen(run)
    indices = [reference for name, reference in run.attributions if name == method]
    # The model's errors first, then by falling loss; in the order of the file where nothing is known.
    indices.sort(key=lambda index: _worse(seen.get(index)), reverse=True)
    groups = [_reference(run, run.attributions[method, index], seen.get(index)) for index in indices[:REFERENCES]]
    _add_samples(run, [row for group in groups for row in (*group["helps"], *group["hurts"])])
    for group in groups:
        _add_marks(run, method, group)
    errors = sum(bool((seen.get(index) or {}).get("is_error")) for index in indices)
    return {
        "method": method,
        "methods": methods,
        "total": len(indices),
        "errors": errors,
        "known": any(group["seen"] and group["seen"]["predicted_label"] is not None for group in groups),
        "references": groups,
        "marked": any(group["marked"] for group in groups),
    }


def _add_marks(run: Run, method: str, group: dict[str, Any]) -> None:
    """Add the texts whose tokens are known to be tied to the reference."""
    known = run.marks["pairs"].get(str(group["index"]), {}) if run.marks["method"] == method else {}
    for row in (*group["helps"], *group["hurts"]):
        entry = known.get(str(row["index"]))
        row["marked"] = None if entry is None else marked(entry)
    group["marked"] = bool(known)


def _seen(run: Run) -> dict[int, dict[str, Any]]:
    """What the model makes of the references, by index; empty where the run did not keep it."""
    path = run.directory / "references.parquet"
    if not path.exists():
        return {}
    return {row["reference_index"]: row for row in pq.read_table(path).to_pylist()}


def _worse(seen: dict[str, Any] | None) -> tuple[bool, float]:
    return (bool(seen["is_error"]), seen["loss"] if finite(seen["loss"]) else -1.0) if seen else (False, -1.0)


def _reference(run: Run, rows: list[dict[str, Any]], seen: dict[str, Any] | None) -> dict[str, Any]:
    ends = {way: [dict(row) for row in rows if row["direction"] == way][:EACH_WAY] for way in ("helps", "hurts")}
    sizes = [abs(row["influence"]) for end in ends.values() for row in end if finite(row["influence"])]
    largest = max(sizes, default=0.0) or 1.0
    for row in (*ends["helps"], *ends["hurts"]):
        row["bar"] = signed_bar(row["influence"], largest) if finite(row["influence"]) else ""
    index = rows[0]["reference_index"]
    known = {column: seen.get(column) for column in _SEEN} if seen else None  # the last two of regressions only
    example = run.examples.of(index, "reference")
    return {"index": index, "id": rows[0]["reference_id"], "seen": known, "example": example, **ends}


def _add_samples(run: Run, rows: list[dict[str, Any]]) -> None:
    wanted = sorted({row["train_index"] for row in rows})
    columns = (*SAMPLE, *SUGGESTION)
    samples = {sample["index"]: sample for sample in run.rows(wanted, columns)}
    for row in rows:
        sample = samples.get(row["train_index"], {})
        row.update({column: sample.get(column) for column in columns if column not in ("index", "sample_id")})
        row["index"], row["example"] = row["train_index"], run.examples.of(row["train_index"])
