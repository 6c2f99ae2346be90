"""Sections 4 to 9: what they say is what the files say, and what is missing breaks nothing."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lightning_inf.report.curves import write_curves
from lightning_inf.report.html import render
from lightning_inf.report.run import Run
from lightning_inf.report.sections import agreement, duplicates, dynamics, references, self_influence, truth

MakeRun = Callable[..., Path]
NAMES = ["ant", "bee", "cat", "dog"]
HOSTILE = "<img src=x onerror=alert(1)>"


def section(directory: Path, key: str) -> str:
    page = render(directory).read_text(encoding="utf-8")
    found = re.search(rf'<section id="{key}".*?</section>', page, re.S)
    return found[0] if found else ""


def text(part: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", "", part))


def write_references(directory: Path, rows: list[dict[str, Any]]) -> None:
    names = ("label", "label_name", "predicted_label", "predicted_label_name", "is_error")
    filled = [
        {"reference_id": f"val/{row['reference_index']}", "probability": 0.1, "confidence": 0.9, **row} for row in rows
    ]
    kinds = [pa.int64(), pa.string(), pa.int64(), pa.string(), pa.bool_()]
    fixed = {"reference_index": pa.int64(), "reference_id": pa.string(), "probability": pa.float32()}
    schema = pa.schema(
        [*fixed.items(), *zip(names, kinds, strict=True), ("confidence", pa.float32()), ("loss", pa.float32())]
    )
    pq.write_table(pa.Table.from_pylist(filled, schema), directory / "references.parquet")


def seen(index: int, loss: float | None, error: bool) -> dict[str, Any]:
    wrong = 1 if error else 0
    return {"reference_index": index, "label": 0, "label_name": "ant", "predicted_label": wrong,
            "predicted_label_name": NAMES[wrong], "is_error": error, "loss": loss}  # fmt: skip


def pairs(**changes: Any) -> dict[str, Any]:
    nothing = {"checked": 9, "source": "items", "reason": None, "conflicts": 0, "listed": []}
    leaked = {**nothing, "samples": 0, "references": 0, "pairs": 0, "suspected": None}
    copies = {**nothing, "groups": 0, "copies": 0}
    return {
        "leaked": {**leaked, **changes.get("leaked", {})},
        "duplicates": {**copies, **changes.get("duplicates", {})},
    }


# Self-influence


def memorized(high: int, count: int, issues: int | None) -> dict[str, Any]:
    others = None if issues is None else high - issues
    return {
        "column": "self_influence",
        "threshold": 1.0,
        "high": high,
        "memorized": count,
        "label_issues": issues,
        "others": others,
    }


def test_both_ends_are_the_highest_of_their_kind(make_run: MakeRun) -> None:
    run = Run(make_run(change=lambda s, c: s.update(memorized=memorized(9, 3, 4))))
    found = self_influence.context(run)
    table = pq.read_table(run.scores).to_pydict()
    order = sorted(table["index"], key=lambda i: table["self_influence_rank"][i])
    for key, flag in (("rare", False), ("wrong", True)):
        expected = [i for i in order if table["is_label_issue"][i] == flag][:10]
        assert [row["index"] for row in found[key]] == expected
    said = text(section(run.directory, "self-influence"))
    assert "9 samples have a self-influence far beyond" in said
    assert "learnt 3 of them" in said
    assert "4 are label issues; the other 5 are probably right" in said


def test_self_influence_without_labels_has_one_gallery(make_run: MakeRun) -> None:
    directory = make_run(names=None, change=lambda s, c: s.update(memorized=memorized(2, 2, None)))
    part = section(directory, "self-influence")
    assert "Rare, but right" not in part
    assert "Highest self-influence" in part
    assert "label issue" not in text(part).split("What this means")[0]


@pytest.mark.parametrize(
    "spoil", [lambda v: [None] * len(v), lambda v: [0.0] * len(v), lambda v: [None, *v[1:]], lambda v: [-x for x in v]]
)
def test_self_influence_of_any_values(make_run: MakeRun, spoil: Any) -> None:
    def change(summary: dict[str, Any], columns: dict[str, list[Any]]) -> None:
        columns["self_influence"] = spoil(columns["self_influence"])
        if columns["self_influence"][1] is None:
            columns["self_influence_rank"] = [None] * len(columns["index"])

    assert "Self-influence" in section(make_run(change=change), "self-influence")


# References


def test_the_errors_of_the_model_come_first_then_the_highest_loss(make_run: MakeRun) -> None:
    directory = make_run(references=5)
    rows = [seen(0, 0.5, False), seen(1, 3.0, True), seen(2, 9.0, False), seen(3, 4.0, True), seen(4, None, False)]
    write_references(directory, rows)
    found = references.context(Run(directory))["attributions"]
    assert [group["index"] for group in found["references"]] == [3, 1, 2, 0, 4]
    assert found["errors"] == 2
    part = text(section(directory, "references"))
    assert "the model gets 2 of them wrong" in part
    assert "Reference 3 val/00003.png: ant taken for bee error" in part


def test_references_that_were_not_evaluated_stand_as_in_the_file(make_run: MakeRun) -> None:
    found = references.context(Run(make_run(references=3)))["attributions"]
    assert [group["index"] for group in found["references"]] == [0, 1, 2]
    assert not found["known"]


def test_influences_are_those_of_the_file(make_run: MakeRun) -> None:
    run = Run(make_run(references=2))
    table = pq.read_table(run.directory / "attributions.parquet").to_pylist()
    for group in references.context(run)["attributions"]["references"]:
        for way, best in (("helps", max), ("hurts", min)):
            own = [r for r in table if r["reference_index"] == group["index"] and r["direction"] == way]
            assert group[way][0]["influence"] == best(r["influence"] for r in own)
            assert len(group[way]) == 5


# Leaks and copies


def test_pairs_and_groups_show_what_the_summary_lists(make_run: MakeRun) -> None:
    listed = [
        {"train_index": 3, "reference_index": 1, "same_label": False},
        {"train_index": 4, "reference_index": 0, "same_label": True},
    ]
    groups = [{"group": 0, "keep": 5, "drop": [7, 9], "conflict": True}]
    said = pairs(
        leaked={"samples": 2, "references": 2, "pairs": 2, "conflicts": 1, "listed": listed},
        duplicates={"groups": 1, "copies": 2, "conflicts": 1, "listed": groups},
    )
    directory = make_run(change=lambda s, c: s.update(said))
    write_references(directory, [seen(1, 1.0, False)])
    found = duplicates.context(Run(directory))
    assert found is not None
    assert [(p["sample"]["index"], p["reference"]["index"]) for p in found["pairs"]] == [(3, 1), (4, 0)]
    assert found["pairs"][0]["reference"]["label_name"] == "ant"
    assert [(action, row["index"]) for action, row in found["groups"][0]["members"]] == [
        ("keep", 5),
        ("drop", 7),
        ("drop", 9),
    ]
    part = section(directory, "duplicates")
    assert "2 training samples are among the references" in text(part)
    assert "dropping 2 copies would leave one of each. In 1 group the labels contradict" in text(part)
    assert part.count("labels differ") == 2


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (pairs(), "No training sample is among the 9 references that were compared."),
        (pairs(), "No training sample is in the training set twice."),
        (pairs(leaked={"source": None, "reason": "items are random"}), "could not be compared: items are random."),
        (
            pairs(leaked={"suspected": [{"train_index": 2, "reference_index": 1, "cosine": 0.97}]}),
            "1 further pair has nearly the same",
        ),
        (pairs(leaked={"suspected": [{"train_index": 2, "reference_index": 1, "cosine": 0.97}]}), "cosine 0.970"),
        (pairs(), 'normalize="cosine"'),
    ],
)
def test_what_is_said_of_copies(make_run: MakeRun, said: dict[str, Any], expected: str) -> None:
    assert expected in text(section(make_run(change=lambda s, c: s.update(said)), "duplicates"))


def test_a_run_that_did_not_look_has_no_section_about_copies(make_run: MakeRun) -> None:
    assert section(make_run(), "duplicates") == ""


# Agreement


def test_the_two_rankings_shown_are_those_the_summary_names(make_run: MakeRun) -> None:
    def change(summary: dict[str, Any], columns: dict[str, list[Any]]) -> None:
        pair = {"scores": ["tracin", "self_influence"], "samples": 120, "spearman": -0.25, "overlap": 0.5}
        summary["agreement"] |= {"pairs": [*summary["agreement"]["pairs"], pair], "shown": ["tracin", "self_influence"]}

    run = Run(make_run(change=change))
    found = agreement.context(run)
    assert found is not None
    assert found["names"] == ["tracin", "self_influence"]
    table = pq.read_table(run.scores).to_pydict()
    for side, (a, b) in zip(found["apart"], (("tracin", "self_influence"), ("self_influence", "tracin")), strict=True):
        rank_a, rank_b = table[f"{a}_rank"], table[f"{b}_rank"]
        head = [i for i in table["index"] if rank_a[i] <= 12 and rank_b[i] > rank_a[i]]
        expected = sorted(head, key=lambda i: -rank_b[i])[:8]
        assert [row["index"] for row in side["rows"]] == expected
    assert "correlate with -0.25 and share 50% of their first 14; by chance they would share 12%" in text(
        section(run.directory, "agreement")
    )


def test_one_ranking_agrees_with_nobody(make_run: MakeRun) -> None:
    assert section(make_run(change=lambda s, c: s["agreement"].update(pairs=[])), "agreement") == ""


def test_rankings_without_columns_leave_the_table(make_run: MakeRun) -> None:
    part = section(make_run(drop=("forward_inf_rank", "label_rank")), "agreement")
    assert "<svg" not in part
    assert "caption-agreement" in part


# Known truth


def test_without_truth_one_line_says_how_to_give_it(make_run: MakeRun) -> None:
    part = section(make_run(known=None), "truth")
    assert "known_issues=" in part
    assert "<svg" not in part


def test_curves_intervals_and_prevalence_are_drawn(make_run: MakeRun) -> None:
    def change(summary: dict[str, Any], columns: dict[str, list[Any]]) -> None:
        for number, found in enumerate(summary["known_issues"]["methods"].values()):
            found["interval"] = [0.1, 0.9]
            found["curve"] = {
                "k": [1, 4],
                "recall": [0.5, 1.0],
                "precision": [1.0, 0.5 - number / 10],
                "low": [0.2, 0.3],
                "high": [1.0, 0.7],
            }

    directory = make_run(known=12, change=change)
    found = truth.context(Run(directory))
    assert found["best"][0] == "label_score"
    part = section(directory, "truth")
    assert "by chance: 0.100" in part or "by chance: 0.0995" in part
    assert len(re.findall(r'class="curve style-\d"', part)) == 2 * 4  # in the plane and in the key
    assert part.count('class="band') == 1
    assert "Best is <code>label_score</code> with 0.981 (95 % interval 0.100 to 0.900)" in part


# Training dynamics


def dynamics_columns(summary: dict[str, Any], columns: dict[str, list[Any]]) -> None:
    make = np.random.default_rng(0)
    n = len(columns["index"])
    columns["confidence"], columns["variability"] = make.random(n).tolist(), (0.4 * make.random(n)).tolist()
    columns["probability"] = make.random(n).tolist()


def test_regions_are_counted_by_the_columns(make_run: MakeRun) -> None:
    run = Run(make_run(change=dynamics_columns))
    table = {name: np.array(values, dtype=object) for name, values in pq.read_table(run.scores).to_pydict().items()}
    hard = table["confidence"].astype(float) < 0.5
    learnt = hard & (table["probability"].astype(float) > 0.5)
    found = dynamics.context(run)["regions"]
    assert found == {"known": 120, "hard": hard.sum(), "learnt": learnt.sum(), "resisted": (hard & ~learnt).sum()}
    assert f"{hard.sum()} of 120 samples had less than half" in text(section(run.directory, "dynamics"))


def test_the_curves_of_the_script_are_those_that_were_kept(make_run: MakeRun) -> None:
    directory = make_run(change=dynamics_columns)
    recorded = np.random.default_rng(1).normal(size=(5, 120, 3)).astype(np.float32)
    recorded[2, 9] = np.nan
    write_curves(directory / "curves.npz", recorded, range(0, 120, 3))
    part = section(directory, "dynamics")
    found = re.search(r'id="curve-data">(.*?)</script>', part, re.S)
    assert found is not None
    data = json.loads(found[1])
    ranks = pq.read_table(directory / "scores.parquet")["label_rank"].to_pylist()
    kept = sorted(range(0, 120, 3), key=lambda i: ranks[i])
    assert data["index"][:40] == kept[:40]
    loss = data["y"][0]
    assert loss[data["index"].index(9)][2] is None
    values = np.array([recorded[:, i, 0] for i in data["index"] if i != 9])
    places = np.array([loss[k] for k, i in enumerate(data["index"]) if i != 9], dtype=float)
    assert abs(np.corrcoef(values.ravel(), places.ravel())[0, 1] + 1) < 1e-4  # a line down: the axis points up
    assert part.count('<li class="tile" hidden>') == len(data["index"]) - 1


def test_nothing_recorded_says_what_would_give_it(make_run: MakeRun) -> None:
    part = section(
        make_run(change=lambda s, c: s.update(recording={"used": False, "reason": "it was <b>off</b>", "notes": []})),
        "dynamics",
    )
    assert "it was &lt;b&gt;off&lt;/b&gt;" in part
    assert "TrainingDynamics" in part
    assert "<svg" not in part


# All of them


def test_hostile_names_are_shown_and_never_run(make_run: MakeRun) -> None:
    def change(summary: dict[str, Any], columns: dict[str, list[Any]]) -> None:
        dynamics_columns(summary, columns)
        columns["sample_id"] = [f"{HOSTILE}{i}" for i in columns["index"]]
        listed = [{"train_index": 3, "reference_index": 1, "same_label": False}]
        summary |= pairs(leaked={"samples": 1, "references": 1, "listed": listed, "reason": HOSTILE})
        summary |= {"memorized": memorized(1, 1, 1)}

    directory = make_run(names=[HOSTILE, "bee", "cat", "dog"], change=change)
    write_references(directory, [{**seen(1, 1.0, True), "label_name": HOSTILE, "reference_id": HOSTILE}])
    write_curves(directory / "curves.npz", np.ones((3, 120, 3), np.float32), range(50))
    for key in ("self-influence", "references", "duplicates", "agreement", "dynamics"):
        part = section(directory, key)
        assert "<img" not in part, key
        assert "&lt;img src=x" in part, key


def test_every_picture_has_a_title_and_a_description(make_run: MakeRun) -> None:
    directory = make_run(known=12, change=dynamics_columns)
    page = render(directory).read_text(encoding="utf-8")
    drawn = re.findall(r'<svg[^>]*class="picture[^>]*>.*?</svg>', page, re.S)
    assert len(drawn) >= 5
    for one in drawn:
        assert re.search(r"<title[^>]*>[^<]+</title>", one)
        assert re.search(r"<desc[^>]*>[^<]+</desc>", one)


@pytest.mark.parametrize("samples", [1, 2, 3])
def test_a_few_samples_of_one_class(make_run: MakeRun, samples: int) -> None:
    directory = make_run(samples=samples, names=["only"], wrong=set(), references=1, change=dynamics_columns)
    write_curves(directory / "curves.npz", np.ones((1, samples, 3), np.float32), range(samples))
    for key in ("self-influence", "references", "truth", "dynamics"):
        assert section(directory, key), key
