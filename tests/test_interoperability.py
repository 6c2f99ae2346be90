"""The snippets of docs/interoperability.md, executed against the real libraries, say what our table says."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from lightning.pytorch.utilities.seed import isolate_rng

from tests.test_readme import ROOT, blocks, text_of

PAGE = "docs/interoperability.md"


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """Names that the blocks of the page define, run in an empty directory without a network."""
    namespace: dict[str, Any] = {"__name__": "interoperability"}
    directory = tmp_path_factory.mktemp("interoperability")
    with pytest.MonkeyPatch.context() as patch, isolate_rng():
        patch.chdir(directory)
        patch.setattr(sys, "path", [str(ROOT), *sys.path])
        patch.setenv("HF_HUB_OFFLINE", "1")
        patch.setenv("HF_HOME", str(directory / "cache"))
        import datasets

        patch.setattr(datasets.config, "HF_DATASETS_CACHE", directory / "cache")
        for block in blocks(text_of(PAGE)):
            if block.language == "python":
                exec(compile("\n" * block.line + block.text, PAGE, "exec"), namespace)
        yield namespace


def issues(page: dict[str, Any]) -> int:
    """The one count of label issues."""
    count: int = page["summary"]["issues"][0]["num_issues"]
    assert count > 50
    return count


def test_loggers_have_the_headline_numbers(page: dict[str, Any]) -> None:
    known = page["summary"]["known_issues"]["methods"]["label_score"]["average_precision"]
    expected = {
        "influence/label_issues": issues(page),
        "influence/samples": page["summary"]["dataset"]["scored"],
        "influence/average_precision/label_score": known,
    }
    (row,) = page["logged"].to_dict("records")
    for name, value in expected.items():
        assert row[name] == pytest.approx(value)
        assert page["shown"][name] == pytest.approx(value)


def test_pandas_counts_what_the_summary_counts(page: dict[str, Any]) -> None:
    assert len(page["suspects"]) == issues(page)
    assert page["suspects"]["label_rank"].is_monotonic_increasing


def test_a_datalab_has_our_issues_and_nothing_else(page: dict[str, Any]) -> None:
    found = page["lab"].get_issues("label")
    scores = page["scores"]
    assert list(found) == ["is_label_issue", "label_score", "given_label", "predicted_label"]
    assert found["is_label_issue"].sum() == issues(page)
    np.testing.assert_array_equal(found["given_label"], scores["label"])
    flagged = found["is_label_issue"].to_numpy()
    suggested = scores["suggested_label"].notna().to_numpy()
    np.testing.assert_array_equal(found["predicted_label"][suggested], scores["suggested_label"][suggested].astype(int))
    assert (found["predicted_label"] == found["given_label"])[~flagged].all()
    assert page["lab"].get_issue_summary("label")["num_issues"].item() == issues(page)
    assert found["label_score"].idxmin() == page["suspects"].index[0]


def test_the_trap_that_the_page_warns_of_is_there(page: dict[str, Any]) -> None:
    lab = page["lab"]
    before = lab.issues
    lab.issues = before.assign(suggested_label=1)
    assert "suggested_label" in lab.get_issues("label")
    lab.issues = before


def test_hugging_face_reads_the_table(page: dict[str, Any]) -> None:
    table, scores = page["table"], page["scores"]
    assert table.num_rows == len(scores)
    assert table.features["label"].names == [str(digit) for digit in range(10)]
    assert table["label"][:] == scores["label"].tolist()
    assert page["doubtful"].num_rows == issues(page)
    assert page["doubtful"]["index"][:] == page["suspects"]["index"].tolist()
    pd.testing.assert_series_equal(table.to_pandas()["label_score"], scores["label_score"])


def test_hugging_face_datasets_take_decisions(page: dict[str, Any]) -> None:
    assert [item["label"] for item in page["better"]] == [1, 0, 1]
    assert page["texts"]["label"][:] == [1, 0, 0, 0]


def test_recipes_that_were_not_run_say_so() -> None:
    sections = re.split(r"^## ", text_of(PAGE), flags=re.MULTILINE)[1:]
    recipes = [section for section in sections if "```py\n" in section]
    assert len(recipes) == 2
    assert all("This recipe was not run." in section for section in recipes)
    for section in recipes:
        code = re.findall(r"```py\n(.*?)```", section, re.DOTALL)
        assert all(compile(text, "recipe", "exec") for text in code)


def test_the_readme_links_the_page() -> None:
    assert f"]({PAGE})" in text_of("README.md")
    assert Path(ROOT / PAGE).is_file()
