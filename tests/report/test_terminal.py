"""The summary fits a screen, and no text from the data reaches the terminal as a command."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from lightning_inf.report.run import ranked_rows
from lightning_inf.report.terminal import summarize, visible
from tests.report.hostile import HOSTILE as BATTERY

MakeRun = Callable[..., Path]
COLUMNS = [
    *("index", "sample_id", "label", "label_name", "suggested_label", "suggested_label_name"),
    *("suggested_confidence", "forward_inf_rank", "tracin_rank", "self_influence_rank"),
]
HOSTILE = [
    "\x1b[2J\x1b]8;;http://evil\x07",
    "[/bold]",
    "[red]x",
    "a\nb\rc",
    "\u202egpj.exe",
    "\x9b31m",
    "日本語" * 40,
    "\ud800",
]


def printed(
    directory: Path, width: int = 80, encoding: str = "utf-8", edit: Callable[[dict[str, Any]], None] | None = None
) -> str:
    summary = json.loads((directory / "summary.json").read_text(encoding="utf-8"))
    rows = ranked_rows(directory / "scores.parquet", "label_rank", COLUMNS, limit=8)
    if edit:
        edit(summary)
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding, newline="\n")
    summarize(summary, rows, Console(file=stream, width=width, force_terminal=False), "runs/influence")
    stream.flush()
    return stream.buffer.getvalue().decode(encoding)  # type: ignore[attr-defined]


def test_says_what_the_summary_says(make_run: MakeRun) -> None:
    directory = make_run(known=14)
    text = printed(directory)
    summary = json.loads((directory / "summary.json").read_text(encoding="utf-8"))
    assert text.startswith(summary["verdict"])
    assert f"{summary['issues'][0]['num_issues']} label issues" in text
    assert "120 of 120 samples scored" in text
    assert "label_score 0.981" in text
    assert "Left out: curvature" in text
    assert text.splitlines()[-2:] == ["runs/influence/report.html", "runs/influence/scores.parquet"]


def test_shows_the_five_most_suspect_in_order(make_run: MakeRun) -> None:
    directory = make_run()
    lines = printed(directory).splitlines()
    rows = ranked_rows(directory / "scores.parquet", "label_rank", COLUMNS, limit=6)
    first = next(i for i, line in enumerate(lines) if rows[0]["sample_id"] in line)
    for row, line in zip(rows[:5], lines[first : first + 5], strict=True):
        assert line.startswith(f"{row['index']} {row['sample_id']}")
        assert f"{row['label_name']} → {row['suggested_label_name']}" in line
        assert f"{row['suggested_confidence']:.2f}" in line
        assert line.split()[-2:] == [f"{row['forward_inf_rank']:,}", f"{row['tracin_rank']:,}"]
    assert not any(rows[5]["sample_id"] in line for line in lines)


@pytest.mark.parametrize("known", [None, 14])
def test_fits_a_screen_whatever_the_data_says(make_run: MakeRun, known: int | None) -> None:
    def edit(summary: dict[str, Any]) -> None:
        summary["verdict"] = "很长 very long " * 300
        summary["left_out"] = ["reason " * 50] * 50
        summary["issues"] *= 30
        summary["references"]["source"] = "x" * 5000

    lines = printed(make_run(known=known), edit=edit).splitlines()
    assert len(lines) <= 24
    assert max(len(line) for line in lines) <= 80


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize("encoding", ["utf-8", "ascii", "latin-1", "cp1252"])
def test_hostile_text_stays_text(make_run: MakeRun, text: str, encoding: str) -> None:
    def change(summary: dict[str, Any], columns: dict[str, list[Any]]) -> None:
        summary["verdict"] = text
        summary["left_out"] = [text]
        summary["methods"][0]["name"] = text
        if text != "\ud800":
            columns["sample_id"][0] = columns["label_name"][0] = text

    shown = printed(make_run(wrong={0}, change=change), encoding=encoding)
    assert not [c for c in shown if c != "\n" and (ord(c) < 32 or 127 <= ord(c) < 160 or c == "\u202e")]
    assert len(shown.splitlines()) <= 24
    if text.startswith("["):
        assert shown.splitlines()[0] == text


def test_the_battery_of_hostile_strings_reaches_the_terminal_as_text(make_run: MakeRun) -> None:
    def change(summary: dict[str, Any], columns: dict[str, list[Any]]) -> None:
        columns["sample_id"][: len(BATTERY)] = BATTERY
        columns["label_name"][: len(BATTERY)] = BATTERY

    directory = make_run(change=change)
    for start in range(0, len(BATTERY), 5):
        rows = [{"index": i, "sample_id": t, "label_name": t} for i, t in enumerate(BATTERY[start : start + 5])]
        stream = io.StringIO()
        summarize({"verdict": "; ".join(BATTERY)[:200]}, rows, Console(file=stream, width=400))
        lines = stream.getvalue().splitlines()
        assert len(lines) <= 24
        for index, text in enumerate(BATTERY[start : start + 5]):
            assert any(line.startswith(f"{index} {text[:60]}") for line in lines), text
    assert printed(directory)


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_any_width(make_run: MakeRun, encoding: str) -> None:
    directory = make_run(known=14)
    for width in [*range(1, 40), 60, 72, 100, 250]:
        lines = printed(directory, width=width, encoding=encoding).splitlines()
        assert lines[-1] == "runs/influence/scores.parquet"
        assert len(lines) <= 24


def test_long_paths_stay_in_one_piece(make_run: MakeRun) -> None:
    stream = io.StringIO()
    summarize({"verdict": "Fine."}, [], Console(file=stream, width=40), "/very" * 40)
    assert f"{'/very' * 40}/report.html\n" in stream.getvalue()


def test_no_classes_and_no_numbers(make_run: MakeRun) -> None:
    rows = [{"index": 7, "sample_id": "7", "label": None, "self_influence_rank": 1, "forward_inf_rank": None}]
    summary = {
        "verdict": "Regression.",
        "dataset": {"samples": 1, "scored": None},
        "issues": [{"issue_type": "label", "num_issues": None}],
        "methods": [{"name": "forward_inf", "rank_column": "forward_inf_rank"}],
        "known_issues": {"count": 1, "prevalence": None, "methods": {"forward_inf": None}},
    }
    stream = io.StringIO()
    summarize(summary, rows, Console(file=stream, width=80))
    text = stream.getvalue()
    assert "given" not in text
    assert "- of 1 samples scored, - label issues" in text
    assert "forward_inf -" in text
    assert "7 7" not in text


def test_visible_leaves_ordinary_text_alone() -> None:
    assert visible("Grüße, 日本語 🦊 a\u200db") == "Grüße, 日本語 🦊 a\u200db"
    assert visible("\t\x7f\u2028\ud800") == r"\t\x7f\u2028\ud800"
