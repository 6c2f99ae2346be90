"""``report.md``: the numbers of the summary, and nothing that data hold is ever markup."""

from __future__ import annotations

import html
import re
from typing import Any

import pytest
from markdown_it import MarkdownIt

from lightning_inf.report.markdown import render, verbatim
from tests.report.conftest import MakeRun

HOSTILE = [
    "<script>alert(1)</script>",
    "</code><img src=x onerror=alert(1)>",
    "[click](javascript:alert(1))",
    "![x](https://evil.example/p.png)",
    "https://evil.example www.evil.example",
    "a|b\\|c",
    "`code` ``more``",
    "*bold* _it_ ~~no~~",
    "# heading",
    "- list\n- of\r\ntwo",
    "&lt;b&gt; &#60;b&#62;",
    "@someone #1 a@b.example",
    "$x$ $$y$$",
    "\x1b[31mred\x07",
    "\u202egpj.exe",
    "  two  spaces  ",
    "\\",
    "<!-- comment",
    "::error::x",
    "=HYPERLINK(1)",
    "\u2028line",
    "名前 ü",
]


def rendered(text: str) -> str:
    """HTML of a page with tables, as GitHub's."""
    return MarkdownIt("commonmark", {"html": True}).enable("table").enable("strikethrough").render(text)


@pytest.mark.parametrize("text", HOSTILE)
def test_a_text_is_shown_as_it_is(text: str) -> None:
    from lightning_inf.report.terminal import visible

    page = rendered(f"| a | b |\n| --- | --- |\n| {verbatim(text)} | end |")
    (cell,) = re.findall(r"<td><code>(.*?)</code></td>\n<td>end</td>", page)
    assert "<" not in cell
    assert html.unescape(cell).replace("\xa0", " ") == visible(text)


def test_hostile_names_in_a_run(make_run: MakeRun) -> None:
    def change(summary: dict[str, Any], columns: dict[str, list[Any]]) -> None:
        columns["sample_id"] = [HOSTILE[i % len(HOSTILE)] for i in range(len(columns["sample_id"]))]
        columns["label_name"] = [HOSTILE[i % len(HOSTILE)] for i in range(len(columns["label_name"]))]
        summary["run"]["model"] = HOSTILE[1]
        summary["verdict"] = HOSTILE[2] + HOSTILE[0]
        summary["left_out"] = [HOSTILE[3]]
        for entry, name in zip(summary["classes"], HOSTILE, strict=False):
            entry["label_name"] = name

    page = rendered(render(make_run(change=change)).read_text(encoding="utf-8"))
    tags = set(re.findall(r"</?([a-zA-Z0-9!]+)", page))
    assert tags <= {"h2", "h3", "p", "strong", "code", "table", "thead", "tbody", "tr", "th", "td", "ul", "li"}
    assert re.findall(r"<[a-z0-9]+ (?!style=\"text-align:right\")", page) == []


def test_the_numbers_are_those_of_the_summary(make_run: MakeRun) -> None:
    run = make_run()
    text = html.unescape(render(run).read_text(encoding="utf-8"))
    from lightning_inf.report.schema import read_summary

    summary = read_summary(run)
    assert summary["verdict"] in text
    assert f"| {summary['issues'][0]['num_issues']:,} |" in text
    assert summary["left_out"][0] in text
    assert text == html.unescape(render(run).read_text(encoding="utf-8"))


@pytest.mark.parametrize("names", [None, ["only"]])
def test_runs_without_classes_or_suspects(make_run: MakeRun, names: list[str] | None) -> None:
    text = render(make_run(names=names, wrong=set())).read_text(encoding="utf-8")
    assert "most suspect" not in text
    assert text.startswith("## Training data of ")
