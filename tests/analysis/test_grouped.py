"""Whole groups of training samples, against leaving each out."""

import json
from html.parser import HTMLParser

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from lightning_inf import (
    ConjugateGradients,
    InfluenceCallback,
    InfluenceFunction,
    SelfInfluence,
    TracIn,
    TrainingDynamics,
    influence,
)
from tests.methods.test_signs import L2, SAMPLES, Logistic, fit, loss, problem  # noqa: F401 - `problem` is a fixture
from tests.runs import quiet, scores

SIZE = 6
NAMES = [f"source {i // SIZE}" if i >= 2 else None for i in range(SAMPLES)]  # two samples belong to none


def analysed(directory, problem, module=None, more=(), **arguments):  # noqa: F811
    (x, y), held_out, whole, _, _ = problem
    module = module or Logistic()
    with torch.no_grad():
        module.layer.weight.copy_(torch.from_numpy(whole.coef_))
        module.layer.bias.copy_(torch.from_numpy(whole.intercept_))
    methods = [InfluenceFunction(ConjugateGradients(tolerance=1e-8), damping=L2), TracIn(), SelfInfluence(), *more]
    callback = InfluenceCallback(
        dirpath=str(directory), methods=methods, learning_rate=1.0, individual_references=0, record=False, **arguments
    )
    train, references = (TensorDataset(torch.from_numpy(a), torch.from_numpy(b)) for a, b in ((x, y), held_out))
    influence(quiet(callbacks=[callback]), module, DataLoader(train, 16), DataLoader(references, 5))
    return json.loads((directory / "summary.json").read_text())


@pytest.fixture(scope="module")
def grouped(problem, tmp_path_factory):  # noqa: F811
    directory = tmp_path_factory.mktemp("grouped")
    return (
        directory,
        analysed(directory, problem, groups=NAMES),
        pq.read_table(directory / "groups.parquet").to_pydict(),
    )


def test_the_sum_foretells_what_leaving_the_group_out_does(grouped, problem):  # noqa: F811
    (x, y), held_out, whole, _, _ = problem
    table = grouped[2]
    rise = []
    for name in table["group"]:
        kept = [i for i in range(SAMPLES) if NAMES[i] != name]
        rise.append(loss(fit(x[kept], y[kept]), *held_out) - loss(whole, *held_out))
    total = np.array(table["influence_function_total"])
    assert np.corrcoef(total, rise)[0, 1] >= 0.97
    assert (np.sign(total) == np.sign(rise)).mean() >= 0.9
    assert total.argmin() == np.argmin(rise) == 0  # the source whose labels were turned
    # Too small in size, as the docstring says: the curvature falls with the group.
    assert 0.5 < np.polyfit(rise, total, 1)[0] < 1.1


def test_files_say_the_same(grouped):
    directory, summary, table = grouped
    rows = scores(directory)
    assert rows["group"] == NAMES
    assert table["group"] == [f"source {i}" for i in range(SAMPLES // SIZE)]
    assert sum(table["samples"]) == SAMPLES - 2
    for name in ("influence_function", "tracin", "self_influence"):
        for group, total, mean in zip(table["group"], table[f"{name}_total"], table[f"{name}_mean"], strict=True):
            mine = [value for value, own in zip(rows[name], rows["group"], strict=True) if own == group]
            assert total == pytest.approx(sum(mine), rel=1e-9)
            assert mean == pytest.approx(np.mean(mine), rel=1e-9)
    assert summary["groups"] == {
        "source": "groups=",
        "groups": SAMPLES // SIZE,
        "without": 2,
        "scores": ["influence_function", "tracin", "self_influence"],
    }
    assert summary["files"]["groups.parquet"]["bytes"] == (directory / "groups.parquet").stat().st_size


class Text(HTMLParser):
    def __init__(self):
        super().__init__()
        self.said = []

    def handle_data(self, data):
        self.said.append(data.strip())


def test_the_page_names_the_most_harmful_first(grouped):
    directory, _, table = grouped
    reader = Text()
    page = (directory / "report.html").read_text()
    start = page.index('<section id="groups"')
    reader.feed(page[start : page.index("</section>", start)])
    said = [text for text in reader.said if text.startswith("source ")]
    order = np.argsort(table["influence_function_mean"], kind="stable")
    assert said == [table["group"][i] for i in order]
    harmful = sum(high < 0 for high in table["influence_function_high"])
    assert f"{harmful} group" in " ".join(reader.said)


def test_the_hook_is_asked(tmp_path, problem):  # noqa: F811
    class Hooked(Logistic):
        def influence_group(self, index):
            return index % 2

    summary = analysed(tmp_path, problem, Hooked())
    assert summary["groups"]["source"] == "influence_group()"
    assert pq.read_table(tmp_path / "groups.parquet")["group"].to_pylist() == ["0", "1"]


def test_classes_are_groups_and_no_groups_leave_no_file(tmp_path, problem):  # noqa: F811
    summary = analysed(tmp_path, problem, groups="label")
    assert summary["groups"] is None
    assert any("groups='label': labels are not known" in said for said in summary["left_out"])
    summary = analysed(tmp_path, problem, more=[TrainingDynamics("checkpoints")], groups="label")
    assert summary["groups"]["groups"] == 3
    assert sum(pq.read_table(tmp_path / "groups.parquet")["label_issues"].to_pylist()) == sum(
        entry["label_issues"] for entry in summary["classes"]
    )
    assert scores(tmp_path)["group"] == scores(tmp_path)["label_name"]
    summary = analysed(tmp_path, problem)
    assert summary["groups"] is None
    assert not (tmp_path / "groups.parquet").exists()
    assert "group" not in scores(tmp_path)
    assert 'id="groups"' not in (tmp_path / "report.html").read_text()


def test_a_wrong_argument_is_refused_before_the_analysis(tmp_path, problem):  # noqa: F811
    with pytest.raises(ValueError, match=r"groups=: expected one value for each of 60 training samples, found 3"):
        analysed(tmp_path, problem, groups=["a", "b", "c"])
