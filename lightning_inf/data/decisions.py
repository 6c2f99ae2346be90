"""``decisions.csv``: what a person decided about training samples, as the report exports it."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from lightning_inf.files import atomic

#: What may be decided: take the suggested label, keep the given one, give another, leave the sample out, or none of it.
KINDS = ("accept", "keep", "relabel", "drop", "unsure")
COLUMNS = (
    *("sample_id", "index", "given_label", "decision", "new_label", "reviewer", "note", "decided_at", "run_id"),
    *("fingerprint", "is_label_issue"),
)
_BOOLEANS = {"": None, "true": True, "false": False}
_NEEDED = ("index", "given_label", "decision", "new_label", "fingerprint")
#: A spreadsheet would take cells that start with these for formulas; exports put an apostrophe before them.
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


@dataclass(frozen=True)
class Decision:
    """What was decided about one sample.

    Attributes:
        index: Its position in the dataset that was reviewed.
        sample_id: Its name there.
        given_label: Its label there, None where it has none.
        kind: One of :data:`KINDS`.
        new_label: The label that it is to have, None unless the kind is ``accept`` or ``relabel``.
        reviewer: Who decided.
        note: Why.
        decided_at: When.
        run_id: Of the run whose report was reviewed.
        suspect: Whether its label was an issue there; None where the file does not say.
        line: Where it stands in the file.
    """

    index: int
    sample_id: str
    given_label: int | None
    kind: str
    new_label: int | None = None
    reviewer: str = ""
    note: str = ""
    decided_at: str = ""
    run_id: str = ""
    suspect: bool | None = None
    line: int = 0

    @property
    def changes(self) -> bool:
        """Whether the sample gets another label."""
        return self.new_label is not None and self.new_label != self.given_label

    @property
    def confirms(self) -> bool | None:
        """Whether the sample was rightly suspected: relabelled or dropped; None where nobody was sure."""
        return None if self.kind == "unsure" else self.kind == "drop" or self.changes


@dataclass(frozen=True)
class Decisions:
    """The rows of a file.

    Attributes:
        path: The file, for messages.
        fingerprint: Of the dataset that was reviewed; empty where there are no rows.
        rows: By line.
    """

    path: str
    fingerprint: str
    rows: tuple[Decision, ...] = ()
    runs: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        """Note which runs were reviewed."""
        object.__setattr__(self, "runs", tuple(dict.fromkeys(row.run_id for row in self.rows if row.run_id)))


def read_decisions(path: str | os.PathLike[str]) -> Decisions:
    """Read a ``decisions.csv`` and refuse what contradicts itself.

    Args:
        path: The file that the report exported. Columns beyond those of :data:`COLUMNS` are passed over.

    Returns:
        Its rows.

    Raises:
        FileNotFoundError: If it is missing.
        ValueError: With the line, for a column that is missing, an unknown decision, a label that is no class index or
            stands where there can be none, two rows of one sample, or rows of different datasets.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "decisions.csv"
        >>> write_decisions(path, [Decision(3, "cat/3.png", 0, "relabel", 2)], "60-unlisted-0123456789ab")
        >>> read_decisions(path).rows[0].new_label
        2
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"expected a decisions.csv that the report exported, found no file {path}")
    rows: list[Decision] = []
    prints: dict[str, int] = {}
    lines: dict[int, int] = {}
    for line, cells in _records(path):
        where = f"{path}, line {line}"
        row = _decision(where, line, cells)
        if row.index in lines:
            raise ValueError(
                f"{where}: expected one decision a sample, found a second about index {row.index}, which line"
                f" {lines[row.index]} decided. Delete one of the two."
            )
        lines[row.index] = line
        prints.setdefault(cells["fingerprint"], line)
        rows.append(row)
    if len(prints) > 1:
        (one, first), (other, second) = list(prints.items())[:2]
        raise ValueError(
            f"{path}, line {second}: expected decisions about one dataset, found the fingerprint {other!r} after {one!r} in"
            f" line {first}. Keep a file for each dataset."
        )
    return Decisions(str(path), next(iter(prints), ""), tuple(rows))


def write_decisions(path: str | os.PathLike[str], rows: Iterable[Decision], fingerprint: str) -> None:
    """Write decisions as the report exports them: UTF-8, one row a sample, formulas disarmed.

    Args:
        path: The file.
        rows: The decisions.
        fingerprint: Of the dataset, ``summary.json["dataset"]["fingerprint"]``.
    """
    with atomic(path) as temporary, open(temporary, "w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\r\n")  # RFC 4180
        writer.writerow(COLUMNS)
        for row in rows:
            numbers = ["" if value is None else str(value) for value in (row.given_label, row.new_label)]
            cells: tuple[str, ...] = (row.sample_id, str(row.index), numbers[0], row.kind, numbers[1])
            cells = (*cells, row.reviewer, row.note)
            suspect = "" if row.suspect is None else str(row.suspect).lower()
            cells = (*cells, row.decided_at, row.run_id, fingerprint, suspect)
            writer.writerow([_disarmed(cell) for cell in cells])


def _records(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """Read the rows with the line that each begins on."""
    try:
        with open(path, encoding="utf-8-sig", newline="") as stream:  # spreadsheets write a byte order mark
            reader = csv.reader(stream, strict=True)
            header = [name.strip() for name in next(reader, [])]
            _check_header(path, header)
            line = reader.line_num + 1
            for cells in reader:
                if any(cell.strip() for cell in cells):  # spreadsheets leave empty lines
                    if len(cells) != len(header):
                        raise ValueError(
                            f"{path}, line {line}: expected {len(header)} cells as in the header, found {len(cells)}. Put"
                            " cells that hold commas in double quotes."
                        )
                    yield line, {name: _armed(cell) for name, cell in zip(header, cells, strict=True)}
                line = reader.line_num + 1
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(
            f"{path}: expected CSV in UTF-8 as the report exports it, found something else ({error})."
        ) from error


def _check_header(path: Path, header: list[str]) -> None:
    if missing := [name for name in _NEEDED if name not in header]:
        hint = " Save it with commas in place of semicolons." if any(";" in name for name in header) else ""
        raise ValueError(
            f"{path}, line 1: expected the columns {', '.join(COLUMNS)}, found {', '.join(header) or 'nothing'} without"
            f" {', '.join(missing)}.{hint}"
        )
    if double := sorted({name for name in header if header.count(name) > 1}):
        raise ValueError(f"{path}, line 1: expected each column once, found {double[0]!r} more than once.")


def _decision(where: str, line: int, cells: Mapping[str, str]) -> Decision:
    """Read one row."""
    kind = cells["decision"].strip().lower()
    if kind not in KINDS:
        raise ValueError(
            f"{where}: expected the decision to be one of {', '.join(KINDS)}, found {cells['decision']!r}."
        )
    index = _integer(where, "index", cells["index"])
    if index is None:
        raise ValueError(f"{where}: expected an index, the sample's position in the training dataset, found none.")
    given = _integer(where, "given_label", cells["given_label"])
    new = _integer(where, "new_label", cells["new_label"])
    if (kind in ("accept", "relabel")) != (new is not None):
        wanted = "the class index of the new label" if new is None else f"no new_label beside {kind!r}"
        found = "none" if new is None else new
        raise ValueError(f"{where}: expected {wanted}, found {found}. The decision {kind!r} can't be read otherwise.")
    if not cells["fingerprint"].strip():
        raise ValueError(f"{where}: expected the fingerprint of the dataset, found none. Export the decisions again.")
    suspect = cells.get("is_label_issue", "").strip().lower()
    if suspect not in ("", "true", "false"):
        raise ValueError(f"{where}: expected is_label_issue to be true, false or empty, found {suspect!r}.")
    texts = {name: cells.get(name, "") for name in ("reviewer", "note", "decided_at", "run_id")}
    return Decision(
        index, cells.get("sample_id") or str(index), given, kind, new, suspect=_BOOLEANS[suspect], line=line, **texts
    )


def _integer(where: str, name: str, cell: str) -> int | None:
    """Read a count; None where the cell is empty."""
    text = cell.strip()
    if not text:
        return None
    if not (text.isascii() and text.isdigit()):
        what = "a position counted from 0" if name == "index" else "the index of a class, not its name"
        raise ValueError(f"{where}: expected {what} as {name}, found {cell!r}.")
    return int(text)


def _disarmed(cell: str) -> str:
    # An apostrophe of the text's own is doubled, so that reading gives the text back.
    return f"'{cell}" if cell.startswith((*_FORMULA, "'")) else cell


def _armed(cell: str) -> str:
    return cell[1:] if cell.startswith("'") and cell[1:].startswith((*_FORMULA, "'")) else cell
