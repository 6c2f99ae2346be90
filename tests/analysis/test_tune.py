"""Tuning is done once, by one process, within the budget."""

import json
import shutil

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from lightning_inf import ForwardINF, InfluenceCallback, influence
from lightning_inf.analysis import tune as tuning
from lightning_inf.cli import main
from tests.methods.test_forward_inf import Net
from tests.runs import quiet, scores


@pytest.fixture(scope="module")
def data():
    generator = torch.Generator().manual_seed(1)
    return TensorDataset(torch.randn(70, 6, generator=generator), torch.randint(0, 3, (70,), generator=generator))


@pytest.fixture(scope="module")
def net(data):
    torch.manual_seed(0)
    module = Net()
    quiet(max_epochs=100).fit(module, DataLoader(data, 16, shuffle=True))
    return module


def analyse(directory, net, data, trainer=None, budget=None, methods=None, **arguments):
    callback = InfluenceCallback(
        dirpath=str(directory),
        methods=methods or [ForwardINF(radius="auto", steps=2, checkpoints="last")],
        budget=budget,
        individual_references=3,
        chunk_size=16,
        on_error="raise",
        **arguments,
    )
    loaders = DataLoader(data, 16, shuffle=True), DataLoader(TensorDataset(*(t[:9] for t in data.tensors)), 4)
    influence(quiet(callbacks=[callback], **(trainer or {})), net, *loaders)
    return json.loads((directory / "summary.json").read_text())


def of(summary):
    """What was chosen, without how long it took."""
    return {key: value for key, value in summary["methods"][0]["tuning"].items() if key != "seconds"}


@pytest.fixture(scope="module")
def first(tmp_path_factory, net, data):
    directory = tmp_path_factory.mktemp("first")
    return directory, analyse(directory, net, data)


@pytest.fixture
def count(monkeypatch):
    """Count how often something is tuned."""
    calls = []
    monkeypatch.setattr(tuning, "tune", lambda *given, real=tuning.tune: calls.append(given) or real(*given))
    return calls


def test_the_same_again_elsewhere(first, tmp_path, net, data):
    directory, summary = first
    again = analyse(tmp_path, net, data)
    assert of(again) == of(summary)
    assert scores(tmp_path) == scores(directory)


def test_a_repeated_analysis_reuses_choice_and_chunks(first, net, data, count):
    directory, summary = first
    files = {path: path.stat().st_mtime_ns for path in (directory / "chunks").glob("*/*.npz")}
    again = analyse(directory, net, data)
    assert not count
    assert again["methods"][0]["tuning"] == summary["methods"][0]["tuning"]  # with the seconds of then
    assert again["cost"]["tuning_seconds"] == 0
    assert {path: path.stat().st_mtime_ns for path in (directory / "chunks").glob("*/*.npz")} == files
    kept = json.loads((directory / "manifest.json").read_text())["tuning"]
    assert kept["forward_inf"]["values"] == summary["methods"][0]["tuning"]["values"]


def test_an_interrupted_analysis_goes_on_with_its_choice(tmp_path, net, data, count):
    before = analyse(tmp_path, net, data)
    (lost, *_) = sorted((tmp_path / "chunks").glob("*/*.npz"))
    lost.unlink()
    (tmp_path / "summary.json").unlink()
    assert len(count) == 1
    assert of(analyse(tmp_path, net, data)) == of(before)
    assert len(count) == 1
    assert lost.exists()


@pytest.mark.parametrize(
    "changed", [{"methods": [ForwardINF(radius="auto", steps=1)]}, {"seed": 5}, {"parameters": "head"}]
)
def test_other_questions_are_tuned_anew(tmp_path, net, data, count, changed):
    analyse(tmp_path, net, data)
    analyse(tmp_path, net, data, **changed)
    assert len(count) == 2


def test_another_model_is_tuned_anew(tmp_path, net, data, count):
    analyse(tmp_path, net, data)
    shutil.rmtree(tmp_path / "checkpoints")
    torch.manual_seed(8)
    analyse(tmp_path, Net(), data)
    assert len(count) == 2


def test_two_processes_agree_with_one(first, tmp_path, net, data):
    directory, summary = first
    again = analyse(tmp_path, net, data, trainer={"devices": 2, "strategy": "ddp_fork"})
    assert of(again) == of(summary)
    assert again["methods"][0]["arguments"] == summary["methods"][0]["arguments"]
    found, wanted = (np.array(scores(path)["forward_inf"], dtype=float) for path in (tmp_path, directory))
    np.testing.assert_allclose(found, wanted, atol=1e-4 * np.abs(wanted).max())


def test_a_budget_makes_it_smaller_and_says_so(tmp_path, net, data):
    summary = analyse(tmp_path, net, data, budget=0.001)
    assert of(summary)["stand_ins"] == 8
    assert of(summary)["limited"]
    assert "budget did not allow" in " ".join(summary["methods"][0]["notes"])


def test_the_choice_is_in_the_estimate(first):
    _, summary = first
    cost = summary["cost"]
    assert cost["estimated_seconds"] > cost["tuning_seconds"] > 0
    assert not of(summary)["limited"]


DATA = """
from lightning.pytorch import LightningDataModule
from tests.samples import loaders


class Blobs(LightningDataModule):
    def train_dataloader(self):
        return loaders()[0]

    def val_dataloader(self):
        return loaders()[1]
"""
CONFIG = """
model: {class_path: tests.samples.Classifier}
data: {class_path: blobs_for_tuning.Blobs}
trainer: {max_epochs: 1, logger: false, accelerator: cpu, enable_progress_bar: false, enable_checkpointing: false}
analysis:
  dirpath: out
  on_error: raise
  methods:
    - class_path: lightning_inf.ForwardINF
      init_args: {radius: auto, checkpoints: last}
    - class_path: lightning_inf.ForwardINF
      init_args: {step: sign, alpha: auto, steps: 1, name: sign}
"""


def test_yaml_says_auto(tmp_path, monkeypatch):
    (tmp_path / "blobs_for_tuning.py").write_text(DATA)
    (tmp_path / "config.yaml").write_text(CONFIG)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr("sys.argv", ["lightning-inf"])
    main(["fit", "--config", "config.yaml"])
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    names = [set(method["tuning"]["values"]) for method in summary["methods"]]
    assert names == [{"steps", "radius"}, {"steps", "alpha"}]
    assert all(isinstance(method["arguments"]["steps"], int) for method in summary["methods"])
