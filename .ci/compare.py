"""Compare two scores.parquet: equal to fp32 tolerance, or leave with an error.

Usage: compare.py FIRST SECOND

A floating-point column may differ by 1e-4 of its largest value. A rank may differ only between samples whose scores are
closer than that. All else must be equal.
"""

from __future__ import annotations

import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

TOLERANCE = 1e-4


def compare(first: pa.Table, second: pa.Table) -> list[str]:
    """Say what differs.

    Args:
        first: The scores to compare with.
        second: The scores to be judged.

    Returns:
        One sentence a difference.
    """
    if first.schema != second.schema or len(first) != len(second):
        return [f"{len(first)} rows of {first.schema.names} against {len(second)} rows of {second.schema.names}"]
    problems = []
    for name, kind in zip(first.schema.names, first.schema.types, strict=True):
        one, other = first[name], second[name]
        if one.is_null().to_pylist() != other.is_null().to_pylist():
            problems.append(f"{name}: other values are null")
        elif pa.types.is_floating(kind):
            apart = float(np.abs(values(one) - values(other)).max(initial=0.0))
            if apart > TOLERANCE * size(one):
                problems.append(f"{name}: differs by {apart:.3g}, the largest value being {size(one):.3g}")
        elif name.endswith("_rank"):
            scored = name.removesuffix("_rank")
            score = values(first[f"{scored}_score" if f"{scored}_score" in first.schema.names else scored])
            # In the order of the second ranking, the first scores run one way but for the tolerance.
            theirs, ours = (score[np.argsort(values(ranks), kind="stable")] for ranks in (one, other))
            swapped = float(np.abs(theirs - ours).max(initial=0.0))
            if swapped > 2 * TOLERANCE * float(np.abs(score).max(initial=0.0)):
                problems.append(f"{name}: samples changed places whose scores are {swapped:.3g} apart")
        elif one != other:
            problems.append(f"{name}: differs")
    return problems


def values(column: pa.ChunkedArray) -> np.ndarray:
    """Return the values that are not null, as float64."""
    return column.drop_null().to_numpy().astype(np.float64)


def size(column: pa.ChunkedArray) -> float:
    """Return the largest absolute value."""
    return float(np.abs(values(column)).max(initial=0.0))


if __name__ == "__main__":
    tables = [pq.read_table(path) for path in sys.argv[1:3]]
    if found := compare(*tables):
        sys.exit("\n".join(found))
    print(
        f"{len(tables[0])} rows and {len(tables[0].schema)} columns are equal to {TOLERANCE:g} of the column's largest"
    )
