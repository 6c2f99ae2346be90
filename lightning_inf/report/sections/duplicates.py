"""Section 6: training samples that are in the references, or in the training set more than once."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pyarrow.parquet as pq

from lightning_inf.report.run import SAMPLE, SUGGESTION, Run

TITLE = "Leaks and copies"
#: Pairs and groups that are shown with pictures; the tables list more.
PAIRS, GROUPS, MEMBERS = 12, 12, 8


def context(run: Run) -> dict[str, Any] | None:
    """Give pairs and groups; nothing where the run did not look for any."""
    leaks, copies = run.summary.get("leaked"), run.summary.get("duplicates")
    if leaks is None or copies is None:
        return None
    shown, suspects = leaks["listed"][:PAIRS], (leaks["suspected"] or [])[:PAIRS]
    groups = copies["listed"][:GROUPS]
    wanted = [pair["train_index"] for pair in (*shown, *suspects)]
    wanted += [index for group in groups for index in (group["keep"], *group["drop"][: MEMBERS - 1])]
    samples = _samples(run, wanted)
    references = _references(run, [pair["reference_index"] for pair in (*shown, *suspects)])
    return {
        "leaks": leaks,
        "copies": copies,
        "pairs": [_pair(run, pair, samples, references) for pair in shown],
        "suspects": [_pair(run, pair, samples, references) for pair in suspects],
        "groups": [_group(group, samples) for group in groups],
    }


def _samples(run: Run, indices: Iterable[int]) -> dict[int, dict[str, Any]]:
    rows = run.rows(sorted(set(indices)), (*SAMPLE, *SUGGESTION))
    return {row["index"]: {**row, "example": run.examples.of(row["index"]), "note": None} for row in rows}


def _references(run: Run, indices: list[int]) -> dict[int, dict[str, Any]]:
    """Read names and labels of references, of those that were evaluated."""
    path = run.directory / "references.parquet"
    if not path.exists() or not indices:
        return {}
    columns = ["reference_index", "reference_id", "label", "label_name"]
    table = pq.read_table(path, columns=columns, filters=[("reference_index", "in", sorted(set(indices)))])
    return {row["reference_index"]: row for row in table.to_pylist()}


def _pair(
    run: Run, pair: dict[str, Any], samples: dict[int, dict[str, Any]], references: dict[int, dict[str, Any]]
) -> dict[str, Any]:
    index = pair["reference_index"]
    nothing = {"reference_id": None, "label": None, "label_name": None}
    reference = {**nothing, **references.get(index, {}), "index": index, "example": run.examples.of(index, "reference")}
    return {**pair, "sample": samples.get(pair["train_index"]), "reference": reference}


def _group(group: dict[str, Any], samples: dict[int, dict[str, Any]]) -> dict[str, Any]:
    members = [("keep", group["keep"]), *(("drop", index) for index in group["drop"])]
    shown = [(action, samples[index]) for action, index in members[:MEMBERS] if index in samples]
    return {**group, "members": shown, "more": len(members) - len(shown)}
