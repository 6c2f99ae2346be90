"""What a ``decisions.csv`` may hold, and what is said of one that can't be read."""

from __future__ import annotations

import csv
from pathlib import Path

import pandas as pd
import pytest

from lightning_inf.data.decisions import COLUMNS, Decision, read_decisions, write_decisions

PRINT = "60-unlisted-0123456789ab"
HOSTILE = [
    '=HYPERLINK("x")',
    "+1",
    "-1",
    "@SUM(A1)",
    "\tx",
    "\rx",
    "'quoted",
    "'=x",
    "''=x",
    "a,b",
    'a"b',
    "a\nb",
    "ü",
    "'",
]


def file_of(folder: Path, *rows: str, header: str = ",".join(COLUMNS)) -> Path:
    """A file with these rows, of which only the first five cells are given."""
    path = folder / "decisions.csv"
    cells = [f"{row},,,,,{PRINT}," for row in rows]
    path.write_text("\r\n".join([header, *cells, ""]), encoding="utf-8", newline="")
    return path


def test_what_is_written_is_read(tmp_path: Path) -> None:
    rows = [
        Decision(0, "a/0.png", 1, "accept", 2, "me", "note", "2026-01-01T00:00:00Z", "0123456789ab"),
        Decision(7, "a/7.png", 1, "keep", None, "me", "", "", "other", True),
        Decision(3, "a/3.png", None, "drop", suspect=False),
        Decision(4, "a/4.png", 0, "unsure"),
    ]
    write_decisions(tmp_path / "d.csv", rows, PRINT)
    found = read_decisions(tmp_path / "d.csv")
    assert found.fingerprint == PRINT
    assert found.runs == ("0123456789ab", "other")
    assert [Decision(**{**vars(row), "line": 0}) for row in found.rows] == rows
    assert [row.line for row in found.rows] == [2, 3, 4, 5]
    assert [row.confirms for row in found.rows] == [True, False, True, None]
    assert pd.read_csv(tmp_path / "d.csv").columns.tolist() == list(COLUMNS)


@pytest.mark.parametrize("text", HOSTILE)
def test_no_cell_is_a_formula_and_each_comes_back(tmp_path: Path, text: str) -> None:
    write_decisions(tmp_path / "d.csv", [Decision(0, text, 1, "keep", None, text, text)], PRINT)
    with open(tmp_path / "d.csv", encoding="utf-8", newline="") as stream:
        cells = list(csv.reader(stream))[1]
    assert not any(cell.startswith(("=", "+", "-", "@", "\t", "\r")) for cell in cells)
    (row,) = read_decisions(tmp_path / "d.csv").rows
    assert (row.sample_id, row.reviewer, row.note) == (text, text, text)


def test_relabelling_to_the_given_label_is_keeping(tmp_path: Path) -> None:
    (row,) = read_decisions(file_of(tmp_path, "a,0,2,relabel,2")).rows
    assert not row.changes
    assert row.confirms is False


def test_what_a_spreadsheet_does_is_read(tmp_path: Path) -> None:
    path = file_of(tmp_path, "a,0,2, Keep ,", "b,1,2,KEEP,")
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes() + b",,,,,,,,,,\r\n\r\n")
    assert [row.kind for row in read_decisions(path).rows] == ["keep", "keep"]


def test_lines_are_counted_through_notes_of_several_lines(tmp_path: Path) -> None:
    path = file_of(tmp_path)
    rows = f'a,0,1,keep,,me,"two\nlines",,,{PRINT},\r\nb,1,1,maybe,,,,,,{PRINT},\r\n'
    path.write_text(path.read_text() + rows, newline="")
    with pytest.raises(ValueError, match="line 4: expected the decision"):
        read_decisions(path)


def test_a_file_without_rows_holds_no_decisions(tmp_path: Path) -> None:
    found = read_decisions(file_of(tmp_path))
    assert found.rows == ()
    assert found.fingerprint == ""


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (["a,0,1,maybe,"], r"line 2: expected the decision to be one of accept, keep, .* found 'maybe'"),
        (["a,0,1,,"], r"line 2: expected the decision .* found ''"),
        (["a,0,1,keep,", "b,1,1,keep,", "c,0,1,drop,"], r"line 4: .*a second about index 0, which line 2 decided"),
        (["a,,1,keep,"], "line 2: expected an index, .* found none"),
        (["a,x,1,keep,"], "line 2: expected a position counted from 0 as index, found 'x'"),
        (["a,-1,1,keep,"], "as index, found '-1'"),
        (["a,1.0,1,keep,"], "as index, found '1.0'"),
        (["a,0,cat,keep,"], "the index of a class, not its name as given_label, found 'cat'"),
        (["a,0,1,relabel,dog"], "the index of a class, not its name as new_label, found 'dog'"),
        (["a,0,1,relabel,-2"], "as new_label, found '-2'"),
        (["a,0,1,relabel,"], "line 2: expected the class index of the new label, found none"),
        (["a,0,1,accept,"], "line 2: expected the class index of the new label, found none"),
        (["a,0,1,keep,2"], "line 2: expected no new_label beside 'keep', found 2"),
        (["a,0,1,keep,,,,,,60-a-b,maybe"], "expected 11 cells"),
        (["a,0,1,drop,0"], "line 2: expected no new_label beside 'drop', found 0"),
        (["a,b,0,1,keep,"], "line 2: expected 11 cells as in the header, found 12.*double quotes"),
    ],
)
def test_rows_that_contradict_themselves(tmp_path: Path, rows: list[str], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        read_decisions(file_of(tmp_path, *rows))


def test_two_files_in_one(tmp_path: Path) -> None:
    path = file_of(tmp_path, "a,0,1,keep,", "b,1,1,keep,")
    path.write_text(path.read_text().replace(f"b,1,1,keep,,,,,,{PRINT}", "b,1,1,keep,,,,,,61-a-b"))
    with pytest.raises(
        ValueError, match=f"line 3: expected decisions about one dataset, found .*'61-a-b' after '{PRINT}'"
    ):
        read_decisions(path)
    path.write_text(file_of(tmp_path, "a,0,1,keep,").read_text().replace(PRINT, ""))
    with pytest.raises(ValueError, match="line 2: expected the fingerprint of the dataset, found none"):
        read_decisions(path)


def test_files_that_are_no_decisions(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"expected a decisions\.csv .* found no file"):
        read_decisions(tmp_path / "none.csv")
    semicolons = file_of(tmp_path, header=";".join(COLUMNS))
    with pytest.raises(ValueError, match="commas in place of semicolons"):
        read_decisions(semicolons)
    with pytest.raises(ValueError, match=r"line 1: expected the columns .* found index, label without given_label"):
        read_decisions(file_of(tmp_path, header="index,label"))
    with pytest.raises(ValueError, match="found nothing without"):
        read_decisions(file_of(tmp_path, header=""))
    with pytest.raises(ValueError, match="expected each column once, found 'index'"):
        read_decisions(file_of(tmp_path, header=",".join([*COLUMNS, "index"])))
    (tmp_path / "latin.csv").write_bytes(b"\xff\xfe" + ",".join(COLUMNS).encode("utf-16-le"))
    with pytest.raises(ValueError, match="expected CSV in UTF-8"):
        read_decisions(tmp_path / "latin.csv")
