"""The page says what the files say, shows hostile text as text, and is the same bytes every time."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
from collections.abc import Callable
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from rich.console import Console

from lightning_inf.report import markdown
from lightning_inf.report.html import render
from lightning_inf.report.run import ranked_rows
from lightning_inf.report.sections.ranking import LIST_LENGTH
from lightning_inf.report.sections.suspects import PAGE
from lightning_inf.report.terminal import summarize
from tests.report.hostile import HOSTILE

MakeRun = Callable[..., Path]


class Structure(HTMLParser):
    """Collects the tags and attributes of a page, and fails on tags that do not nest."""

    VOID = frozenset({"meta"})

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.words: list[str] = []
        self.feed(page)
        self.close()
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not {"style", "script"} & set(self.open):
            self.words.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.words))


def page_of(directory: Path) -> str:
    return render(directory).read_text(encoding="utf-8")


def section(page: str, name: str) -> str:
    return page.split(f'<section id="{name}"')[1].split("</section>")[0]


def indices(part: str) -> list[int]:
    return [
        int(index)
        for pair in re.findall(r'data-label="Index">(\d+)<|class="who">#(\d+)', part)
        for index in pair
        if index
    ]


def test_twice_the_same_bytes(make_run: MakeRun) -> None:
    directory = make_run(known=14)
    first = render(directory)
    content = first.read_bytes()
    assert first == directory / "report.html"
    assert render(directory).read_bytes() == content
    assert {path.name for path in directory.iterdir()} == {
        "report.html",
        "scores.parquet",
        "attributions.parquet",
        "summary.json",
    }


def test_policy_comes_first_and_its_hashes_are_those_of_style_and_script(make_run: MakeRun) -> None:
    page = page_of(make_run())
    head = page.split("<head>")[1].lstrip()
    assert head.startswith('<meta http-equiv="Content-Security-Policy"')
    style = re.findall(r"<style>(.*?)</style>", page, flags=re.DOTALL)
    assert len(style) == 1
    script = re.findall(r"<script>(.*?)</script>", page, flags=re.DOTALL)
    assert len(script) == 1
    hashes = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in (script[0], style[0])]
    policy = head.split('content="')[1].split('"')[0]
    assert policy == (
        f"default-src 'none'; script-src 'sha256-{hashes[0]}'; style-src 'sha256-{hashes[1]}'; img-src data:; "
        "connect-src 'none'; base-uri 'none'; form-action 'none'"
    )


def test_nothing_from_data_runs_and_nothing_is_loaded(make_run: MakeRun) -> None:
    structure = Structure(page_of(make_run(known=14)))
    assert not {tag for tag, _ in structure.tags} & {"img", "link", "iframe", "object", "form", "base"}
    for _, attributes in structure.tags:
        assert not [name for name in attributes if name.startswith("on") or name in ("style", "src")]
        assert (attributes.get("href") or "#").startswith("#")


def test_markup_is_accessible(make_run: MakeRun) -> None:
    structure = Structure(page_of(make_run(known=14)))
    ids = [attributes["id"] for _, attributes in structure.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    for _, attributes in structure.tags:
        targets = [(attributes.get("href") or "").lstrip("#"), *(attributes.get("aria-labelledby") or "").split()]
        assert {target for target in targets if target} <= set(ids)
    count = [tag for tag, _ in structure.tags].count
    assert count("table") == count("caption") == count("thead")
    assert count("h1") == count("main") == 1
    assert all("scope" in attributes for tag, attributes in structure.tags if tag == "th")


def hostile(summary: dict[str, Any], columns: dict[str, list[Any]]) -> None:
    """Put every hostile string in every place that text can come from."""
    joined = " ; ".join(HOSTILE)
    summary["verdict"] = summary["run"]["model"] = summary["references"]["source"] = joined
    summary["left_out"] = summary["methods"][0]["notes"] = HOSTILE
    summary["methods"][0]["name"] = summary["methods"][0]["formula"] = joined
    summary["methods"][0]["arguments"] = {text: {"nested": [text]} for text in HOSTILE}
    summary["files"] = {text: {"sha256": text, "bytes": 1} for text in HOSTILE}
    columns["sample_id"][: len(HOSTILE)] = HOSTILE
    columns["label"] = [i % len(HOSTILE) for i in range(len(columns["label"]))]
    columns["label_name"] = [HOSTILE[i] for i in columns["label"]]


def test_hostile_text_is_shown_and_does_nothing(make_run: MakeRun) -> None:
    wrong = set(range(len(HOSTILE)))
    plain = Structure(page_of(make_run(names=[f"c{i}" for i in wrong], wrong=wrong, known=1)))
    directory = make_run(names=HOSTILE, wrong=wrong, known=1, change=hostile)
    shown = {str(i): {"kind": "text", "text": text, "cut": 0} for i, text in enumerate(HOSTILE)}
    (directory / "examples").mkdir()
    sets = {"train": {"tile": 1, "columns": 1, "sheets": [], "samples": shown}}
    (directory / "examples" / "examples.json").write_text(
        json.dumps({"sets": sets, "notes": HOSTILE}), encoding="utf-8"
    )
    page = page_of(directory)
    structure = Structure(page)
    assert {tag for tag, _ in structure.tags} == {tag for tag, _ in plain.tags} | {"blockquote"}
    assert page.count("</style>") == 1
    assert page.count("</script>") == 2
    words = unescape(re.sub(r"<[^>]+>", "", page.split("<body>")[1]))
    for text in HOSTILE:
        assert words.count(text) >= 12, text
        if "<" in text and not text.endswith("--"):
            assert text not in page, text


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        ("a\x00b", r"a\x00b"),
        ("a\x1b[31mb", r"a\x1b[31mb"),
        ("a\u202egpj.exe", r"a\u202egpj.exe"),
        ("a\u2066b\x85", r"a\u2066b\x85"),
        ("lone \udc80", r"lone \udc80"),
    ],
)
def test_control_characters_are_shown_as_escapes(make_run: MakeRun, raw: str, shown: str) -> None:
    def change(summary: dict[str, Any], columns: dict[str, list[Any]]) -> None:
        summary["verdict"] = raw
        if "\udc80" not in raw:  # Parquet holds no lone surrogates.
            columns["sample_id"][0] = raw

    page = page_of(make_run(wrong={0}, change=change))
    assert raw not in page
    assert page.count(shown) >= (1 if "\udc80" in raw else 2)


def test_counts_are_those_of_the_summary(make_run: MakeRun) -> None:
    directory = make_run(samples=1437, wrong=set(range(0, 1437, 11)), known=131)
    summary = json.loads((directory / "summary.json").read_text(encoding="utf-8"))
    page = page_of(directory)
    flags = pq.read_table(directory / "scores.parquet", columns=["is_label_issue"])["is_label_issue"].to_pylist()
    figures = re.findall(r'class="figure" value="([^"]*)"', page)
    assert int(figures[0]) == summary["dataset"]["scored"] == 1437
    assert int(figures[1]) == summary["issues"][0]["num_issues"] == sum(flags) == 131
    assert [float(figure) for figure in figures[2:]] == [summary["agreement"]["pairs"][0]["overlap"], 0.981]
    assert "9.1% of the samples scored" in Structure(page).text
    classes = re.findall(r'<td class="n">([\d,]+)</td><td class="n">([\d,]+)</td>', section(page, "classes"))
    assert sum(int(n.replace(",", "")) for n, _ in classes) == 1437
    assert sum(int(k.replace(",", "")) for _, k in classes) == 131


def test_page_summary_table_terminal_and_markdown_count_alike(make_run: MakeRun) -> None:
    directory = make_run(samples=1437, wrong=set(range(0, 1437, 11)), known=131)
    summary = json.loads((directory / "summary.json").read_text(encoding="utf-8"))
    issues, scored = summary["issues"][0]["num_issues"], summary["dataset"]["scored"]
    flags = pq.read_table(directory / "scores.parquet")["is_label_issue"].to_pylist()
    assert (sum(flags), len(flags)) == (issues, scored)
    figures = re.findall(r'class="figure" value="([^"]*)"', page_of(directory))
    assert figures[:2] == [str(scored), str(issues)]
    assert f"Review {issues} suspect labels" in page_of(directory)
    printed = io.StringIO()
    summarize(summary, [], Console(file=printed, width=100))
    assert f"{scored:,} of {scored:,} samples scored, {issues} label issues" in printed.getvalue()
    written = markdown.render(directory).read_text(encoding="utf-8")
    assert f"{issues:,}" in written


@pytest.mark.parametrize(
    ("name", "rank"),
    [("suspects", "label_rank"), ("references", "forward_inf_rank"), ("self-influence", "self_influence_rank")],
)
def test_lists_are_the_first_of_their_ranking_in_order(make_run: MakeRun, name: str, rank: str) -> None:
    directory = make_run()
    table = pq.read_table(directory / "scores.parquet", columns=["index", rank]).to_pylist()
    expected = [row["index"] for row in sorted(table, key=lambda row: row[rank])]
    found = indices(section(page_of(directory), name))
    assert LIST_LENGTH <= len(found) <= PAGE
    assert found == expected[: len(found)]


def test_a_forward_inf_method_is_preferred_for_the_references(make_run: MakeRun) -> None:
    def swap(summary: dict[str, Any], columns: dict[str, list[Any]]) -> None:
        summary["methods"].reverse()

    def without(summary: dict[str, Any], columns: dict[str, list[Any]]) -> None:
        summary["methods"] = [method for method in summary["methods"] if method["name"] != "forward_inf"]

    assert "<code>forward_inf</code>" in section(page_of(make_run(change=swap)), "references")
    assert "<code>tracin</code>" in section(page_of(make_run(change=without)), "references")


def test_label_issues_are_marked_and_ranks_of_other_methods_stand_beside(make_run: MakeRun) -> None:
    directory = make_run(samples=200, wrong={3, 4, 5})
    part = section(page_of(directory), "suspects")
    assert part.count('class="card suspect"') == 3
    row = ranked_rows(directory / "scores.parquet", "label_rank", ["index", "tracin_rank"], limit=1)[0]
    first = part.split('<li class="card')[1]
    assert f'class="who">#{row["index"]} ' in first
    assert f"<dt>tracin</dt><dd>{row['tracin_rank']}</dd>" in first


def truth(**precision: float) -> Callable[[dict[str, Any], dict[str, list[Any]]], None]:
    def change(summary: dict[str, Any], columns: dict[str, list[Any]]) -> None:
        methods = {name: {"average_precision": value, "auroc": None} for name, value in precision.items()}
        summary["known_issues"] = {"count": 12, "prevalence": 0.1, "methods": methods}

    return change


def test_default_list_is_not_praised_where_known_truth_prefers_another(make_run: MakeRun) -> None:
    page = page_of(make_run(change=truth(label_score=0.61, forward_inf=0.3, self_influence=0.87)))
    text = section(page, "suspects")
    assert "self_influence is the better list: average precision 0.870, against 0.610 for this one" in text
    assert "bear this out" not in text


@pytest.mark.parametrize(
    ("rival", "expected"),
    [(0.5, "bear this out: average precision 0.610, against 0.500 for tracin"), (0.6101, "tracin is level with it")],
)
def test_default_list_is_compared_with_the_best_rival(make_run: MakeRun, rival: float, expected: str) -> None:
    text = Structure(page_of(make_run(change=truth(label_score=0.61, tracin=rival, forward_inf=0.2)))).text
    assert expected in text


def test_average_precision_stands_in_every_heading_or_nowhere(make_run: MakeRun) -> None:
    page = page_of(make_run(known=14))
    for name, value in (("suspects", "0.981"), ("references", "0.774"), ("self-influence", "0.853")):
        assert f"average precision {value}" in section(page, name).split("</h2>")[0]
    page = page_of(make_run(known=None))
    assert "average precision" not in page.lower()
    assert "known_issues=[...]" in page


def test_a_reference_shows_five_each_way_with_the_sign_as_a_direction(make_run: MakeRun) -> None:
    part = section(page_of(make_run(references=60)), "references").split('id="single-references"')[1]
    assert part.count("data-name=") == 48
    assert "the first 48 stand here" in page_of(make_run(references=60))
    first = part.split("data-name=")[1]
    assert first.count('class="plus"') == first.count('class="minus"') == 5
    widths = [float(width) for width in re.findall(r'width="([\d.]+)" height="10" class="plus"', first)]
    assert len(widths) == 5
    assert widths == sorted(widths, reverse=True)
    # The strongest of both sides reaches the end of the scale.
    both = [float(width) for width in re.findall(r'width="([\d.]+)" height="10" class="(?:plus|minus)"', first)]
    assert max(both) == 79.5


def test_many_classes_are_cut_to_the_worst_fifty(make_run: MakeRun) -> None:
    names = [f"class {i}" for i in range(1000)]
    page = page_of(make_run(samples=3000, names=names))
    part = section(page, "classes")
    assert "The worst 50 of 1,000 classes" in part
    assert part.split("</table>")[0].count("<tr>") == 51
    assert "<svg" not in part.split("</table>")[1]  # no heatmap of a thousand classes
    assert "Most frequent pairs" in part


def test_a_class_of_two_does_not_lead_by_chance(make_run: MakeRun) -> None:
    def change(summary: dict[str, Any], columns: dict[str, list[Any]]) -> None:
        summary["classes"] = [
            {"label": 0, "label_name": "small", "samples": 2, "label_issues": 1},
            {"label": 1, "label_name": "large", "samples": 200, "label_issues": 80},
            {"label": 2, "label_name": "clean", "samples": 300, "label_issues": 0},
            {"label": 3, "label_name": "empty", "samples": 0, "label_issues": None},
        ]

    part = section(page_of(make_run(change=change)), "classes")
    assert re.findall(r"<bdi>(\w+)</bdi>", part.split("</table>")[0]) == ["large", "small", "clean", "empty"]


def test_regression_has_no_label_columns(make_run: MakeRun) -> None:
    page = page_of(make_run(names=None, references=0))
    assert "no labels that could be judged" in section(page, "suspects")
    assert "This run has no classes." in page
    assert "No reference was looked at one by one" in page
    assert "Given label" not in page
    assert "Suggestion" not in page
    assert len(indices(section(page, "references"))) == LIST_LENGTH
    assert 'sort_values("forward_inf_rank")' in unescape(page)


def test_method_columns_may_be_absent_or_null(make_run: MakeRun) -> None:
    def null(summary: dict[str, Any], columns: dict[str, list[Any]]) -> None:
        columns["tracin_rank"] = columns["tracin"] = [None] * 120

    page = page_of(make_run(drop=("forward_inf", "forward_inf_rank"), change=null))
    assert "there is nothing to rank" in section(page, "references")
    assert "rank by tracin" not in page
    assert len(indices(section(page, "suspects"))) == PAGE


def test_no_method_at_all(make_run: MakeRun) -> None:
    def change(summary: dict[str, Any], columns: dict[str, list[Any]]) -> None:
        summary["methods"] = []

    page = page_of(make_run(change=change, references=0))
    assert "No method that uses held-out references" in page
    assert "Self-influence was not part of this run" in page


def test_nothing_suspicious_is_said_so(make_run: MakeRun) -> None:
    page = page_of(make_run(wrong=set()))
    assert "Nothing is suspicious by the rule of this run" in page
    assert "card suspect" not in section(page, "suspects")
    assert len(indices(section(page, "suspects"))) == PAGE


@pytest.mark.parametrize("wrong", [set(), {0}])
def test_a_single_sample(make_run: MakeRun, wrong: set[int]) -> None:
    page = page_of(make_run(samples=1, names=["only"], wrong=wrong, references=1))
    assert indices(section(page, "suspects")) == [0]


def test_agreement_of_the_rankings(make_run: MakeRun) -> None:
    page = page_of(make_run())
    text = Structure(page).text
    assert "first 14 of the other" in text
    assert "would share 11.7% of them" in text  # 14 of 120
    rows = re.findall(r'<th scope="row">(\w+)</th><td>(\w+)</td>(.*?)</tr>', section(page, "agreement"))
    cells = [(*names, re.findall(r">([^<>]+)</td>", rest)) for *names, rest in rows]
    assert cells == [
        ("label_score", "forward_inf", ["+0.46", "64.3%"]),
        ("label_score", "tracin", ["–", "–"]),
    ]
    assert 'href="#agreement"' in page


def test_a_run_without_agreement_has_no_section(make_run: MakeRun) -> None:
    """Of an older version, or of one ranking alone."""

    def forget(summary: dict[str, Any], columns: dict[str, list[Any]]) -> None:
        del summary["agreement"]

    def alone(summary: dict[str, Any], columns: dict[str, list[Any]]) -> None:
        summary["agreement"]["pairs"] = []

    for change in (forget, alone):
        assert "#agreement" not in page_of(make_run(change=change))


def test_missing_numbers_are_dashes(make_run: MakeRun) -> None:
    def change(summary: dict[str, Any], columns: dict[str, list[Any]]) -> None:
        summary["run"].update(seconds=None, seed=None, world_size=None)
        summary["cost"] = {"estimated_seconds": None, "budget_seconds": None, "passes": None, "disk_bytes": None}
        summary["issues"][0].update(num_issues=None, threshold=None, threshold_rule=None, score=None)
        summary["checkpoints"][0].update(learning_rate=None, epoch=None, step=None)
        summary["methods"][0].update(seconds=None, scored=None, non_finite=None, backend=None)
        summary["known_issues"] = {"count": None, "prevalence": None, "methods": {"label_score": None}}

    page = page_of(make_run(change=change))
    assert ">None<" not in page
    assert "None " not in Structure(page).text.replace("None. ", "")
    assert "seed –" in page


def test_non_finite_samples_are_named(make_run: MakeRun) -> None:
    def change(summary: dict[str, Any], columns: dict[str, list[Any]]) -> None:
        summary["non_finite"] = [{"column": "loss", "count": 250, "indices": list(range(1000, 1250))}]

    text = Structure(page_of(make_run(change=change))).text
    assert "1000, 1001" in text
    assert "1099 and more" in text
    assert "1100" not in text.split("Not finite")[1].split("References")[0]


def test_another_schema_is_refused(make_run: MakeRun) -> None:
    def change(summary: dict[str, Any], columns: dict[str, list[Any]]) -> None:
        summary["schema_version"] = 1

    with pytest.raises(ValueError, match="schema version 1"):
        render(make_run(change=change))


def test_only_our_own_style_and_script_are_exempt_from_escaping() -> None:
    room = Path(render.__code__.co_filename).parent
    for template in room.rglob("*.jinja"):
        assert "|safe" not in template.read_text(encoding="utf-8").replace(" ", ""), template
    marked = {
        path.relative_to(room).as_posix(): len(
            re.findall(r"Markup\((?!\"[^{}]*\"\))", path.read_text(encoding="utf-8"))
        )
        for path in room.rglob("*.py")
    }
    # html.py: style and script. drawing/svg.py: format strings of our own, whose arguments are escaped.
    assert {name for name, found in marked.items() if found} == {"html.py", "drawing/svg.py"}
    assert marked["html.py"] == 2
    for own in (*room.rglob("*.css"), *room.rglob("*.js")):
        text = own.read_text(encoding="utf-8")
        assert "</style" not in text
        assert "</script" not in text
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|new Function", text), own
