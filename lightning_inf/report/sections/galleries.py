"""Rows of a few samples with their pictures, as several sections show them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lightning_inf.report.run import SAMPLE, SUGGESTION, Run

#: How many samples a row has.
LENGTH = 10


def tiles(run: Run, indices: Sequence[int], notes: Mapping[int, str] | None = None) -> list[dict[str, Any]]:
    """Describe training samples for the macro ``tile``.

    Args:
        run: The run.
        indices: In the order of the gallery.
        notes: What stands below a sample, by index.
    """
    rows = run.rows(indices, (*SAMPLE, *SUGGESTION))
    return [{**row, "example": run.examples.of(row["index"]), "note": (notes or {}).get(row["index"])} for row in rows]
