"""The report: one HTML file, without scripts, made from the files of a run directory and nothing else."""

from __future__ import annotations

import base64
import hashlib
import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from lightning_inf.files import atomic
from lightning_inf.report.reasons import why_default
from lightning_inf.report.schema import read_summary
from lightning_inf.report.terminal import visible

LIST_LENGTH = 50
REFERENCES = 16
EACH_WAY = 5
CLASSES = 50
INDICES = 100
BAR_WIDTH = 60

_SAMPLE = ["index", "sample_id", "label", "label_name", "is_label_issue"]
_SUGGESTION = ["suggested_label", "suggested_label_name", "suggested_confidence"]
_ATTRIBUTION = ["reference_index", "reference_id", "rank", "direction", "train_index", "sample_id", "influence"]


@dataclass
class RankedList:
    """The head of one ranking, worst first, as a section of the page shows it."""

    name: str
    score: str
    rank: str
    polarity: str | None
    average_precision: float | None
    rows: list[dict[str, Any]]
    # (heading, column) of the other rankings whose ranks stand beside each row.
    others: list[tuple[str, str]] = field(default_factory=list)

    @property
    def issues(self) -> int:
        """How many of the samples shown are label issues."""
        return sum(bool(row["is_label_issue"]) for row in self.rows)


def render(directory: str | Path) -> Path:
    """Write ``report.html`` from the files of a run directory.

    The page is a pure function of ``summary.json``, ``scores.parquet`` and ``attributions.parquet`` (which may be
    absent): no clock and no model are asked, and rendering twice gives the same bytes.

    Args:
        directory: The directory of a finished run.

    Returns:
        The path of the page.

    Raises:
        IncompleteRunError: If there is no summary.
        ValueError: If it was written under another schema version.

    Example:
        >>> render("lightning_logs/version_0/influence")  # doctest: +SKIP
        PosixPath('lightning_logs/version_0/influence/report.html')
    """
    directory = Path(directory)
    summary = read_summary(directory)
    style = Path(__file__).with_name("page.css").read_text(encoding="utf-8")
    # Our own stylesheet is the one text that is not escaped.
    template = _environment().get_template("page.html.jinja")
    style_hash = base64.b64encode(hashlib.sha256(style.encode("utf-8")).digest()).decode("ascii")
    page = template.render(_context(directory, summary), style=Markup(style), style_hash=style_hash)
    path = directory / "report.html"
    with atomic(path) as temporary:
        temporary.write_bytes(page.encode("utf-8"))
    return path


def ranked_rows(scores: str | Path, rank: str, columns: list[str], limit: int = LIST_LENGTH) -> list[dict[str, Any]]:
    """Read the head of one ranking from ``scores.parquet``, without loading the rest of the file.

    Args:
        scores: Path of ``scores.parquet``.
        rank: The column of ranks, 1 = first.
        columns: The columns to read beside it. A column that the file does not have is null in every row.
        limit: How many rows to read.

    Returns:
        One mapping a row, sorted by rank; empty if the file has no such ranking.
    """
    if rank not in pq.read_schema(scores).names:
        return []
    rows = _read(scores, [*columns, rank], [(rank, "<=", limit)])
    return sorted(rows, key=lambda row: (row[rank], row.get("index") or 0))


def _read(path: str | Path, columns: list[str], filters: list[tuple[str, str, Any]]) -> list[dict[str, Any]]:
    wanted = dict.fromkeys(columns)
    present = set(pq.read_schema(path).names)
    table = pq.read_table(path, columns=[column for column in wanted if column in present], filters=filters)
    return [{**wanted, **row} for row in table.to_pylist()]


def _context(directory: Path, summary: dict[str, Any]) -> dict[str, Any]:
    scores = directory / "scores.parquet"
    lists = _lists(scores, summary)
    by_references = lists["references"].name if lists["references"] else None
    return {
        "summary": summary,
        "lists": lists,
        "label_issue": next((issue for issue in summary["issues"] if issue["issue_type"] == "label"), None),
        "reason": why_default(summary),
        "attributions": _attributions(directory / "attributions.parquet", scores, by_references),
        "classes": sorted(summary["classes"] or [], key=_noise, reverse=True)[:CLASSES],
        "known": _known(summary),
        "agreement": summary.get("agreement"),
        "first_rank": next((found.rank for found in lists.values() if found and found.rows), "index"),
        "caps": {"rows": LIST_LENGTH, "references": REFERENCES, "classes": CLASSES, "indices": INDICES},
    }


def _lists(scores: Path, summary: dict[str, Any]) -> dict[str, RankedList | None]:
    """Read the three lists of the page: by label score, by the references, by self-influence."""
    methods = summary["methods"]
    references = [method for method in methods if method["kind"] == "references"]
    references.sort(key=lambda method: not method["name"].startswith("forward_inf"))
    ranks = {"label_rank": "label_score"}
    for method in methods:
        if method["rank_column"] and method["kind"] != "dynamics":  # label_rank has weighed those
            ranks.setdefault(method["rank_column"], method["name"])
    label = {"name": "label_score", "columns": ["label_score"], "rank_column": "label_rank", "polarity": None}
    itself = [method for method in methods if method["kind"] == "self"]
    chosen = {"label": [label], "references": references, "self": itself}
    return {key: _list(scores, summary, found[0], ranks) if found else None for key, found in chosen.items()}


def _list(scores: Path, summary: dict[str, Any], method: dict[str, Any], ranks: dict[str, str]) -> RankedList:
    name = method["name"]
    score = method["columns"][0] if method["columns"] else name
    rank = method["rank_column"] or f"{name}_rank"
    rows = ranked_rows(scores, rank, [*_SAMPLE, *_SUGGESTION, score, *ranks])
    measured = (summary["known_issues"] or {}).get("methods", {})
    quality = measured.get(name) or measured.get(score) or {}
    # A ranking that is absent or null for all these rows would be a column of dashes.
    filled = {column for row in rows for column in ranks if row[column] is not None}
    others = [(text, column) for column, text in ranks.items() if column != rank and column in filled]
    return RankedList(name, score, rank, method["polarity"], quality.get("average_precision"), rows, others)


def _attributions(path: Path, scores: Path, preferred: str | None) -> dict[str, Any]:
    """Read the strongest samples in both directions for the first references, under one method."""
    nothing: dict[str, Any] = {"method": None, "methods": [], "total": 0, "references": []}
    if not path.exists():
        return nothing
    # Only which references there are; the rows of those that are shown are read after.
    table = pq.read_table(path, columns=["reference_index", "method"])
    keys = dict.fromkeys(zip(*(table[name].to_pylist() for name in table.column_names), strict=True))
    methods = list(dict.fromkeys(method for _, method in keys))
    if not methods:
        return nothing
    method = preferred if preferred in methods else methods[0]
    references = [reference for reference, name in keys if name == method]
    shown = references[:REFERENCES]
    rows = _read(path, _ATTRIBUTION, [("reference_index", "in", shown), ("method", "==", method)])
    groups = [_reference([row for row in rows if row["reference_index"] == index]) for index in shown]
    _add_labels(scores, [row for group in groups for row in (*group["helps"], *group["hurts"])])
    return {"method": method, "methods": methods, "total": len(references), "references": groups}


def _reference(rows: list[dict[str, Any]]) -> dict[str, Any]:
    rows = sorted(rows, key=lambda row: row["rank"])
    ends = {way: [row for row in rows if row["direction"] == way][:EACH_WAY] for way in ("helps", "hurts")}
    sizes = [abs(row["influence"]) for end in ends.values() for row in end if _finite(row["influence"])]
    largest = max(sizes, default=0.0) or 1.0
    for row in (*ends["helps"], *ends["hurts"]):
        size = abs(row["influence"]) / largest if _finite(row["influence"]) else 0.0
        row["bar"] = max(1, round(BAR_WIDTH * size)) if size else 0
    return {"index": rows[0]["reference_index"], "id": rows[0]["reference_id"], **ends}


def _add_labels(scores: Path, rows: list[dict[str, Any]]) -> None:
    wanted = sorted({row["train_index"] for row in rows})
    samples = {sample["index"]: sample for sample in _read(scores, _SAMPLE, [("index", "in", wanted)])}
    for row in rows:
        sample = samples.get(row["train_index"], {})
        row.update({column: sample.get(column) for column in ("label", "label_name", "is_label_issue")})


def _noise(entry: dict[str, Any]) -> tuple[float, int, int]:
    """Order classes by the lower end of the 95% Wilson interval, so that 1 issue in 2 samples does not lead."""
    n, k = entry["samples"] or 0, entry["label_issues"] or 0
    z = 1.96
    centre = k + z * z / 2
    low = (centre - z * math.sqrt(k * (n - k) / n + z * z / 4)) / (n + z * z) if n else 0.0
    return round(low, 12), k, -(entry["label"] or 0)


def _known(summary: dict[str, Any]) -> dict[str, Any] | None:
    if not summary["known_issues"]:
        return None
    methods = {name: values or {} for name, values in summary["known_issues"]["methods"].items()}
    cutoffs = {k for values in methods.values() for k in (values.get("precision_at_k") or {})}
    cutoffs |= {k for values in methods.values() for k in (values.get("recall_at_k") or {})}
    ordered = sorted(methods.items(), key=lambda item: item[1].get("average_precision") or 0.0, reverse=True)
    return {"methods": ordered, "cutoffs": sorted(cutoffs, key=int)}


def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_shown,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    filters = (_count, _counted, _number, _share, _size, _compact)
    environment.filters.update({function.__name__.lstrip("_"): function for function in filters})
    return environment


def _shown(value: Any) -> Any:
    """Prepare every value that the template prints; escaping comes after this."""
    if value is None:
        return "–"
    # Markup has been through here already: it is what a macro returns.
    return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _finite(value: float | None) -> bool:
    return value is not None and math.isfinite(value)


def _count(value: int | None) -> str | None:
    return None if value is None else f"{value:,}"


def _counted(value: int | None, singular: str, plural: str = "") -> str:
    noun = singular if value == 1 else plural or f"{singular}s"
    return f"{'–' if value is None else format(value, ',')} {noun}"


def _number(value: float | None, spec: str = "#.3g") -> str | None:
    return None if value is None else format(value, spec).rstrip(".")


def _share(part: int | None, whole: int | None) -> str | None:
    return f"{part / whole:.1%}" if part is not None and whole else None


def _size(value: int | None) -> str | None:
    if value is None or value < 1024:
        return None if value is None else f"{value} B"
    power = min(int(math.log(value, 1024)), 4)
    return f"{value / 1024**power:,.1f} {['B', 'KiB', 'MiB', 'GiB', 'TiB'][power]}"


def _compact(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, sort_keys=True)
