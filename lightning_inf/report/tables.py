"""``scores.parquet``, ``groups.parquet``, ``attributions.parquet`` and ``attributions_full.parquet``."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lightning_inf.audit.groups import GroupScores
from lightning_inf.audit.heldout import HeldOut
from lightning_inf.audit.mislabeled import LabelIssues
from lightning_inf.data.groups import Groups
from lightning_inf.files import atomic
from lightning_inf.methods.collect import Ends

#: Columns of training dynamics after those of the methods, in this order.
DYNAMICS = ("loss", "probability", "margin", "aum", "confidence", "variability", "el2n")
#: And those that count.
COUNTS = ("forgetting", "learned_epoch")
#: Columns that are not written: they live on in others.
_INTERNAL = (
    *("label", "label_score", "other_label", "other_confidence"),
    *("dynamics_other", "dynamics_other_confidence"),
)
_ROWS = 65_536
#: Parquet types of findings, by NumPy's kinds of dtypes.
_KINDS = {"b": pa.bool_(), "i": pa.int64(), "O": pa.string()}


def write_scores(
    path: Path,
    columns: Mapping[str, np.ndarray],
    ranks: Mapping[str, np.ndarray],
    issues: LabelIssues | None,
    samples: int,
    name_of: Callable[[int], str],
    class_names: list[str] | None,
    flags: Callable[[slice], Mapping[str, np.ma.MaskedArray]] | None = None,
    groups: Groups | None = None,
) -> None:
    """Write one row a training sample, in dataset order.

    Args:
        path: ``scores.parquet``.
        columns: Scores of shape ``(samples,)`` by column; non-finite values become null.
        ranks: Ranks of shape ``(samples,)`` by column; 0 becomes null.
        issues: Findings about labels, None where there are no classes.
        samples: How many rows.
        name_of: Names a sample.
        class_names: Names of the classes.
        flags: Gives some rows of further findings by column; masked values become null.
        groups: What samples belong to; the column is there only where they belong to something.
    """
    # Those about the label and the sample itself first; columns of training dynamics are always there, at the end, and
    # those of methods that did not run are not.
    regression = ("target", "expected_target", "residual", "prediction")
    first = (*regression, "dynamics_score", "neighbour_agreement", "self_influence")
    others = [name for name in columns if name not in (*first, *DYNAMICS, *COUNTS, *_INTERNAL)]
    names = [name for name in (*first, *others) if name in columns]

    def table(rows: slice) -> pa.Table:
        label = _label(columns, rows, samples)
        suggested = issues.suggested[rows] if issues else np.full(len(label), -1)
        known = issues.known[rows] if issues else np.zeros(len(label), dtype=bool)
        data: dict[str, pa.Array] = {
            "index": pa.array(np.arange(*rows.indices(samples))),
            "sample_id": _names(name_of, range(*rows.indices(samples))),
            "label": _integers(label, label >= 0),
            "label_name": _class_names(label, class_names),
            **({} if groups is None else {"group": _class_names(groups.codes[rows], groups.names)}),
            "suggested_label": _integers(suggested, suggested >= 0),
            "suggested_label_name": _class_names(suggested, class_names),
            "suggested_confidence": _floats(issues.confidence[rows] if issues else None, len(label), pa.float32()),
            "is_label_issue": pa.array(issues.is_issue[rows] if issues else known, mask=~known),
            "label_score": _floats(_rows(columns, "label_score", rows), len(label), pa.float32()),
            "label_rank": _rank(_rows(ranks, "label_rank", rows), len(label)),
        }
        for name in names:
            data[name] = _floats(columns[name][rows], len(label), pa.float64())
            rank = f"{name.removesuffix('_score')}_rank"
            if rank in ranks:
                data[rank] = _rank(ranks[rank][rows], len(label))
        for name in DYNAMICS:
            data[name] = _floats(_rows(columns, name, rows), len(label), pa.float32())
        for name in COUNTS:
            values = columns[name][rows] if name in columns else np.full(len(label), np.nan)
            data[name] = _integers(np.nan_to_num(values), np.isfinite(values))
        for name, part in ({} if flags is None else flags(rows)).items():
            data[name] = pa.array(part.data, _KINDS[part.dtype.kind], mask=np.ma.getmaskarray(part))
        return pa.table(data)

    _write(path, (table(slice(start, start + _ROWS)) for start in range(0, max(samples, 1), _ROWS)))


def write_groups(
    path: Path,
    names: Sequence[str],
    samples: np.ndarray,
    judged: np.ndarray | None,
    issues: np.ndarray | None,
    scores: Mapping[str, GroupScores],
) -> None:
    """Write one row a group of training samples.

    Args:
        path: ``groups.parquet``.
        names: Of the groups.
        samples: How many samples each has; shape ``(groups,)``, as all arrays here.
        judged: Of how many of them something is known about the label; None where there are no classes.
        issues: How many of those are label issues; None where there are no classes.
        scores: Sums and means by score.
    """
    data: dict[str, pa.Array] = {
        "group": pa.array([_clean(name) for name in names], pa.string()),
        "samples": pa.array(samples, pa.int64()),
        "judged": pa.nulls(len(names), pa.int64()) if judged is None else pa.array(judged, pa.int64()),
        "label_issues": pa.nulls(len(names), pa.int64()) if issues is None else pa.array(issues, pa.int64()),
    }
    for name, found in scores.items():
        data[f"{name}_scored"] = pa.array(found.scored, pa.int64())
        for part in ("total", "mean", "low", "high"):
            data[f"{name}_{part}"] = _floats(getattr(found, part), len(names), pa.float64())
    _write(path, iter([pa.table(data)]))


def write_attributions(
    path: Path,
    ends: Mapping[tuple[str, int], Ends],
    name_of: Callable[[int], str],
    reference_name_of: Callable[[int], str],
) -> None:
    """Write the training samples at both ends for each reference that was asked alone.

    Args:
        path: ``attributions.parquet``.
        ends: By method and reference.
        name_of: Names a training sample.
        reference_name_of: Names a reference.
    """
    rows = [
        (reference, _clean(reference_name_of(reference)), rank, direction, index, _clean(name_of(index)), value, method)
        for (method, reference), both in ends.items()
        for direction, pairs in (("helps", both.helps), ("hurts", both.hurts))
        for rank, (index, value) in enumerate(pairs, start=1)
    ]
    columns = list(zip(*rows, strict=True)) if rows else [()] * len(_ATTRIBUTIONS)
    arrays = [pa.array(values, field.type) for values, field in zip(columns, _ATTRIBUTIONS, strict=True)]
    _write(path, iter([pa.table(arrays, schema=_ATTRIBUTIONS)]))


_ATTRIBUTIONS = pa.schema(
    [
        ("reference_index", pa.int64()),
        ("reference_id", pa.string()),
        ("rank", pa.int64()),
        ("direction", pa.string()),
        ("train_index", pa.int64()),
        ("sample_id", pa.string()),
        ("influence", pa.float64()),
        ("method", pa.string()),
    ]
)


def write_references(
    path: Path, seen: HeldOut | None, name_of: Callable[[int], str], class_names: list[str] | None
) -> None:
    """Write one row for each reference that was evaluated.

    Args:
        path: ``references.parquet``; taken away where nothing was evaluated.
        seen: The references under the analysed weights.
        name_of: Names a reference.
        class_names: Names of the classes.
    """
    if seen is None:
        path.unlink(missing_ok=True)
        return
    count = len(seen.index)
    classes = (seen.label >= 0) & (seen.predicted >= 0)
    data = {
        "reference_index": pa.array(seen.index, pa.int64()),
        "reference_id": pa.array([_clean(name_of(int(i))) for i in seen.index], pa.string()),
        "label": _integers(seen.label, seen.label >= 0),
        "label_name": _class_names(seen.label, class_names),
        "predicted_label": _integers(seen.predicted, seen.predicted >= 0),
        "predicted_label_name": _class_names(seen.predicted, class_names),
        "is_error": pa.array(seen.wrong, pa.bool_(), mask=~classes),
        "probability": _floats(seen.probability, count, pa.float32()),
        "confidence": _floats(seen.confidence, count, pa.float32()),
        "loss": _floats(seen.loss, count, pa.float32()),
    }
    if np.isfinite(seen.target).any():  # a regression
        data |= {name: _floats(getattr(seen, name), count, pa.float64()) for name in ("target", "prediction")}
    _write(path, iter([pa.table(data)]))


@contextlib.contextmanager
def full_attributions(
    path: Path, pairs: Sequence[tuple[str, int]], name_of: Callable[[int], str]
) -> Iterator[Callable[[np.ndarray, Mapping[tuple[str, int], np.ndarray]], None]]:
    """Write every attribution, chunk by chunk: one row a training sample, one column a method and reference.

    Args:
        path: ``attributions_full.parquet``; whole when the block ends well, else absent.
        pairs: Method and reference of each column, which is named ``method[reference]``.
        name_of: Names a training sample.

    Yields:
        A function that takes a chunk's indices and its scores by pair; a pair without scores is null.
    """
    fields = [("index", pa.int64()), ("sample_id", pa.string())]
    schema = pa.schema([*fields, *((f"{method}[{reference}]", pa.float64()) for method, reference in pairs)])
    options = {"compression": "zstd", "write_page_checksum": True, "use_dictionary": ["sample_id"]}
    with atomic(path) as temporary, pq.ParquetWriter(temporary, schema, **options) as writer:

        def write(indices: np.ndarray, scores: Mapping[tuple[str, int], np.ndarray]) -> None:
            names = _names(name_of, indices)
            columns = [_floats(scores.get(pair), len(indices), pa.float64()) for pair in pairs]
            writer.write_table(pa.table([pa.array(indices, pa.int64()), names, *columns], schema=schema))

        yield write


def _write(path: Path, tables: object) -> None:
    """Stream tables of one schema into a file."""
    with atomic(path) as temporary:
        writer = None
        for table in tables:  # type: ignore[attr-defined]
            if writer is None:
                # Of numbers that hardly repeat a dictionary only takes time.
                repeating = [field.name for field in table.schema if not pa.types.is_floating(field.type)]
                options = {"compression": "zstd", "write_page_checksum": True, "use_dictionary": repeating}
                writer = pq.ParquetWriter(temporary, table.schema, **options)
            writer.write_table(table)
            del table  # before the next is made
        if writer is not None:
            writer.close()
    pa.default_memory_pool().release_unused()  # Arrow keeps what it had for the next, and counts as ours


def _rows(columns: Mapping[str, np.ndarray], name: str, rows: slice) -> np.ndarray | None:
    return columns[name][rows] if name in columns else None


def _label(columns: Mapping[str, np.ndarray], rows: slice, samples: int) -> np.ndarray:
    """Given labels as integers, -1 where there is none."""
    if "label" not in columns:
        return np.full(len(range(*rows.indices(samples))), -1)
    values = columns["label"][rows]
    return np.where(np.isfinite(values), np.nan_to_num(values, nan=-1), -1).astype(np.int64)


def _integers(values: np.ndarray, valid: np.ndarray) -> pa.Array:
    return pa.array(values.astype(np.int64), pa.int64(), mask=~valid)


def _rank(values: np.ndarray | None, count: int) -> pa.Array:
    return pa.nulls(count, pa.int64()) if values is None else _integers(values, values > 0)


def _floats(values: np.ndarray | None, count: int, kind: pa.DataType) -> pa.Array:
    """Absent and non-finite values are null, never NaN."""
    return (
        pa.nulls(count, kind)
        if values is None
        else pa.array(values, pa.float64(), mask=~np.isfinite(values)).cast(kind)
    )


def _class_names(labels: np.ndarray, names: list[str] | None) -> pa.Array:
    """Names of labels; the number itself where the classes have none."""
    # A few labels are named, and the names handed out: naming each row takes longer than all else that is written.
    listed, places = np.unique(labels, return_inverse=True)
    named = [None if i < 0 else _clean(names[i]) if names and i < len(names) else str(i) for i in listed.tolist()]
    return pa.array(named, pa.string()).take(pa.array(places))


def _names(name_of: Callable[[int], str], indices: Sequence[int] | np.ndarray) -> pa.Array:
    """Names of samples."""
    if getattr(name_of, "numbers", False):
        return pa.array(np.asarray(indices, dtype=np.int64)).cast(pa.string())
    return pa.array([_clean(name_of(int(i))) for i in indices], pa.string())


def _clean(text: str) -> str:
    """Replace lone surrogates (file names of another encoding): neither Parquet nor JSON can hold them."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
