"""A small case from end to end, and noise that is what it says."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.data import PAIRS, data_root
from benchmarks.mislabel.__main__ import main
from benchmarks.mislabel.case import calibration_error
from benchmarks.mislabel.noise import KINDS, corrupt
from benchmarks.mislabel.section import section


@pytest.mark.parametrize("kind", KINDS)
def test_noise_is_of_its_kind_and_seeded(kind):
    generator = torch.Generator().manual_seed(0)
    labels = np.arange(1000) % 10
    x = torch.rand(1000, 1, 8, 8, generator=generator)
    given = corrupt(x, labels, "mnist", kind, 0.2, seed=1)
    wrong = given != labels
    assert (given == corrupt(x, labels, "mnist", kind, 0.2, seed=1)).all()
    assert wrong.mean() == pytest.approx(0.18 if kind == "symmetric" else 0.2, abs=0.03)
    if kind == "pair":
        assert all(given[i] == PAIRS["mnist"][int(labels[i])] for i in np.flatnonzero(wrong))
    if kind == "instance":  # each class's wrong labels depend on the image, so more than one class is taken
        assert len(set(given[wrong & (labels == 3)])) > 2


def test_calibration_error_is_the_mean_gap():
    chance, wrong = np.array([0.05, 0.05, 0.95, 0.95]), np.array([False, True, True, True])
    assert calibration_error(chance, wrong) == pytest.approx(0.5 * 0.45 + 0.5 * 0.05)


@pytest.mark.data
def test_the_quick_command_runs_resumes_and_writes_its_section(tmp_path, capsys):
    if not Path(data_root()).is_dir():
        pytest.skip("needs real data under LIGHTNING_INF_DATA or ../shared/data")
    out = tmp_path / "mislabel.json"
    found = main(["--quick", "--out", str(out)])
    assert [c["planted"] for c in found["cases"]] == [False, True]
    plain = found["cases"][0]
    assert plain["scores"]["label_score"]["average_precision"] > plain["scores"]["aum"]["average_precision"]
    assert set(plain["scores"]) >= {"cleanlab_self_confidence", "captum_self_influence", "mean_loss", "el2n"}
    written = json.loads(out.read_text())
    assert main(["--quick", "--out", str(out)])["cases"] == written["cases"]  # nothing is run again
    assert "| **label_score** (all evidence) |" in section(written)
