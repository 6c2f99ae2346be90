"""One count for one thing: page, summary, table, terminal, loggers and report.md of one run say the same."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from lightning.pytorch.loggers import CSVLogger
from rich.console import Console
from torch.utils.data import DataLoader, TensorDataset

from lightning_inf import InfluenceCallback, LabelQuality, SelfInfluence, TracIn, TrainingDynamics
from lightning_inf.analysis.told import headline
from lightning_inf.audit.leaked import ALIKE
from lightning_inf.report.gates import KINDS
from lightning_inf.report.terminal import summarize
from tests.samples import CLASSES, Classifier, blobs, make_trainer

SAMPLES, COPIES, LEAKS = 120, 6, 4


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on blobs with wrong labels, copies of which two contradict each other, and leaked references."""
    root = tmp_path_factory.mktemp("run")
    x, y = (tensor.clone() for tensor in blobs(SAMPLES, spread=0.4).tensors)
    held = blobs(30, seed=1, spread=0.4)
    y[::12] = (y[::12] + 1) % CLASSES
    x[-COPIES:], y[-COPIES:] = x[1 : COPIES + 1], y[1 : COPIES + 1]
    y[-2:] = (y[-2:] + 1) % CLASSES
    x[40 : 40 + LEAKS], y[40 : 40 + LEAKS] = held.tensors[0][:LEAKS], held.tensors[1][:LEAKS]
    x[70] = x[40]  # of one reference, two copies
    callback = InfluenceCallback(
        methods=[LabelQuality(), TrainingDynamics(), SelfInfluence(), TracIn(), TracIn("cosine", name="gradcos")],
        known_issues=list(range(0, SAMPLES, 12)),
        on_error="raise",
    )
    torch.manual_seed(0)
    trainer = make_trainer(root, callback, max_epochs=12, logger=CSVLogger(root, name="logs"))
    train = DataLoader(TensorDataset(x, y), batch_size=16, shuffle=True)
    trainer.fit(Classifier(lr=0.3), train, DataLoader(held, batch_size=16))
    return root / "logs" / "version_0" / "influence"


@pytest.fixture(scope="module")
def summary(directory: Path) -> dict[str, Any]:
    return json.loads((directory / "summary.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def counts(summary: dict[str, Any]) -> dict[str, int]:
    return {issue["issue_type"]: issue["num_issues"] for issue in summary["issues"]}


def test_what_was_planted_was_found(counts: dict[str, int], summary: dict[str, Any]) -> None:
    assert counts["leaked"] == LEAKS + 1
    assert counts["duplicate"] == COPIES + 1
    assert counts["label"] > 0
    assert counts["memorized"] is not None
    assert summary["duplicates"]["conflicts"] >= 2
    assert summary["leaked"]["references"] == LEAKS


def test_the_table(directory: Path, counts: dict[str, int], summary: dict[str, Any]) -> None:
    table = pq.read_table(directory / "scores.parquet").to_pydict()
    for kind in KINDS:
        values = table[kind.column]
        of_kind = [v is not None if kind.value is None else v == kind.value for v in values]
        assert sum(of_kind) == counts[kind.issue_type], kind.name
    groups = [group for group in table["duplicate_group"] if group is not None]
    assert len(set(groups)) == summary["duplicates"]["groups"]
    assert table["duplicate_action"].count("keep") == summary["duplicates"]["groups"]
    assert sum(table["is_known_issue"]) == summary["known_issues"]["count"]
    errors = pq.read_table(directory / "references.parquet")["is_error"].to_pylist()
    assert sum(errors) == summary["references"]["errors"]


def test_copies_share_a_group_and_leaks_name_their_reference(directory: Path) -> None:
    table = pq.read_table(directory / "scores.parquet").to_pydict()
    group, leak = table["duplicate_group"], table["leaked_reference"]
    for i in range(COPIES):
        assert group[SAMPLES - COPIES + i] == group[1 + i] is not None
    assert leak[40 : 40 + LEAKS] == list(range(LEAKS))
    assert leak[70] == 0


def test_the_page(directory: Path, counts: dict[str, int], summary: dict[str, Any]) -> None:
    page = (directory / "report.html").read_text(encoding="utf-8")
    said = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", "", page))
    assert summary["verdict"] in said
    heart, copies = summary["memorized"], summary["duplicates"]
    assert f"{heart['high']} sample" in said
    assert f"the model has learnt {counts['memorized']} of them" in said
    assert f"{counts['leaked']} training samples are among the references" in said
    assert f"dropping {counts['duplicate']} copies would leave" in said
    assert f"In {copies['conflicts']} group" in said
    assert f"{counts['label']} label" in said


def test_the_terminal(directory: Path, counts: dict[str, int], summary: dict[str, Any]) -> None:
    console = Console(width=80, record=True, file=open("/dev/null", "w"))  # noqa: SIM115 - as long as the console
    rows = [{"index": i, "sample_id": str(i), "label": 0, "suggested_label": 1} for i in range(5)]
    summarize(summary, rows, console, "runs/influence")
    text = console.export_text()
    lines = text.rstrip("\n").split("\n")
    assert len(lines) <= 24
    assert max(map(len, lines)) <= 80
    words = re.sub(r"\s+", " ", text)
    assert f"{counts['label']} label issue" in words
    assert f"{counts['memorized']} memorised, {counts['leaked']} leaked, {counts['duplicate']} copies to drop" in words


def test_the_loggers(directory: Path, counts: dict[str, int], summary: dict[str, Any]) -> None:
    found = headline(summary)
    assert found["influence/label_issues"] == counts["label"]
    for kind in ("memorized", "leaked", "duplicate"):
        assert found[f"influence/{kind}"] == counts[kind]
    assert "influence/leaked" in (directory.parent / "metrics.csv").read_text()


def test_gradcos_compares_the_references_that_were_asked_alone(summary: dict[str, Any]) -> None:
    suspected = summary["leaked"]["suspected"]
    assert suspected is not None
    known = {(pair["train_index"], pair["reference_index"]) for pair in summary["leaked"]["listed"]}
    assert not known & {(pair["train_index"], pair["reference_index"]) for pair in suspected}
    assert all(ALIKE <= pair["cosine"] <= 1.0001 for pair in suspected)
