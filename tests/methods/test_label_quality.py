"""The label score from end to end: better than the course of training, silent where it has nothing to go by."""

from __future__ import annotations

import json
from functools import partial

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

from lightning_inf import InfluenceCallback, LabelQuality, TrainingDynamics
from lightning_inf.sweep.run import Sweep
from tests.runs import quiet, scores
from tests.samples import CLASSES, Classifier, blobs


def flipped(samples: int, classes: int = CLASSES, spread: float = 1.3):
    data = blobs(samples, classes=classes, spread=spread)
    x, y = data.tensors
    wrong = np.random.default_rng(0).choice(samples, samples // 5, replace=False)
    given = y.clone()
    given[wrong] = (y[wrong] + 1) % classes  # each class is taken for one other
    mask = np.zeros(samples, dtype=bool)
    mask[wrong] = True
    return TensorDataset(x, given), mask, y


def run(directory, data, make, references=None, methods=None, epochs=8, **arguments):
    torch.manual_seed(0)
    callback = InfluenceCallback(
        methods=[LabelQuality(), TrainingDynamics()] if methods is None else methods,
        dirpath=str(directory),
        budget=None,
        individual_references=0,
        on_error="raise",
        **arguments,
    )
    held = references if references is not None else blobs(150, seed=7, spread=1.3)
    trainer = quiet(max_epochs=epochs, callbacks=[callback])
    trainer.fit(make(), DataLoader(data, 16, shuffle=True), DataLoader(held, 50))
    return scores(directory), json.loads((directory / "summary.json").read_text())


@pytest.mark.parametrize("record", [True, False])
def test_it_beats_the_course_of_training_where_classes_are_taken_for_another(tmp_path, record):
    data, wrong, _ = flipped(480, 6, 1.0)
    references = blobs(300, seed=7, classes=6, spread=1.0)
    table, summary = run(tmp_path, data, partial(Classifier, 16, 6), references, record=record)
    score = {n: np.array(table[n], dtype=float) for n in ("label_score", "dynamics_score", "neighbour_agreement")}
    precision = {n: average_precision_score(wrong, -values) for n, values in score.items()}
    assert precision["label_score"] > precision["dynamics_score"] + 0.05
    assert np.all((score["label_score"] >= 0) & (score["label_score"] <= 1))
    issue, details = summary["issues"][0], summary["methods"][0]["details"]
    assert issue["num_issues"] == sum(table["is_label_issue"]) == pytest.approx(details["share"] * 480, abs=1)
    assert issue["interval"][0] <= wrong.sum() <= issue["interval"][1]
    assert f"95 % interval {issue['interval'][0]:,} to" in summary["verdict"]
    assert details["structure"] > 0
    assert np.argmax(np.array(details["transitions"]) - np.eye(6), axis=1).tolist() == [1, 2, 3, 4, 5, 0]
    ranks = np.array(table["label_rank"])
    assert sorted(ranks) == list(range(1, 481))
    assert np.array(table["is_label_issue"])[ranks <= issue["num_issues"]].all()


def test_suggestions_are_mostly_right_and_their_confidence_says_how_often(tmp_path):
    data, _, true = flipped(600)
    table, _ = run(tmp_path, data, partial(Classifier, 16), blobs(300, seed=7, spread=1.3))
    announced = np.array(table["is_label_issue"])
    suggested = np.array([-1 if s is None else s for s in table["suggested_label"]])[announced]
    sure = np.array(table["suggested_confidence"], dtype=float)[announced]
    right = suggested == true.numpy()[announced]
    assert right.mean() > 0.5
    assert sure.mean() == pytest.approx(right.mean(), abs=0.15)


class Regression(Classifier):
    def training_step(self, batch, batch_idx):
        x, y = batch
        return functional.mse_loss(self(x)[:, 0], y.float())


class Headless(Classifier):
    """Its last trainable module gets no row a sample."""

    def __init__(self):
        super().__init__()
        self.scale = torch.nn.Linear(1, 1, bias=False)

    def forward(self, x):
        return self.net(x) * self.scale(torch.ones(1, 1))


@pytest.mark.parametrize(
    ("module", "references", "reason"),
    [
        (Headless, None, "no features"),
        (Classifier, blobs(20, seed=7), "30 references"),
    ],
)
def test_without_evidence_the_course_of_training_stands_in(tmp_path, module, references, reason):
    data, _, _ = flipped(90)
    table, summary = run(tmp_path, data, module, references, epochs=3)
    np.testing.assert_allclose(table["label_score"], table["dynamics_score"], rtol=1e-6)  # fp32 against fp64
    assert table["label_rank"] == table["dynamics_rank"]
    assert summary["issues"][0]["threshold"] == 0.5
    assert summary["issues"][0]["interval"] is None
    notes = " ".join(summary["methods"][0]["notes"])
    assert "dynamics_score" in notes or reason in notes


def test_a_regression_is_not_judged_by_it(tmp_path):
    data, _, _ = flipped(90)
    table, summary = run(tmp_path, data, Regression, epochs=2, methods=[LabelQuality(), TrainingDynamics()])
    assert set(table["label_score"]) == {None}
    assert summary["issues"][0]["num_issues"] is None
    assert [method["name"] for method in summary["methods"]] == ["training_dynamics"]


def test_alone_it_still_has_labels_and_losses(tmp_path):
    data, _, _ = flipped(90)
    table, _ = run(tmp_path, data, Classifier, methods=[LabelQuality()], epochs=3)
    assert table["label"] == data.tensors[1].tolist()
    assert set(table["loss"]) == {None}  # what was recorded needs no forward pass at the end
    assert None not in table["label_score"]


def test_the_scores_do_not_hang_on_chunks_or_batches(tmp_path):
    data, _, _ = flipped(100)
    one, _ = run(tmp_path / "a", data, Classifier, epochs=3)
    two, _ = run(tmp_path / "b", data, Classifier, epochs=3, chunk_size=7, batch_size=3)
    np.testing.assert_allclose(one["label_score"], two["label_score"], atol=2e-3)  # votes and read-out are kept in fp16


def test_an_ignored_label_has_no_score(tmp_path):
    data, _, _ = flipped(90)
    data.tensors[1][4] = -100
    table, _ = run(tmp_path, data, Classifier, epochs=3)
    assert table["label_score"][4] is None
    assert table["label"][4] is None
    assert sum(v is None for v in table["label_score"]) == 1


@pytest.mark.parametrize(("argument", "value"), [("checkpoints", 0), ("pool", 3)])
def test_arguments_out_of_range_are_refused(argument, value):
    with pytest.raises(ValueError, match=argument):
        LabelQuality(**{argument: value})


def test_what_neighbourhoods_have_said_is_not_read_again(tmp_path, monkeypatch):
    """Of samples that are all in the neighbourhoods no batch is read; of others each chunk is, with the same scores."""
    data, _, _ = flipped(200)
    read = []
    chunk = Sweep._chunk
    monkeypatch.setattr(Sweep, "_chunk", lambda self, work, n, *rest: [read.append(n), chunk(self, work, n, *rest)][1])
    table, _ = run(tmp_path / "all", data, Classifier, methods=[LabelQuality()], epochs=3, chunk_size=64)
    assert read == []
    monkeypatch.setattr("lightning_inf.sweep.run.recalled", lambda *_: None)
    again, _ = run(tmp_path / "read", data, Classifier, methods=[LabelQuality()], epochs=3, chunk_size=64)
    assert read == [64, 64, 64, 8]
    assert again["label_score"] == table["label_score"]
    monkeypatch.undo()
    monkeypatch.setattr(Sweep, "_chunk", lambda self, work, n, *rest: [read.append(n), chunk(self, work, n, *rest)][1])
    run(tmp_path / "part", data, Classifier, methods=[LabelQuality(pool=150)], epochs=3, chunk_size=200)
    assert read[4:] == [200]
