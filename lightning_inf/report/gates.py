"""Whether a run passes limits on what was found in its training data, for a script to act on."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from lightning_inf.data.differences import differences
from lightning_inf.files import describe
from lightning_inf.report.schema import SUMMARY, IncompleteRunError, read_summary


@dataclass(frozen=True)
class Kind:
    """What a gate counts.

    Attributes:
        name: Of the gate and of its argument, ``--max-<name>``.
        issue_type: Of the entry under ``issues`` in ``summary.json``.
        column: Of ``scores.parquet``, which says of each sample whether it counts.
        value: What the column holds for those that do; None: anything but null.
        what: For ``--help``.
    """

    name: str
    issue_type: str
    column: str
    value: bool | str | None
    what: str


KINDS = (
    Kind("suspects", "label", "is_label_issue", True, "samples whose label, or target, is probably wrong"),
    Kind("memorized", "memorized", "is_memorized", True, "samples that the model had to learn by heart"),
    Kind("leaked", "leaked", "leaked_reference", None, "training samples that are among the references, too"),
    Kind("duplicates", "duplicate", "duplicate_action", "drop", "copies within the training set that could be dropped"),
)


@dataclass(frozen=True)
class Limit:
    """The most that a gate lets pass: a number of samples, or a share of those that were scored."""

    value: float
    share: bool

    @classmethod
    def parse(cls, text: str) -> Limit:
        """Read ``10`` or ``2%``.

        Raises:
            ValueError: For anything else.

        Example:
            >>> Limit.parse("2.5%"), Limit.parse("0")
            (Limit(value=2.5, share=True), Limit(value=0.0, share=False))
        """
        match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(%?)\s*", text)
        if match is None or not (match[2] or match[1].isdigit()) or (match[2] and float(match[1]) > 100):
            raise ValueError(f"expected a number of samples such as 10, or a share such as 2%, found {text!r}")
        return cls(float(match[1]), bool(match[2]))

    def holds(self, count: int, of: int) -> bool:
        """Whether so many pass."""
        # In integers where it can be: 2 % of 50 is 1, and 1 passes.
        return count * 100 <= self.value * of if self.share else count <= self.value

    def __str__(self) -> str:
        return f"{self.value:g}%" if self.share else f"{self.value:,.0f}"


@dataclass(frozen=True)
class Gate:
    """What became of one gate.

    Attributes:
        name: Of its :class:`Kind`.
        status: ``passed``, ``failed`` or ``undecided``.
        count: How many samples count; None where that is not known.
        of: How many were scored.
        limit: The most that pass, as the user wrote it.
        before: How many there are in all, where those of the baseline were not counted.
        reason: Why it is undecided.
    """

    name: str
    status: str
    count: int | None
    of: int
    limit: str
    before: int | None = None
    reason: str | None = None


@dataclass(frozen=True)
class Verdict:
    """What became of all gates; ``status`` is that of the worst."""

    run: str
    baseline: str | None
    gates: tuple[Gate, ...]

    @property
    def status(self) -> str:
        """``failed`` where one did, else ``undecided`` where one could not be decided, else ``passed``."""
        found = {gate.status for gate in self.gates}
        return next((status for status in ("failed", "undecided") if status in found), "passed")

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return {**asdict(self), "gates": [asdict(gate) for gate in self.gates], "status": self.status}


class OtherDataError(ValueError):
    """A baseline that says nothing about this run."""


def _counts(summary: Mapping[str, Any]) -> dict[str, int | None]:
    """Read how many issues there are of each type; targets of a regression count as labels."""
    return {"label" if (of := e["issue_type"]) == "target" else of: e["num_issues"] for e in summary["issues"]}


def judge(directory: Path, limits: Mapping[str, Limit], baseline: Path | None = None) -> Verdict:
    """Hold the findings of a run to limits.

    Args:
        directory: The run directory.
        limits: By name of the :class:`Kind`.
        baseline: An earlier run; what it found already does not count, by ``sample_id``.

    Returns:
        The verdict.

    Raises:
        IncompleteRunError: If one of the runs has not ended, or its files are not those of its summary.
        OtherDataError: If the samples of the baseline can't be told in this run.
        ValueError: For another schema version.
    """
    directory, baseline = _home(directory), None if baseline is None else _home(baseline)
    kinds = [kind for kind in KINDS if kind.name in limits]
    summary = read_summary(directory)
    counts = _counts(summary)
    known: dict[str, set[str] | None] = {}
    old = None
    if baseline is not None:
        old = read_summary(baseline)
        known, now = _new(directory, summary, baseline, old, kinds)
    gates = []
    for kind in kinds:
        found, limit, of = counts.get(kind.issue_type), limits[kind.name], summary["dataset"]["scored"]
        total, reason = found, None if found is not None else _why(summary, kind)
        if old is not None and found is not None:
            mine, theirs = now[kind.name], known[kind.name]
            if mine is None or len(mine) != found:
                raise IncompleteRunError(
                    f"{directory}: expected {found} samples with {kind.column} in scores.parquet as summary.json says, found"
                    f" {0 if mine is None else len(mine)}. The files are of different runs; run the analysis again."
                )
            found = None if theirs is None else len(mine - theirs)
            reason = "the baseline did not look for it" if theirs is None else None
        status = "undecided" if found is None else "passed" if limit.holds(found, of) else "failed"
        gates.append(Gate(kind.name, status, found, of, str(limit), None if old is None else total, reason))
    return Verdict(summary["run"]["id"], None if old is None else old["run"]["id"], tuple(gates))


def _home(path: Path) -> Path:
    """Take summary.json for the run directory that it lies in."""
    return path.parent if path.name == SUMMARY else path


def _why(summary: Mapping[str, Any], kind: Kind) -> str:
    """Say why something was not counted."""
    entry = summary.get({"leaked": "leaked", "duplicates": "duplicates"}.get(kind.name, ""))
    if isinstance(entry, Mapping) and entry.get("reason"):
        return str(entry["reason"])
    return {
        "suspects": "the model has no class labels, or no method judged them",
        "memorized": "no method about the sample itself was run",
    }.get(kind.name, "the run did not look for it")


def _new(
    directory: Path, summary: Mapping[str, Any], baseline: Path, old: Mapping[str, Any], kinds: Sequence[Kind]
) -> tuple[dict[str, set[str] | None], dict[str, set[str] | None]]:
    """Give the names of the samples that count, by kind, in the baseline and in the run."""
    if baseline.resolve() == directory.resolve():
        raise OtherDataError(f"--baseline: expected an earlier run, found the run itself, {directory}.")
    names, mine = _flagged(directory, summary, kinds)
    old_names, theirs = _flagged(baseline, old, kinds)
    _comparable(summary, names, old, old_names)
    return theirs, mine


def _flagged(
    directory: Path, summary: Mapping[str, Any], kinds: Sequence[Kind]
) -> tuple[list[str], dict[str, set[str] | None]]:
    """Read the names of all samples, and of those that count by kind; None where that is not known."""
    path = directory / "scores.parquet"
    if not path.is_file():
        raise IncompleteRunError(f"expected {path}, found no such file. Run the analysis again.")
    if describe(path)["sha256"] != summary["files"]["scores.parquet"]["sha256"]:
        raise IncompleteRunError(f"{path} is not the file that summary.json describes. Run the analysis again.")
    present = set(pq.read_schema(path).names)
    columns = ["sample_id", *(kind.column for kind in kinds if kind.column in present)]
    table = pq.read_table(path, columns=columns)
    names = table["sample_id"]
    counts = _counts(summary)
    found: dict[str, set[str] | None] = {}
    for kind in kinds:
        if kind.column not in present or counts.get(kind.issue_type) is None:
            found[kind.name] = None
            continue
        column = table[kind.column]
        mask = pc.is_valid(column) if kind.value is None else pc.equal(column, pa.scalar(kind.value))
        found[kind.name] = set(names.filter(pc.fill_null(mask, False)).to_pylist())
    return names.to_pylist(), found


def _comparable(
    summary: Mapping[str, Any], names: Sequence[str], old: Mapping[str, Any], old_names: Sequence[str]
) -> None:
    """Refuse a baseline whose names don't mean the samples of this run."""
    for which, found in (("run", names), ("baseline", old_names)):
        if len(set(found)) != len(found):
            double = next(name for name in found if found.count(name) > 1)
            raise OtherDataError(
                f"--baseline: expected sample_ids that are unique, found {double!r} more than once in the {which}. Give each"
                " sample a name of its own, with the hook influence_id(index)."
            )
    reviewed = (summary.get("decided") or {}).get("corrected") or ""
    mine, theirs = summary["dataset"]["fingerprint"], old["dataset"]["fingerprint"]
    if theirs in (mine, reviewed) or not (differ := differences(mine, theirs, items=False)):
        return
    for found in (names, old_names):
        if np.array_equal(np.asarray(found), np.arange(len(found)).astype(str)):
            raise OtherDataError(
                "--baseline: expected a run on the same training data, found one on others: what differs is"
                f" {', and '.join(differ)}. These samples go by their position in the dataset, so the same position can be"
                " another sample. Give them names that stay, with the hook influence_id(index) or a dataset of files."
            )
    if not set(names) & set(old_names):
        raise OtherDataError(
            f"--baseline: expected a run on training data that share samples with this one, found none in common:"
            f" {names[0]!r} here, {old_names[0]!r} there."
        )
