"""Texts with marked tokens: what is marked and named, that nothing in them is run, and that everybody can read them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from lightning_inf.data.examples import Example
from lightning_inf.report.html import render
from lightning_inf.report.marks import PIECES, marked, read_marks, write_marks
from tests.report.conftest import MakeRun, Visit
from tests.report.hostile import HOSTILE
from tests.report.test_page import axe


def one(pieces: list[tuple[str, float]], tmp_path: Path) -> dict[str, Any]:
    """Write one text and read it back."""
    (tmp_path / "examples").mkdir(exist_ok=True)
    write_marks(tmp_path, "forward_inf", {(7, 3): pieces})
    found = read_marks(tmp_path)
    assert found["method"] == "forward_inf"
    return marked(found["pairs"]["7"]["3"])


def test_tokens_are_marked_by_their_part_of_the_strongest(tmp_path: Path) -> None:
    nothing = float("nan")
    pieces = [("In", nothing), (" Taldor", 1.0), (" was", -0.5), (" she", 0.2), (" born", 0.01), (".", 0.0)]
    found = one(pieces, tmp_path)
    assert [p["mark"] for p in found["pieces"]] == ["", "up m3", "down m2", "up m1", "", ""]
    assert "".join(p["text"] for p in found["pieces"]) == "In Taldor was she born."
    assert found["strongest"] == [("Taldor", 1.0), ("was", -0.5), ("she", 0.2)]
    assert one([("a", nothing), (" b", 0.0)], tmp_path)["strongest"] == []


def test_of_a_long_text_the_part_round_the_strongest_token_is_kept(tmp_path: Path) -> None:
    pieces = [(f" {place}", 1.0 if place == 400 else 0.001) for place in range(1000)]
    found = one(pieces, tmp_path)
    assert len(found["pieces"]) == PIECES
    assert found["before"] + PIECES + found["after"] == 1000
    assert found["pieces"][400 - found["before"]] == {"text": " 400", "mark": "up m3"}
    assert one([("\ud800", 1.0)], tmp_path)["pieces"][0]["text"] == "\\ud800"


def marked_run(make_run: MakeRun) -> Path:
    """A run in which every sample that helps or hurts a reference has hostile tokens."""
    run = make_run(example=lambda index: Example("text", text=f"text of sample {index}"))
    rows = pq.read_table(run / "attributions.parquet").to_pylist()
    values = np.linspace(-1, 1, len(HOSTILE))
    pieces = [(text, float(value)) for text, value in zip(HOSTILE, values, strict=True)]
    pairs = {(row["reference_index"], row["train_index"]): pieces for row in rows if row["method"] == "forward_inf"}
    assert pairs
    write_marks(run, "forward_inf", pairs)
    return run


def test_the_page_shows_them_with_a_legend_and_runs_nothing(make_run: MakeRun, visit: Visit) -> None:
    run = marked_run(make_run)
    path = render(run)
    source = path.read_text(encoding="utf-8")
    assert source.count('class="legend"') == 1
    marks = re.findall(r'<mark class="([\w ]+)">', source)
    assert {f"{way} m{level}" for way in ("up", "down") for level in (1, 2, 3)} <= set(marks)
    page = visit(path)
    page.evaluate("for (const box of document.querySelectorAll('details')) box.open = true")
    assert page.evaluate("window.__xss") is None
    # Not by colour alone: which way a token pulls is a kind of line, and the strongest are named in words.
    line = "m => getComputedStyle(document.querySelector('#single-references .' + m)).textDecorationStyle"
    assert [page.evaluate(line, way) for way in ("up", "down")] == ["solid", "dotted"]
    assert page.locator("#single-references .strongest").count() > 0
    page.evaluate("for (const box of document.querySelectorAll('#suspects')) box.remove()")  # looked at elsewhere
    assert axe(page) == []


def test_marks_of_another_method_are_not_shown(make_run: MakeRun) -> None:
    run = marked_run(make_run)
    found = read_marks(run)
    assert "<mark" in render(run).read_text(encoding="utf-8")
    pairs = {(int(r), int(i)): [("a", 1.0)] for r, own in found["pairs"].items() for i in own}
    write_marks(run, "tracin", pairs)
    assert "<mark" not in render(run).read_text(encoding="utf-8")
