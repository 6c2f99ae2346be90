"""The columns that the page's script filters and sorts: typed, packed once, compressed to the same bytes every time."""

from __future__ import annotations

import base64
import gzip
import json
from typing import Any

import numpy as np

from lightning_inf.report.run import Run

#: More samples than this do not go into the page: the first ones by each ranking do.
LIMIT, HEAD = 100_000, 20_000
#: Stands for no value among values that are kept as 16 bits.
_NOTHING = 0xFFFF


def payload(run: Run) -> dict[str, Any]:
    """Pack what the script needs.

    The packed bytes are the length of a JSON header, the header, and one block a column, at offsets that the header names
    and that count from the first multiple of eight after it. They are compressed with gzip, whose checksum tells the script
    of tampering, and encoded as base64.

    Args:
        run: The run.

    Returns:
        ``packed``, ``rows`` (how many samples it holds) and ``samples`` (how many there are).
    """
    chosen = _chosen(run)
    columns = _columns(run, chosen)
    blocks, entries, offset = [], [], 0
    for name, values in columns.items():
        scale = None
        if values.dtype == np.float64:
            values, scale = _quantised(values)
        data = values.tobytes()
        entries.append({"name": name, "type": values.dtype.str[1:], "at": offset, "scale": scale})
        blocks.append(data + b"\0" * (-len(data) % 8))
        offset += len(blocks[-1])
    header = json.dumps(
        {**_header(run, chosen), "columns": entries}, ensure_ascii=False, separators=(",", ":")
    ).encode()
    start = len(header).to_bytes(4, "little") + header
    packed = gzip.compress(start + b"\0" * (-len(start) % 8) + b"".join(blocks), compresslevel=9, mtime=0)
    return {"packed": base64.b64encode(packed).decode("ascii"), "rows": len(chosen), "samples": run.samples}


def first_k(run: Run) -> int:
    """How many of the first samples of a ranking count as flagged by it: as many as there are label issues."""
    agreement = run.summary.get("agreement") or {}
    issues = (run.label_issue or {}).get("num_issues") or 0
    return int(agreement.get("k") or max(issues, -(-run.samples // 100)))


def _chosen(run: Run) -> np.ndarray:
    if run.samples <= LIMIT:
        return np.arange(run.samples)
    head = np.zeros(run.samples, dtype=bool)
    for name in run.rankings:
        if (rank := run.column(name)) is not None:
            head |= (rank >= 1) & (rank <= HEAD)
    return np.flatnonzero(head)


def _columns(run: Run, chosen: np.ndarray) -> dict[str, np.ndarray]:
    columns: dict[str, np.ndarray] = {}
    if len(chosen) < run.samples:
        columns["index"] = chosen.astype("<u4")
    for name in ("label", "suggested_label", "is_label_issue"):
        if (values := run.column(name)) is not None:
            columns[name] = np.nan_to_num(values[chosen], nan=-1).astype("<i1" if name == "is_label_issue" else "<i4")
    for name in ("suggested_confidence", "label_score"):
        if (values := run.column(name)) is not None:
            columns[name] = values[chosen]
    for name in ("target", "expected_target"):
        if (values := run.column(name)) is not None:
            columns[name] = values[chosen].astype("<f4")
    for name in run.rankings:
        values = run.column(name)
        assert values is not None
        columns[name] = np.nan_to_num(values[chosen]).astype("<u2" if run.samples < 1 << 16 else "<u4")
    return columns


def _quantised(values: np.ndarray) -> tuple[np.ndarray, list[float]]:
    """Keep what is displayed to two digits in 16 bits."""
    finite = values[np.isfinite(values)]
    low, high = (float(finite.min()), float(finite.max())) if len(finite) else (0.0, 0.0)
    step = (high - low) / (_NOTHING - 1)
    places = np.round((np.nan_to_num(values, nan=low) - low) / (step or 1.0))
    return np.where(np.isfinite(values), places, _NOTHING).astype("<u2"), [low, step]


def _header(run: Run, chosen: np.ndarray) -> dict[str, Any]:
    ids = run.texts("sample_id", chosen) or []
    known = run.summary["run"]
    shown = {
        name: {i: run.examples.of(int(i), name) for i in run.examples.indices(name)} for name in ("train", "large")
    }
    return {
        "rows": len(chosen),
        "samples": run.samples,
        "run": known.get("id"),
        "fingerprint": run.summary["dataset"]["fingerprint"],
        "classes": run.class_names,
        "ids": None if all(name == str(i) for name, i in zip(ids, chosen.tolist(), strict=True)) else ids,
        "rankings": list(run.rankings.items()),
        "noun": run.noun,
        "k": first_k(run),
        "examples": shown["train"],
        "large": shown["large"],
    }
