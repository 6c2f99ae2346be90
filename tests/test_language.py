"""Language models through the callback: dict batches of a tokenizer, padding, tied embeddings, attention."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from lightning_inf import ForwardINF, InfluenceCallback, SelfInfluence, TracIn, TrainingDynamics
from lightning_inf.report.marks import read_marks
from tests.language import MODELS, Language, Sentences, collate, loader
from tests.runs import attributions, quiet, scores

SAMPLES = 40
METHODS = [TrainingDynamics(), ForwardINF(), TracIn(), SelfInfluence()]


class Words:
    """A tokenizer of one's own."""

    def decode(self, ids, skip_special_tokens=False):
        return " ".join(f"word{i}" for i in ids)


@pytest.fixture(scope="module", params=MODELS)
def run(request, tmp_path_factory):
    """One short fit with its analysis."""
    torch.manual_seed(0)
    directory = tmp_path_factory.mktemp(request.param)
    module, train = Language(MODELS[request.param]()), Sentences(SAMPLES, prompt=2)
    module.tokenizer = Words()
    callback = InfluenceCallback(
        methods=METHODS, dirpath=directory, individual_references=3, keep_checkpoints=2, budget=None, on_error="raise"
    )
    quiet(max_epochs=2, callbacks=[callback]).fit(module, loader(train, True), loader(Sentences(6, seed=1)))
    return module.eval(), train, directory


def test_every_sequence_is_scored(run):
    module, train, directory = run
    found = scores(directory)
    for column in ("forward_inf", "tracin", "self_influence", "loss"):
        assert np.isfinite(np.array(found[column], dtype=float)).all(), column
    with torch.no_grad():
        alone = [float(module.model(**collate([train[i]])).loss) for i in range(SAMPLES)]
    np.testing.assert_allclose(found["loss"], alone, rtol=1e-4, atol=1e-5)
    assert len(set(attributions(directory)["reference_index"])) == 3


def test_the_summary_says_how_sequences_were_read(run):
    summary = json.loads((Path(run[2]) / "summary.json").read_text())
    assert summary["outputs"]["mode"] == "observed"
    assert any("mean over its own tokens" in note for note in summary["outputs"]["notes"])
    assert summary["recording"]["used"], summary["recording"]


def test_the_report_marks_the_tokens_that_tie_a_text_to_a_reference(run):
    _, train, directory = run
    table, marks = attributions(directory), read_marks(directory)
    assert (marks["method"], len(marks["pairs"])) == ("forward_inf", 3)
    influence = {
        (str(r), str(i)): value
        for m, r, i, value in zip(
            *(table[c] for c in ("method", "reference_index", "train_index", "influence")), strict=True
        )
        if m == "forward_inf"
    }
    for reference, own in marks["pairs"].items():
        largest = max(abs(influence[reference, index]) for index in own)
        for index, entry in own.items():
            assert "".join(text for text, _ in entry["pieces"]) == Words().decode(train[int(index)]["input_ids"])
            total = sum(value for _, value in entry["pieces"] if value is not None)
            assert total == pytest.approx(influence[reference, index], rel=1e-2, abs=1e-3 * largest)
    page = (Path(directory) / "report.html").read_text()
    assert '<mark class="up m3">' in page
