"""A run directory as the page reads it: every file once, and only when somebody asks."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lightning_inf.report.examples import Examples
from lightning_inf.report.marks import read_marks
from lightning_inf.report.schema import read_summary

#: What every list of samples shows of one.
SAMPLE = ("index", "sample_id", "label", "label_name", "is_label_issue")
_PLACE = "__place__"
#: What is suggested in the place of a label, or expected in that of the target of a regression.
SUGGESTION = ("suggested_label", "suggested_label_name", "suggested_confidence", "target", "expected_target")


class Run:
    """The files of a finished run, read lazily.

    Args:
        directory: The run directory.

    Raises:
        IncompleteRunError: If there is no summary.
        ValueError: If it was written under another schema version.
    """

    def __init__(self, directory: str | Path) -> None:
        self.directory = Path(directory)
        self.summary = read_summary(directory)
        self._columns: dict[str, Any] = {}

    @property
    def scores(self) -> Path:
        """Path of ``scores.parquet``."""
        return self.directory / "scores.parquet"

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The columns of ``scores.parquet``."""
        return tuple(pq.read_schema(self.scores).names)

    @cached_property
    def samples(self) -> int:
        """How many rows ``scores.parquet`` has: the samples of the training set."""
        return int(pq.read_metadata(self.scores).num_rows)

    def column(self, name: str) -> np.ndarray | None:
        """Read a column of numbers or booleans as float64, NaN where it is null; mapped from a temporary file.

        What a page asks of each sample would not fit into the memory that an analysis may take where there are many.

        Args:
            name: Of ``scores.parquet``.

        Returns:
            Shape ``(samples,)``, in dataset order; None if the file has no such column.
        """
        if name not in self.names:
            return None
        if name not in self._columns:
            self._columns[name] = self._mapped(name)
        found: np.ndarray = self._columns[name]
        return found

    def _mapped(self, name: str) -> np.ndarray:
        if not self.samples:
            return np.zeros(0)
        with tempfile.TemporaryFile() as stream:
            for table in row_groups(self.scores, [name]):
                read = table[name].to_numpy()
                numbers = np.ascontiguousarray(read, np.float64) if read.dtype != object else _numbers(read)
                stream.write(numbers.data)
            stream.flush()
            return np.asarray(np.memmap(stream, np.float64, "r"))

    def texts(self, name: str, indices: np.ndarray) -> list[str | None] | None:
        """Read a column of text at some rows; None if the file has no such column.

        Args:
            name: Of ``scores.parquet``.
            indices: Ascending, shape ``(m,)``.
        """
        if name not in self.names:
            return None
        found: list[str | None] = []
        start = 0
        for table in row_groups(self.scores, [name]):
            here = slice(*np.searchsorted(indices, [start, start + len(table)]))
            found += table[name].take(pa.array(indices[here] - start)).to_pylist()
            start += len(table)
        return found

    def ranked(self, rank: str, columns: Iterable[str], limit: int) -> list[dict[str, Any]]:
        """Read the first ``limit`` samples of a ranking; see :func:`ranked_rows`."""
        return ranked_rows(self.scores, rank, list(columns), limit)

    def rows(self, indices: Sequence[int], columns: Iterable[str] = SAMPLE) -> list[dict[str, Any]]:
        """Read the rows of some samples, in the order in which they are given; an unknown index is left out."""
        found = read_rows(self.scores, ["index", *columns], [("index", "in", sorted(set(indices)))]) if indices else []
        by_index = {row["index"]: row for row in found}
        return [dict(by_index[index]) for index in indices if index in by_index]

    @cached_property
    def attributions(self) -> dict[tuple[str, int], list[dict[str, Any]]]:
        """Rows of ``attributions.parquet`` by method and reference, strongest first; empty if there is no such file."""
        path = self.directory / "attributions.parquet"
        groups: dict[tuple[str, int], list[dict[str, Any]]] = {}
        for row in pq.read_table(path).to_pylist() if path.exists() else ():
            groups.setdefault((row["method"], row["reference_index"]), []).append(row)
        return {key: sorted(rows, key=lambda row: row["rank"]) for key, rows in groups.items()}

    @cached_property
    def examples(self) -> Examples:
        """Pictures, texts and small tables of the samples that sections show."""
        return Examples.read(self.directory)

    @cached_property
    def marks(self) -> dict[str, Any]:
        """What tokens add to scores, as :func:`~lightning_inf.report.marks.read_marks` gives it."""
        return read_marks(self.directory)

    @cached_property
    def class_names(self) -> dict[int, str]:
        """Names by label, as ``scores.parquet`` has them; with those of classes without samples where they are known."""
        names = dict(enumerate(self.summary["dataset"]["class_names"] or ()))
        for label, name in (("label", "label_name"), ("suggested_label", "suggested_label_name")):
            if label in self.names and name in self.names:
                for table in row_groups(self.scores, [label, name]):
                    pairs = table.group_by([label, name]).aggregate([])
                    found = zip(pairs[label].to_pylist(), pairs[name].to_pylist(), strict=True)
                    names |= {key: str(text) for key, text in found if key is not None}
        return dict(sorted(names.items()))

    @property
    def label_issue(self) -> dict[str, Any] | None:
        """The entry of ``summary.json`` that counts label issues, or in a regression those of targets."""
        found = (issue for issue in self.summary["issues"] if issue["issue_type"] in ("label", "target"))
        return next(found, None)

    @cached_property
    def noun(self) -> str:
        """What is given with a sample and may be wrong: its ``label``, or its ``target`` in a regression."""
        return "target" if "target" in self.names else "label"

    @property
    def rankings(self) -> dict[str, str]:
        """By column of ranks, the name of its ranking, ``label_rank`` first; only those that the file has."""
        ranks = {"label_rank": "label_score"}
        for method in self.summary["methods"]:
            if method["rank_column"] and method["kind"] != "dynamics":  # label_rank has weighed those
                ranks.setdefault(method["rank_column"], method["name"])
        return {rank: name for rank, name in ranks.items() if rank in self.names}


def ranked_rows(scores: str | Path, rank: str, columns: list[str], limit: int) -> list[dict[str, Any]]:
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
    rows = read_rows(scores, [*columns, rank], [(rank, "<=", limit)])
    return sorted(rows, key=lambda row: (row[rank], row.get("index") or 0))


def read_rows(path: str | Path, columns: list[str], filters: list[tuple[str, str, Any]]) -> list[dict[str, Any]]:
    """Read the rows of a Parquet file that pass the filters; a column that it does not have is null in every row."""
    wanted, rows = dict.fromkeys(columns), []
    judged = list(dict.fromkeys(name for name, _, _ in filters))
    condition = pq.filters_to_expression(filters)
    with pq.ParquetFile(path) as file:
        present = set(file.schema_arrow.names)
        asked = [column for column in wanted if column in present]
        for group in range(file.num_row_groups):
            # Most row groups hold none of the wanted rows: of those only the judged columns are read.
            where = file.read_row_group(group, columns=judged).append_column(_PLACE, [_places(file, group)])
            places = where.filter(condition)[_PLACE]
            if len(places):
                rows += file.read_row_group(group, columns=asked).take(places).to_pylist()
    return [{**wanted, **row} for row in rows]


def row_groups(path: str | Path, columns: list[str]) -> Iterator[pa.Table]:
    """Read columns of a Parquet file one row group after the other: one is in memory at a time."""
    with pq.ParquetFile(path) as file:
        for group in range(file.num_row_groups):
            yield file.read_row_group(group, columns=columns)
    pa.default_memory_pool().release_unused()  # Arrow keeps what it had for the next, and counts as ours


def _places(file: pq.ParquetFile, group: int) -> pa.Array:
    return pa.array(np.arange(file.metadata.row_group(group).num_rows))


def _numbers(values: np.ndarray) -> np.ndarray:
    """Booleans with nulls come as objects."""
    return np.array([np.nan if value is None else float(value) for value in values], dtype=np.float64)
