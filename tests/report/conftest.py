"""Synthetic run directories: the three files that the page and the terminal summary are made from."""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lightning_inf.data.examples import Example
from lightning_inf.report.sprites import write_examples

METHODS = ("forward_inf", "tracin", "self_influence")


def ranks(values: list[float], lowest_first: bool) -> list[int]:
    """Rank 1 is the lowest or the highest value; ties go by index."""
    order = sorted(range(len(values)), key=lambda i: (values[i] if lowest_first else -values[i], i))
    ranked = [0] * len(values)
    for position, index in enumerate(order):
        ranked[index] = position + 1
    return ranked


def score_columns(samples: int, names: list[str] | None, wrong: set[int]) -> dict[str, list[Any]]:
    """Scores in which the ``wrong`` samples look suspect, imperfectly, to every method."""
    source = random.Random(0)
    none: list[Any] = [None] * samples
    kinds = len(names) if names else 1
    label = [source.randrange(kinds) for _ in range(samples)]
    other = [(value + 1 + source.randrange(max(kinds - 1, 1))) % kinds for value in label]
    label_score = [source.uniform(0.01, 0.45) if i in wrong else source.uniform(0.55, 1.0) for i in range(samples)]
    columns: dict[str, list[Any]] = {
        "index": list(range(samples)),
        "sample_id": [f"train/{i:05d}.png" for i in range(samples)],
        "label": label if names else none,
        "label_name": [names[value] for value in label] if names else none,
        "suggested_label": [other[i] if i in wrong else label[i] for i in range(samples)] if names else none,
        "suggested_confidence": [1 - score for score in label_score] if names else none,
        "is_label_issue": [score < 0.5 for score in label_score] if names else none,
        "label_score": label_score if names else none,
        "label_rank": ranks(label_score, lowest_first=True) if names else none,
        "loss": [source.expovariate(4) for _ in range(samples)],
    }
    columns["suggested_label_name"] = [names[value] for value in columns["suggested_label"]] if names else none
    for method in METHODS:
        shift = dict.fromkeys(wrong, 1.2)
        values = [source.gauss(0, 0.6) + shift.get(i, 0.0) for i in range(samples)]
        own = method == "self_influence"
        columns[method] = [abs(value) if own else -value for value in values]
        columns[f"{method}_rank"] = ranks(columns[method], lowest_first=not own)
    return columns


SCHEMA = {
    **dict.fromkeys(["index", "label", "suggested_label", "label_rank"], pa.int64()),
    **dict.fromkeys(["sample_id", "label_name", "suggested_label_name"], pa.string()),
    **dict.fromkeys(["suggested_confidence", "label_score", "loss"], pa.float32()),
    "is_label_issue": pa.bool_(),
}


def method_entry(name: str) -> dict[str, Any]:
    own = name == "self_influence"
    return {
        "name": name,
        "kind": "self" if own else "references",
        "class_path": f"lightning_inf.{name}",
        "arguments": {"steps": 5, "radius": 0.01, "output": "margin"},
        "formula": "sum_c lr_c ||g_i(theta_c)||^2" if own else "l_i(theta_K) - l_i(theta)",
        "polarity": "high = memorised" if own else "positive = training on the sample helps the references",
        "backend": "per-sample gradient products" if own else "central difference",
        "seconds": 1.25,
        "scored": 60,
        "non_finite": 0,
        "columns": [name],
        "rank_column": f"{name}_rank",
        "notes": ["eval mode, frozen buffers"],
    }


def summary_of(columns: dict[str, list[Any]], names: list[str] | None, known: int | None) -> dict[str, Any]:
    samples = len(columns["index"])
    issues = sum(bool(flag) for flag in columns["is_label_issue"])
    given = list(zip(columns["label"], columns["is_label_issue"], strict=True))
    by_class = [
        {
            "label": value,
            "label_name": name,
            "samples": columns["label"].count(value),
            "label_issues": sum(y == value and bool(f) for y, f in given),
        }
        for value, name in enumerate(names or [])
    ]
    quality = {"label_score": 0.981, "forward_inf": 0.774, "tracin": 0.512, "self_influence": 0.853}
    truth = {
        name: {
            "average_precision": ap,
            "auroc": ap + 0.01,
            "precision_at_k": {"10": 1.0, "50": ap},
            "recall_at_k": {"50": 0.35},
        }
        for name, ap in quality.items()
    }
    return {
        "schema_version": 2,
        "verdict": f"{issues} of {samples} training samples carry a label that the model never took in.",
        "run": {
            "id": "0123456789ab",
            "created": "2026-05-01T12:00:00Z",
            "versions": {"lightning_inf": "0.1.0", "torch": "2.14.0", "lightning": "2.6.1", "python": "3.11.7"},
            "model": "examples.digits.DigitsNet",
            "seed": 0,
            "device": "cpu",
            "world_size": 1,
            "weights": "current",
            "seconds": 12.3,
        },
        "dataset": {
            "samples": samples,
            "scored": samples,
            "classes": len(names) if names else None,
            "class_names": names,
            "fingerprint": "9f2c1b7a",
            "notes": ["no augmentation was found"],
        },
        "references": {
            "source": "first validation dataloader",
            "total": 360,
            "joint": 359,
            "individual": 16,
            "excluded": [{"reference_index": 3, "reason": "its gradient vanishes"}],
        },
        "checkpoints": [
            {"file": f"checkpoints/epoch={e}-step={step}.ckpt", "epoch": e, "step": step, "learning_rate": 0.01}
            for e, step in enumerate(range(45, 270, 45))
        ],
        "outputs": {"mode": "observed", "loss": "cross_entropy", "notes": []},
        "methods": [method_entry(name) for name in METHODS],
        "issues": [
            {
                "issue_type": "label",
                "num_issues": issues if names else None,
                "interval": None,
                "threshold": 0.5,
                "threshold_rule": "label_score < 0.5",
                "score": 0.7 if names else None,
            }
        ],
        "classes": by_class,
        "known_issues": None if known is None else {"count": known, "prevalence": 0.0995, "methods": truth},
        "agreement": {
            "k": 14,
            "samples": samples,
            "random_overlap": 14 / samples,
            "pairs": [
                {"scores": ["label_score", "forward_inf"], "samples": samples, "spearman": 0.456, "overlap": 9 / 14},
                {"scores": ["label_score", "tracin"], "samples": samples, "spearman": None, "overlap": None},
            ],
        },
        "decided": None,
        "non_finite": [{"column": "loss", "count": 1, "indices": [17]}],
        "left_out": ["curvature: it would have taken 400 s of a budget of 60 s"],
        "cost": {"estimated_seconds": 3.2, "budget_seconds": 60.0, "passes": 1, "disk_bytes": 12345},
        "files": {"scores.parquet": {"sha256": "ab" * 32, "bytes": 40960}},
    }


def attribution_columns(references: int, columns: dict[str, list[Any]]) -> dict[str, list[Any]]:
    source = random.Random(1)
    rows: list[dict[str, Any]] = []
    for reference in range(references):
        for direction, sign in (("helps", 1), ("hurts", -1)):
            sizes = sorted((source.expovariate(1) for _ in range(8)), reverse=True)
            for rank, size in enumerate(sizes, start=1):
                train = source.randrange(len(columns["index"]))
                rows.append(
                    {
                        "reference_index": reference,
                        "reference_id": f"val/{reference:05d}.png",
                        "rank": rank,
                        "direction": direction,
                        "train_index": train,
                        "sample_id": columns["sample_id"][train],
                        "influence": sign * size,
                        "method": "forward_inf",
                    }
                )
    return {key: [row[key] for row in rows] for key in rows[0]} if rows else {}


MakeRun = Callable[..., Path]
Visit = Callable[..., Any]


def build_run(
    directory: Path,
    samples: int = 120,
    names: list[str] | None = ["ant", "bee", "cat", "dog"],  # noqa: B006 - never changed
    wrong: set[int] | None = None,
    references: int = 3,
    known: int | None = None,
    drop: tuple[str, ...] = (),
    change: Callable[[dict[str, Any], dict[str, list[Any]]], None] | None = None,
    example: Callable[[int], Example] | None = None,
) -> Path:
    """Write a run directory and return its path; with ``example``, its first thousand samples by label have pictures."""
    columns = score_columns(samples, names, set(range(0, samples, 9)) if wrong is None else wrong)
    summary = summary_of(columns, names, known)
    attributions = attribution_columns(references, columns)
    if change:
        change(summary, columns)
    arrays = {
        name: pa.array(values, SCHEMA.get(name, pa.int64() if name.endswith("_rank") else pa.float64()))
        for name, values in columns.items()
        if name not in drop
    }
    directory.mkdir(exist_ok=True)
    pq.write_table(pa.table(arrays), directory / "scores.parquet")
    if attributions:
        pq.write_table(pa.table(attributions), directory / "attributions.parquet")
    (directory / "summary.json").write_text(json.dumps(summary), encoding="utf-8")
    if example:
        rank = columns["label_rank"] if names else columns["forward_inf_rank"]
        shown = sorted((i for i in range(samples) if rank[i] is not None), key=rank.__getitem__)[:1000]
        write_examples(directory, shown, range(references), example, example, list)
    return directory


@pytest.fixture
def make_run(tmp_path: Path) -> MakeRun:
    """Return a function that writes a run directory and returns its path."""
    return lambda **options: build_run(tmp_path / "influence", **options)


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Start the distribution's Chromium, once; without one the tests that need it are skipped, but not in CI."""
    found = next(
        (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
    )
    if found is None:
        missing = "no Chromium on PATH: apt-get install chromium"
        if os.environ.get("LIGHTNING_INF_REQUIRE_BROWSER"):
            pytest.fail(f"LIGHTNING_INF_REQUIRE_BROWSER is set, but there is {missing}")
        pytest.skip(missing)
    from playwright.sync_api import sync_playwright  # of the extra `test`: missing, it is an error

    with sync_playwright() as driver:
        # Chromium has no sandbox for root, and these pages are our own.
        started = driver.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture
def visit(browser: Any) -> Iterator[Visit]:
    """Return a function that opens a file in a fresh profile and waits for its script; complaints fail the test."""
    contexts, complaints = [], []

    def open_page(path: Path, ready: str = "yes", **options: Any) -> Any:
        context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, "offline": True, **options})
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(15_000)
        page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on(
            "request",
            lambda request: (
                None if request.url.startswith(("file:", "data:", "blob:")) else complaints.append(request.url)
            ),
        )
        page.goto(path.as_uri())
        if options.get("java_script_enabled", True) and ready:
            page.wait_for_selector(f'html[data-ready="{ready}"]')
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert complaints == []
