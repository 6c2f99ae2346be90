"""Every attribution of single references, not only the strongest."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader

from lightning_inf import ForwardINF, InfluenceCallback, SelfInfluence, TracIn, influence
from tests.runs import attributions, quiet
from tests.samples import Classifier, blobs

SAMPLES, REFERENCES, RATE = 50, 3, 0.5


def run(directory, module=None, **arguments):
    torch.manual_seed(0)
    module = module or Classifier()
    callback = InfluenceCallback(
        dirpath=str(directory),
        methods=[TracIn(), ForwardINF(steps=2, name="moved"), SelfInfluence()],
        learning_rate=RATE,
        individual_references=REFERENCES,
        budget=None,
        chunk_size=16,  # four chunks, the last of two samples
        **arguments,
    )
    references = DataLoader(blobs(REFERENCES, seed=1), 2)
    influence(quiet(callbacks=[callback]), module, DataLoader(blobs(SAMPLES), 8), references)
    return module


def table(directory):
    return pq.read_table(directory / "attributions_full.parquet").to_pydict()


def gradients(module, data):
    rows = []
    for x, y in data:
        loss = F.cross_entropy(module(x[None]), y[None])
        rows.append(torch.cat([g.reshape(-1) for g in torch.autograd.grad(loss, list(module.parameters()))]))
    return torch.stack(rows).double()


def test_the_whole_matrix_is_that_of_gradient_products(tmp_path):
    module = run(tmp_path, full_attributions=True)
    found = table(tmp_path)
    assert found["index"] == list(range(SAMPLES))
    assert len(found) == 2 + 2 * REFERENCES  # self-influence is of no reference
    expected = RATE * gradients(module, blobs(SAMPLES)) @ gradients(module, blobs(REFERENCES, seed=1)).T
    matrix = np.stack([found[f"tracin[{r}]"] for r in range(REFERENCES)], axis=1)
    np.testing.assert_allclose(matrix, expected.numpy(), rtol=1e-4, atol=1e-6)
    files = json.loads((tmp_path / "summary.json").read_text())["files"]
    assert files["attributions_full.parquet"]["bytes"] == (tmp_path / "attributions_full.parquet").stat().st_size


def test_its_ends_are_those_of_attributions(tmp_path):
    run(tmp_path, full_attributions=True)
    full, ends = table(tmp_path), attributions(tmp_path)
    for method in ("tracin", "moved"):
        for reference in range(REFERENCES):
            helps = [
                index
                for index, of, direction, name in zip(
                    ends["train_index"], ends["reference_index"], ends["direction"], ends["method"], strict=True
                )
                if (of, direction, name) == (reference, "helps", method)
            ]
            order = np.argsort(-np.array(full[f"{method}[{reference}]"]), kind="stable")
            assert helps == order[: len(helps)].tolist()


def test_only_scored_samples_have_a_row(tmp_path):
    run(tmp_path, full_attributions=True, max_samples=20)
    found = table(tmp_path)["index"]
    assert len(found) == 20
    assert found == sorted(found)


def test_a_reference_without_a_gradient_is_null(tmp_path):
    certain = Classifier()
    with torch.no_grad():
        certain.net[2].bias[1] += 200.0  # of class 1: the loss of those is zero in fp32, and so is its gradient
    run(tmp_path, certain, full_attributions=True)
    found = table(tmp_path)  # the labels of the references are 0, 1, 2
    assert found["tracin[1]"] == [None] * SAMPLES
    assert None not in found["tracin[0]"]


def test_none_is_left_of_an_earlier_analysis(tmp_path):
    run(tmp_path, full_attributions=True)
    run(tmp_path)
    assert not (tmp_path / "attributions_full.parquet").exists()
    assert "attributions_full.parquet" not in json.loads((tmp_path / "summary.json").read_text())["files"]


def test_without_single_references_it_is_refused():
    with pytest.raises(ValueError, match="individual_references of 1 or more"):
        InfluenceCallback(full_attributions=True, individual_references=0)
