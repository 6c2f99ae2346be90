"""The page in a browser: it loads nothing, runs nothing from the data, and lets a person find, decide and export."""

from __future__ import annotations

import gzip
import io
import json
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from axe_playwright_python.base import AXE_FILE_PATH
from PIL import Image

from lightning_inf.data.decisions import read_decisions
from lightning_inf.data.examples import Example
from lightning_inf.report import payload
from lightning_inf.report.html import _script, _style, render
from tests.report.conftest import build_run
from tests.report.hostile import HOSTILE

MakeRun = Callable[..., Path]
Visit = Callable[..., Any]


def noise(index: int) -> Example:
    """Compresses worse than any photograph."""
    return Example("image", np.random.default_rng(index).integers(0, 256, (80, 80, 3), dtype=np.uint8))


def flat(index: int) -> Example:
    return Example("image", np.full((28, 28), (37 * index + 40) % 256, dtype=np.uint8))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 240 samples with pictures, rendered."""
    directory = build_run(tmp_path_factory.mktemp("page") / "influence", samples=240, known=24, example=flat)
    render(directory)
    return directory


def indices(page: Any) -> list[int]:
    return [int(re.search(r"#(\d+)", text).group(1)) for text in page.locator("#gallery .who").all_inner_texts()]


def table(run: Path) -> list[dict[str, Any]]:
    return pq.read_table(run / "scores.parquet").to_pylist()


def axe(page: Any) -> list[str]:
    source = AXE_FILE_PATH.read_text(encoding="utf-8")
    page.evaluate(source)  # a script tag would be stopped by the page's policy
    tags = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
    found = page.evaluate(
        "tags => axe.run(document, {runOnly: {type: 'tag', values: tags}, resultTypes: ['violations']})", tags
    )
    assert len(found["passes"]) > 15
    return [
        f"{v['id']}: {v['nodes'][0]['html'][:200]} {v['nodes'][0]['failureSummary'][:300]}" for v in found["violations"]
    ]


def test_own_script_and_style_are_small() -> None:
    assert len(_script().encode()) <= 25_000
    assert len(_style().encode()) <= 10_000


@pytest.mark.parametrize(("samples", "megabytes"), [(1_000, 1.5), (10_000, 2.0), (60_000, 4.0)])
def test_the_page_is_small_and_soon_usable(tmp_path: Path, visit: Visit, samples: int, megabytes: float) -> None:
    run = build_run(tmp_path / "influence", samples=samples, wrong=set(range(0, samples, 20)), example=noise)
    started = time.perf_counter()
    path = render(run)
    assert time.perf_counter() - started < 30
    assert path.stat().st_size <= megabytes * 1e6
    seconds = []
    while not seconds or (min(seconds) >= 2 and len(seconds) < 3):  # again, where others used the machine meanwhile
        page = visit(path)
        seconds.append(page.evaluate("performance.getEntriesByName('ready')[0].startTime") / 1000)
    assert min(seconds) < 2, f"usable after {seconds} s"
    assert f"of {samples:,} samples" in page.locator(".where").inner_text()


def test_pictures_are_drawn(run: Path, visit: Visit) -> None:
    for options in ({}, {"java_script_enabled": False}):
        page = visit(run / "report.html", **options)
        for number in (0, 17):
            thumb = page.locator("#gallery .thumb").nth(number)
            index = int(thumb.get_attribute("aria-label").split()[1])
            thumb.scroll_into_view_if_needed()
            drawn = np.asarray(Image.open(io.BytesIO(thumb.screenshot())).convert("L"))
            middle = drawn[drawn.shape[0] // 2, drawn.shape[1] // 2]
            assert abs(int(middle) - (37 * index + 40) % 256) < 8


def test_without_scripts_the_page_says_what_matters(run: Path, visit: Visit) -> None:
    page = visit(run / "report.html", java_script_enabled=False)
    summary = json.loads((run / "summary.json").read_text(encoding="utf-8"))
    assert summary["verdict"] in page.locator("#verdict").inner_text()
    expected = [row["index"] for row in sorted(table(run), key=lambda row: row["label_rank"])][:60]
    assert indices(page) == expected
    assert page.locator("svg.picture").count() >= 2
    assert "Scripts are off" in page.locator("#suspects").inner_text()
    assert not page.locator("#tools *").count()


def test_a_viewer_that_strips_script_and_style_leaves_text(run: Path, tmp_path: Path, visit: Visit) -> None:
    bare = re.sub(r"(?s)<(script|style)\b.*?</\1>|<meta http-equiv[^>]*>", "", (run / "report.html").read_text("utf-8"))
    policy = "default-src 'none'; img-src data:"
    bare = bare.replace("<head>", f'<head><meta http-equiv="Content-Security-Policy" content="{policy}">')
    path = tmp_path / "bare.html"
    path.write_text(bare, encoding="utf-8")
    page = visit(path, ready="")
    text = page.locator("main").inner_text()
    first = min(table(run), key=lambda row: row["label_rank"])
    for said in (
        "Do first",
        f"#{first['index']}",
        f"{first['label_name']} → {first['suggested_label_name']}",
        "95% interval",
    ):
        assert said in text


def test_the_script_makes_the_same_cards_as_the_document(run: Path, visit: Visit) -> None:
    plain = visit(run / "report.html", java_script_enabled=False)
    page = visit(run / "report.html")
    page.locator("#gallery .look").first.wait_for(state="attached")
    page.evaluate("for (const button of document.querySelectorAll('#gallery .look')) button.remove()")
    as_read = "cards => cards.map(card => card.innerText.replace(/\\s+/g, ' ').trim())"
    assert page.locator("#gallery .card").evaluate_all(as_read) == plain.locator("#gallery .card").evaluate_all(as_read)


def test_sort_filter_search_and_pages(run: Path, visit: Visit) -> None:
    rows = table(run)
    page = visit(run / "report.html")
    assert page.locator(".where").inner_text() == "240 of 240 samples, page 1 of 4"
    page.get_by_label("Sort by rank of").select_option("tracin_rank")
    by_tracin = [row["index"] for row in sorted(rows, key=lambda row: row["tracin_rank"])]
    assert indices(page) == by_tracin[:60]
    page.get_by_role("button", name="Next →").first.click()
    assert indices(page) == by_tracin[60:120]
    page.get_by_role("button", name="label_score: any").click()
    issues = [row for row in rows if row["is_label_issue"]]
    assert indices(page) == [i for i in by_tracin if rows[i]["is_label_issue"]]
    page.get_by_role("button", name="forward_inf: any").click()
    page.get_by_role("button", name="forward_inf: yes").click()  # now: no
    k = json.loads((run / "summary.json").read_text(encoding="utf-8"))["agreement"]["k"]
    assert set(indices(page)) == {row["index"] for row in issues if row["forward_inf_rank"] > k}
    page.get_by_role("button", name="forward_inf: no").click()
    page.get_by_label("Given class").select_option(label="bee")
    assert set(indices(page)) == {row["index"] for row in issues if row["label_name"] == "bee"}
    page.get_by_label("Given class").select_option("")
    pair = page.get_by_label("Given → suggested").locator("option").nth(1)
    given, suggested = map(int, pair.get_attribute("value").split())
    page.get_by_label("Given → suggested").select_option(index=1)
    matching = [row for row in issues if (row["label"], row["suggested_label"]) == (given, suggested)]
    assert set(indices(page)) == {row["index"] for row in matching}
    assert pair.inner_text().endswith(f"({len(matching)})")
    page.get_by_label("Given → suggested").select_option("")
    page.get_by_role("button", name="label_score: yes").click()
    page.get_by_role("button", name="label_score: no").click()
    page.get_by_label("Index or id").fill("00017")
    assert indices(page) == [17]
    page.get_by_label("Index or id").fill("#203")
    assert indices(page) == [203]
    page.get_by_label("Index or id").fill("nowhere")
    assert page.locator(".where").inner_text() == "No sample of 240 fits these filters."
    assert page.get_by_role("button", name="Review these").is_disabled()


def test_a_cell_of_the_heatmap_and_its_row_lead_to_the_samples(run: Path, visit: Visit) -> None:
    page = visit(run / "report.html")
    cell = page.locator("#classes .heatmap .cell.leads, #classes svg .cell.leads").first
    pair = cell.get_attribute("data-pair")
    cell.click()
    given, suggested = map(int, pair.split())
    wanted = {
        r["index"]
        for r in table(run)
        if r["is_label_issue"] and (r["label"], r["suggested_label"]) == (given, suggested)
    }
    assert set(indices(page)) == wanted
    assert page.get_by_label("Given → suggested").input_value() == pair
    page.get_by_label("Given → suggested").select_option("")
    page.locator("#classes summary").click()
    row = page.locator(f'#classes td[data-pair="{pair}"] button')
    assert row.inner_text() == str(len(wanted))
    row.focus()
    page.keyboard.press("Enter")
    assert set(indices(page)) == wanted


def test_review_by_keys_survives_a_reload_and_comes_back_from_the_file(run: Path, tmp_path: Path, visit: Visit) -> None:
    rows = {row["index"]: row for row in table(run)}
    order = sorted((i for i in rows if rows[i]["is_label_issue"]), key=lambda i: rows[i]["label_rank"])
    page = visit(run / "report.html")
    page.get_by_role("button", name=f"Review the {len(order)} suspects").click()
    progress = page.locator("dialog [role=status]")
    assert progress.inner_text() == f"0 of {len(order)} decided; this is 1"
    page.get_by_label("Note, kept with").fill('=1+1, "quoted"')
    page.locator("dialog").focus()
    for key in "ynxu":
        page.keyboard.press(key)
    assert progress.inner_text() == f"4 of {len(order)} decided; this is 5"
    page.keyboard.press("3")  # the third class
    page.keyboard.press("r")
    page.keyboard.type("dox")  # typed, not decided on
    assert progress.inner_text() == f"5 of {len(order)} decided; this is 6"
    page.keyboard.press("Backspace")
    page.keyboard.press("Enter")
    page.keyboard.press("y")
    page.keyboard.press("z")  # takes that back
    assert progress.inner_text() == f"6 of {len(order)} decided; this is 7"
    page.keyboard.press("k")
    assert progress.inner_text() == f"6 of {len(order)} decided; this is 6"
    page.keyboard.press("g")
    page.get_by_label("Single-key shortcuts").uncheck()
    page.keyboard.press("y")
    assert progress.inner_text() == f"6 of {len(order)} decided; this is 7"
    page.keyboard.press("Escape")
    page.get_by_label("Reviewer").fill("@ada")
    page.get_by_label("Reviewer").press("Tab")

    page.reload()
    page.wait_for_selector('html[data-ready="yes"]')
    assert "6 decided: 1 accept, 1 keep, 2 relabel, 1 drop, 1 unsure." in page.locator("#decisions").inner_text()
    page.get_by_label("Decision").first.select_option("open")
    assert page.locator(".where").inner_text().startswith("234 of 240")
    first = export(page, tmp_path / "decisions.csv")
    assert '"\'=1+1, ""quoted"""' in first

    found = read_decisions(tmp_path / "decisions.csv")
    assert [row.index for row in found.rows] == sorted(order[:6])
    by_index = {row.index: row for row in found.rows}
    one, two, three, four, five, six = (by_index[i] for i in order[:6])
    assert [row.kind for row in (one, two, three, four, five, six)] == [
        "accept",
        "keep",
        "drop",
        "unsure",
        "relabel",
        "relabel",
    ]
    assert one.new_label == rows[one.index]["suggested_label"]
    assert one.note == '=1+1, "quoted"'
    assert (five.new_label, six.new_label, two.new_label) == (2, 3, None)
    assert all(
        row.given_label == rows[row.index]["label"] and row.sample_id == rows[row.index]["sample_id"]
        for row in found.rows
    )
    assert found.fingerprint == "9f2c1b7a"
    assert found.runs == ("0123456789ab",)

    other = visit(run / "report.html")  # another profile: nothing is decided there
    assert "0 decided." in other.locator("#decisions").inner_text()
    other.get_by_label("Import decisions.csv").set_input_files(tmp_path / "decisions.csv")
    other.get_by_text("6 came from the file").wait_for()
    other.get_by_label("Reviewer").fill("@ada")
    other.get_by_label("Reviewer").press("Tab")
    assert export(other, tmp_path / "again.csv") == first


def export(page: Any, path: Path) -> str:
    with page.expect_download() as download:
        page.get_by_role("button", name="Export decisions.csv").click()
    download.value.save_as(path)
    return path.read_bytes().decode("utf-8")


def test_a_file_of_another_data_set_or_no_such_file_is_refused(run: Path, tmp_path: Path, visit: Visit) -> None:
    head = "sample_id,index,given_label,decision,new_label,reviewer,note,decided_at,run_id,fingerprint"
    page = visit(run / "report.html")
    cases = {
        "a,b\n1,2\n": "expected the columns of decisions.csv",
        f"{head}\nx,3,0,keep,,,,,r,other\n": "another data set",
        f"{head}\nx,3,0,burn,,,,,r,9f2c1b7a\n": 'unknown decision "burn"',
        f"{head}\nx,9999,0,keep,,,,,r,9f2c1b7a\n": "index 9999 is not in this page",
    }
    for text, said in cases.items():
        (tmp_path / "bad.csv").write_text(text, encoding="utf-8")
        page.get_by_label("Import decisions.csv").set_input_files(tmp_path / "bad.csv")
        page.locator("#decisions", has_text=said).wait_for()
        assert "Nothing was imported" in page.locator("#decisions").inner_text()


def test_decisions_that_the_browser_does_not_keep_are_announced(run: Path, visit: Visit) -> None:
    page = visit(run / "report.html")
    page.evaluate("Storage.prototype.setItem = () => { throw new DOMException('full', 'QuotaExceededError'); }; null")
    page.locator("#gallery .look").first.click()
    page.keyboard.press("n")
    page.keyboard.press("Escape")
    assert "1 decided: 1 keep. This browser does not keep them: export" in page.locator("#decisions").inner_text()
    assert page.locator("#gallery .decided").first.inner_text() == "keep"


def test_decisions_of_runs_stay_apart(run: Path, tmp_path: Path, visit: Visit) -> None:
    page = visit(run / "report.html")
    page.locator("#gallery .look").first.click()
    page.keyboard.press("x")

    def other(summary: dict[str, Any], columns: dict[str, list[Any]]) -> None:
        summary["run"]["id"] = "ba9876543210"

    path = render(build_run(tmp_path / "influence", samples=240, change=other))
    page.goto(path.as_uri())  # the same profile: files share one storage
    page.wait_for_selector('html[data-ready="yes"]')
    assert "0 decided." in page.locator("#decisions").inner_text()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_violation(run: Path, visit: Visit, scheme: str) -> None:
    page = visit(run / "report.html", color_scheme=scheme)
    page.evaluate("for (const box of document.querySelectorAll('details')) box.open = true")
    page.get_by_label("Index or id").fill("0001")  # axe looks at every element, and all cards are alike
    assert axe(page) == []
    page.locator("#gallery .look").first.click()
    page.keyboard.press("u")
    assert axe(page) == []


def test_the_theme_can_be_chosen(run: Path, visit: Visit) -> None:
    page = visit(run / "report.html", color_scheme="dark")
    background = "getComputedStyle(document.body).backgroundColor"
    dark = page.evaluate(background)
    page.get_by_role("button", name="Theme: auto").click()
    light = page.evaluate(background)
    assert light == "rgb(255, 255, 255)" != dark
    page.reload()
    assert page.evaluate(background) == light


def test_a_phone_and_paper(run: Path, visit: Visit) -> None:
    page = visit(run / "report.html", viewport={"width": 320, "height": 640})
    assert page.evaluate("document.documentElement.scrollWidth") <= 320
    page.locator("#gallery .look").first.click()
    assert page.locator("dialog").bounding_box()["width"] <= 320
    page.keyboard.press("Escape")
    page.emulate_media(media="print")
    assert not page.locator("#tools").is_visible()
    assert page.locator("details p").first.is_visible()
    assert len(page.pdf()) > 20_000


def test_tampered_data_are_said_to_be_and_the_rest_stays(run: Path, tmp_path: Path, visit: Visit) -> None:
    text = (run / "report.html").read_text(encoding="utf-8")
    packed = re.search(r'"packed": "([^"]+)"', text).group(1)
    middle = len(packed) // 2
    changed = packed[:middle] + ("A" if packed[middle] != "A" else "B") + packed[middle + 1 :]
    for broken in (changed, packed[: len(packed) // 2], "!"):
        (tmp_path / "broken.html").write_text(text.replace(packed, broken), encoding="utf-8")
        page = visit(tmp_path / "broken.html", ready="broken")
        assert "can't be read" in page.get_by_role("alert").inner_text()
        assert len(indices(page)) == 60


def test_hostile_text_is_shown_and_never_runs(tmp_path: Path, visit: Visit) -> None:
    def change(summary: dict[str, Any], columns: dict[str, list[Any]]) -> None:
        joined = " ; ".join(HOSTILE)
        summary["verdict"] = summary["run"]["model"] = summary["references"]["source"] = joined
        summary["left_out"] = summary["methods"][0]["notes"] = HOSTILE
        summary["methods"][1]["name"] = HOSTILE[0]
        columns["sample_id"][: len(HOSTILE)] = HOSTILE
        summary["checkpoints"][0]["file"] = joined

    def text(index: int) -> Example:
        return (
            Example("text", text=HOSTILE[index % len(HOSTILE)])
            if index % 2
            else Example("table", rows=((HOSTILE[index % len(HOSTILE)], HOSTILE[-2]),))
        )

    wrong = set(range(len(HOSTILE)))
    run = build_run(
        tmp_path / "influence", names=HOSTILE, wrong=wrong, samples=90, known=3, change=change, example=text
    )
    page = visit(render(run))
    page.get_by_label("Sort by rank of").select_option("index")
    shown = page.locator("#gallery .card").all_inner_texts()
    for index, string in enumerate(HOSTILE[:-1]):
        assert re.sub(r"\s+", " ", string) in re.sub(r"\s+", " ", shown[index])
    page.get_by_role("button", name="Review the").click()
    for key in ("y", "n", "x", "u", "3"):
        page.keyboard.press(key)
    page.keyboard.press("Escape")
    page.get_by_label("Given class").select_option("0")
    page.evaluate("for (const box of document.querySelectorAll('details')) box.open = true")
    page.wait_for_timeout(50)
    assert page.evaluate("window.__xss") is None
    assert page.locator("main script:not([type='application/json'])").count() == 0
    assert page.locator("h1").count() == 1
    export(page, tmp_path / "decisions.csv")
    found = {row.index: row.sample_id for row in read_decisions(tmp_path / "decisions.csv").rows}
    assert len(found) == 5
    assert all(HOSTILE[index] == name for index, name in found.items())


def non_finite(summary: dict[str, Any], columns: dict[str, list[Any]]) -> None:
    summary["non_finite"] = [{"column": "tracin", "count": 60, "indices": list(range(60))}]
    for name in ("tracin", "tracin_rank", "label_score", "label_rank", "suggested_label", "suggested_label_name"):
        columns[name][:60] = [None] * 60
    columns["is_label_issue"][:60] = [None] * 60
    summary["issues"][0]["num_issues"] = sum(bool(flag) for flag in columns["is_label_issue"])


def targets(summary: dict[str, Any], columns: dict[str, list[Any]]) -> None:
    samples = len(columns["index"])
    columns["target"] = [float(i) for i in range(samples)]
    columns["expected_target"] = [i + 1234.4 if i < 3 else i + 0.25 for i in range(samples)]
    columns["label_score"] = [0.1 * i if i < 3 else 0.9 for i in range(samples)]
    columns["label_rank"] = [i + 1 for i in range(samples)]
    columns["is_label_issue"] = [i < 3 for i in range(samples)]
    summary["issues"][0] |= {"issue_type": "target", "num_issues": 3}


def test_a_page_about_targets_is_reviewed_without_classes(tmp_path: Path, visit: Visit) -> None:
    page = visit(render(build_run(tmp_path / "influence", names=None, example=flat, change=targets)))
    before = page.locator("#gallery .change").all_inner_texts()
    assert before[:3] == ["0 → 1234 expected", "1 → 1235 expected", "2 → 1236 expected"]
    page.get_by_label("Sort by rank of").select_option("index")  # from here on the script makes the cards
    assert page.locator("#gallery .change").all_inner_texts()[1:] == before[1:]
    assert page.get_by_label("Given → suggested").count() == 0
    page.get_by_role("button", name="Review the 3 suspects").click()
    assert page.get_by_role("button", name="Keep target").is_enabled()
    assert page.get_by_role("button", name="Accept suggestion").is_disabled()
    page.keyboard.press("x")
    page.keyboard.press("Escape")
    export(page, tmp_path / "decisions.csv")
    (row,) = read_decisions(tmp_path / "decisions.csv").rows
    assert (row.index, row.kind, row.given_label, row.suspect) == (0, "drop", None, True)


THOUSAND = [f"class {i}" for i in range(1000)]
SPECIAL: dict[str, tuple[dict[str, Any], list[str]]] = {
    "nothing suspicious": (
        {"wrong": set(), "example": flat},
        ["Nothing is suspicious", "Nothing was found that had to be done"],
    ),
    "one class": ({"names": ["only"], "wrong": set(), "example": flat}, ["only", "1 class"]),
    "1,000 classes": ({"names": THOUSAND, "samples": 3000}, ["The worst 50 of 1,000 classes", "Most frequent pairs"]),
    "regression": ({"names": None, "example": flat}, ["no labels that could be judged", "This run has no classes"]),
    "targets": (
        {"names": None, "example": flat, "change": targets},
        ["Suspicious targets", "3 targets are probably wrong", "0 → 1234 expected", "Given over expected targets"],
    ),
    "text": (
        {"example": lambda i: Example("text", text=f"sentence number {i}", more=4)},
        ["sentence number 0", "4 more characters"],
    ),
    "no images": ({"example": lambda i: Example("none")}, ["Likely mislabelled"]),
    "non-finite": ({"change": non_finite, "example": flat}, ["tracin: 60 samples"]),
    "a single sample": ({"samples": 1, "wrong": {0}, "references": 1, "example": flat}, ["1 label is probably wrong"]),
}


@pytest.mark.parametrize("case", SPECIAL)
def test_special_runs_have_a_page_of_their_own(tmp_path: Path, visit: Visit, case: str) -> None:
    options, said = SPECIAL[case]
    run = build_run(tmp_path / "influence", **options)
    page = visit(render(run))
    text = page.locator("main").evaluate("main => main.textContent.replace(/\\s+/g, ' ')")
    for phrase in said:
        assert phrase in text
    assert not re.search(r"\b(NaN|undefined|null|Infinity)\b", text.split("Methods")[0])
    samples = pq.read_metadata(run / "scores.parquet").num_rows
    assert page.locator(".where").inner_text().startswith(f"{samples:,} of {samples:,} samples")
    page.get_by_role("button", name=re.compile("^Review the")).click()
    page.keyboard.press("n")
    page.keyboard.press("Escape")
    assert "1 decided: 1 keep." in page.locator("#decisions").inner_text()
    page.get_by_label("Index or id").fill("#0")
    assert axe(page) == []


def test_more_samples_than_the_page_holds(make_run: MakeRun, visit: Visit, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(payload, "LIMIT", 100)
    monkeypatch.setattr(payload, "HEAD", 20)
    run = make_run(samples=150)
    ranks = ["label_rank", "forward_inf_rank", "tracin_rank", "self_influence_rank"]
    expected = {row["index"] for row in table(run) if any(row[rank] <= 20 for rank in ranks)}
    page = visit(render(run))
    assert f"This page holds {len(expected)} of 150 samples" in page.locator("#suspects").inner_text()
    page.get_by_label("Sort by rank of").select_option("index")
    found = indices(page)
    while page.get_by_role("button", name="Next →").first.is_enabled():
        page.get_by_role("button", name="Next →").first.click()
        found += indices(page)
    assert found == sorted(expected)
    page.locator("#gallery .look").first.click()
    page.keyboard.press("x")
    page.keyboard.press("Escape")
    assert "1 decided: 1 drop." in page.locator("#decisions").inner_text()


def test_packed_columns_are_those_of_the_table(run: Path) -> None:
    import base64

    from lightning_inf.report.run import Run

    packed = gzip.decompress(base64.b64decode(payload.payload(Run(run))["packed"]))
    length = int.from_bytes(packed[:4], "little")
    header = json.loads(packed[4 : 4 + length])
    start = -(-(4 + length) // 8) * 8
    rows = table(run)
    assert header["ids"] == [row["sample_id"] for row in rows]
    for entry in header["columns"]:
        values = np.frombuffer(packed, "<" + entry["type"], 240, start + entry["at"]).astype(float)
        if entry["scale"]:
            values = entry["scale"][0] + entry["scale"][1] * values
        np.testing.assert_allclose(values, [row[entry["name"]] for row in rows], atol=1e-4)
