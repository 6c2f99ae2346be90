"""The section about earlier decisions: its numbers are the summary's, and names from data are text."""

from __future__ import annotations

import html
import io
from typing import Any

import pytest
from rich.console import Console

from lightning_inf.audit.decided import decided
from lightning_inf.data.decisions import Decision, Decisions
from lightning_inf.data.reviewed import Reviewed
from lightning_inf.report.html import render
from lightning_inf.report.run import Run
from lightning_inf.report.sections.decided import ROWS, context
from lightning_inf.report.terminal import summarize
from tests.report.conftest import MakeRun

EVIL = '<img src=x onerror="window.__xss=1">'


def change_to(rows: list[Decision], corrected: str | None = None) -> Any:
    def change(summary: dict[str, Any], columns: dict[str, list[Any]]) -> None:
        places = {row.index: row.index for row in rows if row.kind != "drop"}
        found = Reviewed(Decisions(EVIL + "d.csv", "x", tuple(rows)), places, "index", corrected)
        import numpy as np

        summary["decided"] = decided(found, np.array(columns["is_label_issue"], dtype=bool))
        summary["dataset"]["class_names"] = [EVIL, "bee", "cat", "dog"]

    return change


DECISIONS = [
    Decision(0, EVIL, 0, "keep", run_id="0123456789ab", suspect=True),
    Decision(9, "nine", 1, "accept", 2, suspect=True),
    Decision(1, "one", 1, "drop", suspect=False),
]


def test_what_the_page_says(make_run: MakeRun) -> None:
    run = make_run(change=change_to(DECISIONS))
    page = render(run).read_text(encoding="utf-8")
    section = page.split('<section id="decided"')[1].split("</section>")[0]
    assert "1 of 2 suspects that were reviewed before were confirmed (50.0%, 95 % interval 9.5% to 90.5%)" in section
    assert "Of 1 sample with another label, 1 got the suggested one." in section
    assert "Of 1 reviewed sample that was no suspect, 1 was wrong." in section
    assert "not corrected by these decisions" in section
    assert EVIL not in page
    assert html.escape(EVIL).replace("&quot;", "&#34;") in section
    assert 'href="#decided"' in page


def test_suspects_that_come_again_stand_first(make_run: MakeRun) -> None:
    rows = [Decision(i, str(i), 0, "keep") for i in range(1, 9)] + [Decision(9, "nine", 0, "keep")]
    found = context(Run(make_run(change=change_to(rows))))
    assert found is not None
    assert [row["index"] for row in found["rows"]][:2] == [9, 1]


def test_a_long_list_is_cut_and_says_so(make_run: MakeRun) -> None:
    rows = [Decision(i, str(i), 0, "unsure") for i in range(ROWS + 1)]
    page = render(make_run(change=change_to(rows, "60-a-b"))).read_text(encoding="utf-8")
    assert f"<summary>{ROWS} of {ROWS + 1} decisions</summary>" in page
    assert "none of them about samples that somebody was sure of" in page
    assert "The training data are those that were reviewed, corrected." in page


def test_runs_without_decisions_have_no_such_section(make_run: MakeRun) -> None:
    assert context(Run(make_run())) is None


@pytest.mark.parametrize("width", [40, 80])
def test_the_terminal_says_the_same_sentence(make_run: MakeRun, width: int) -> None:
    run = Run(make_run(change=change_to(DECISIONS)))
    stream = io.StringIO()
    summarize(run.summary, [], Console(file=stream, width=width))
    assert "Decided before: 1 of 2 suspects" in " ".join(stream.getvalue().split())
