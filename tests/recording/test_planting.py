"""A run with planted labels: what it trains on, what it writes, and that everything is put back."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch.utils.data import DataLoader, Dataset

from lightning_inf import InfluenceCallback, LabelQuality, TracIn, TrainingDynamics, influence
from tests.runs import attributions, quiet, scores
from tests.samples import CLASSES, Classifier, blobs

SAMPLES = 120


class Listed(Dataset):
    def __init__(self, source, targets=True):
        self.x, self.y = source.tensors
        if targets:
            self.targets = self.y.tolist()

    def __len__(self):
        return len(self.y)

    def __getitem__(self, index):
        return self.x[index], int(self.y[index])


class Watching(Classifier):
    """Notes every label that it is trained on."""

    def training_step(self, batch, batch_idx):
        if self.trainer.training:
            self.seen = [*getattr(self, "seen", []), *zip(batch[0][:, 0].tolist(), batch[1].tolist(), strict=True)]
        return super().training_step(batch, batch_idx)


def fit(directory: Path, data: Dataset, module=None, workers: int = 0, epochs: int = 4, **arguments):
    torch.manual_seed(0)
    loader = DataLoader(data, 16, shuffle=True, num_workers=workers)
    callback = InfluenceCallback(
        methods=[LabelQuality(), TrainingDynamics(), TracIn()],
        dirpath=str(directory),
        calibration_flips=0.05,
        budget=None,
        individual_references=2,
        on_error="raise",
        **arguments,
    )
    trainer, module = quiet(max_epochs=epochs, callbacks=[callback]), module or Watching()
    trainer.fit(module, loader, DataLoader(blobs(60, seed=5), 16))
    return trainer, module, loader, json.loads((directory / "summary.json").read_text())


@pytest.mark.parametrize("workers", [0, 2])
def test_training_sees_the_planted_labels_and_the_report_never_shows_them(tmp_path, workers):
    data = Listed(blobs(SAMPLES))
    trainer, module, loader, summary = fit(tmp_path, data, workers=workers)
    planted = {s["index"]: s for s in summary["calibration"]["samples"]}
    assert len(planted) == 6
    for index, sample in planted.items():
        key = float(data.x[index, 0])
        assert {label for x, label in module.seen if x == key} == {sample["planted"]}
        assert sample["given"] == int(data.y[index]) != sample["planted"]
    clean = set(range(SAMPLES)) - set(planted)
    expected = {(float(data.x[i, 0]), int(data.y[i])) for i in clean}
    assert expected <= set(module.seen)
    # Put back, and never changed.
    assert loader.dataset is data
    assert trainer.train_dataloader.dataset is data
    assert data.targets == data.y.tolist()
    assert "process_dataloader" not in vars(trainer.strategy)
    assert "training_step" not in vars(trainer.strategy)
    table = scores(tmp_path)
    for index in planted:
        assert table["label"][index] == int(data.y[index])  # the user's own
        assert not table["is_label_issue"][index]
        for name in ("label_score", "label_rank", "dynamics_score", "tracin", "tracin_rank", "suggested_label"):
            assert table[name][index] is None
    assert not set(attributions(tmp_path)["train_index"]) & set(planted)
    assert summary["dataset"]["scored"] == SAMPLES - 6
    assert any("calibration_flips" in sentence for sentence in summary["left_out"])
    assert summary["non_finite"] == []
    details = summary["methods"][0]["details"]
    assert details["weights_fitted_on_planted"]
    assert len(details["planted_probability_wrong"]) == 6
    assert np.mean(details["planted_probability_wrong"]) > 0.5  # blobs are easy


def test_a_later_analysis_plants_the_same_labels(tmp_path):
    data = Listed(blobs(SAMPLES))
    _, module, loader, _ = fit(tmp_path, data)
    first = scores(tmp_path)
    again = InfluenceCallback(
        methods=[LabelQuality(), TrainingDynamics(), TracIn()],
        checkpoints=str(tmp_path / "checkpoints"),
        dirpath=str(tmp_path),
        budget=None,
        individual_references=2,
    )
    influence(quiet(callbacks=[again]), module, loader, DataLoader(blobs(60, seed=5), 16))
    second = scores(tmp_path)
    assert first["label_rank"] == second["label_rank"]
    assert json.loads((tmp_path / "summary.json").read_text())["recording"]["used"]


def test_a_run_without_them_forgets_an_earlier_runs(tmp_path):
    data = Listed(blobs(SAMPLES))
    fit(tmp_path, data)
    assert (tmp_path / "calibration.json").is_file()
    callback = InfluenceCallback(methods=[TrainingDynamics()], dirpath=str(tmp_path), on_error="raise")
    quiet(max_epochs=1, callbacks=[callback]).fit(Classifier(), DataLoader(data, 16), DataLoader(blobs(60, seed=5), 16))
    assert not (tmp_path / "calibration.json").exists()
    assert json.loads((tmp_path / "summary.json").read_text())["calibration"] is None


class Hooked(Classifier):
    class_names = ("a", "b", "c")

    def influence_relabel(self, item, label):
        return item[0], torch.tensor(label)


def test_a_hook_relabels_what_lists_no_targets(tmp_path):
    data = blobs(SAMPLES)  # a TensorDataset
    _, _, loader, summary = fit(tmp_path, data, Hooked())
    assert loader.dataset is data
    assert summary["calibration"]["count"] == 6
    for sample in summary["calibration"]["samples"]:
        assert sample["given"] == int(data.tensors[1][sample["index"]])
        assert 0 <= sample["planted"] < CLASSES


def test_methods_without_labels_take_planted_ones_too(tmp_path):
    callback = InfluenceCallback(
        methods=[TracIn()], dirpath=str(tmp_path), calibration_flips=0.05, individual_references=0, on_error="raise"
    )
    loader = DataLoader(Listed(blobs(SAMPLES)), 16)
    quiet(max_epochs=1, callbacks=[callback]).fit(Classifier(), loader, DataLoader(blobs(60, seed=5), 16))
    planted = json.loads((tmp_path / "calibration.json").read_text())["labels"]
    assert {i for i, value in enumerate(scores(tmp_path)["tracin"]) if value is None} == set(map(int, planted))


def test_data_without_targets_or_hook_are_refused_before_training(tmp_path):
    with pytest.raises(MisconfigurationException, match="influence_relabel"):
        fit(tmp_path, Listed(blobs(SAMPLES), targets=False))
    with pytest.raises(ValueError, match=r"calibration_flips=: expected a share .* found 0.5"):
        InfluenceCallback(calibration_flips=0.5)
