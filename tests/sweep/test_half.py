"""Passes in bf16: products that are nearly right, and nothing else that changes."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch import LightningModule
from torch import nn

from lightning_inf import ForwardINF, SelfInfluence, TracIn, TrainingDynamics
from lightning_inf.model.capture import capture
from lightning_inf.model.layers.tangents import Tangents
from lightning_inf.model.sample_model import SampleModel
from lightning_inf.model.weights import Weights
from lightning_inf.sweep import timing
from lightning_inf.sweep.evaluate import Evaluator
from lightning_inf.sweep.timing import time_half
from lightning_inf.sweep.ways import Ways
from tests.samples import column, scores
from tests.sweep.test_same_numbers import analyse, run  # noqa: F401 - `run` is a fixture

SIZE = 12
CHOSEN = Ways(layers=True, captured=1.0, product=0.1, half=True, half_reason="as a test says")


class Mixed(LightningModule):
    """Layers whose uses keep different things, in halves and not."""

    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(10, 16)
        self.norm, self.mid = nn.LayerNorm(16), nn.Linear(16, 16)
        self.conv, self.head = nn.Conv1d(16, 8, 3, padding=1), nn.Linear(8, 3)

    def training_step(self, batch, batch_idx):
        ids, y = batch
        h = torch.relu(self.mid(self.norm(self.table(ids))))
        return F.cross_entropy(self.head(torch.relu(self.conv(h.transpose(1, 2))).mean(2)), y)


@pytest.fixture
def mixed():
    torch.manual_seed(0)
    module = Mixed().eval()
    return SampleModel(module), Weights.of(module), (torch.randint(10, (SIZE, 7)), torch.arange(SIZE) % 3)


def answers(captured, weights):
    """Products with three samples' gradients, and squared norms."""
    rows = captured.gradients(slice(0, 3), weights.trainable)
    return captured.answer(Tangents([{name: row[i] for name, row in rows.items()} for i in range(3)]), [None])


def test_products_are_near_those_of_fp32_and_in_fp64(mixed):
    model, weights, batch = mixed
    full, half = (capture(model, weights, batch, SIZE, half=half) for half in (False, True))
    dots, (norms,) = answers(full, weights)
    rows = full.gradients(slice(0, 3), weights.trainable)
    found, (others,) = half.answer(Tangents([{name: row[i] for name, row in rows.items()} for i in range(3)]), [None])
    assert found.dtype == torch.float64
    assert 0 < (found - dots).abs().max() < 0.03 * dots.abs().max()
    assert 0 < (others - norms).abs().max() < 0.03 * norms.abs().max()
    assert all(use.delta.dtype == torch.float32 for use in half.uses)


@pytest.mark.parametrize(
    ("share", "limit", "used"), [(0.5, 0.05, True), (1.5, 0.05, False), (0.5, 1e-9, False)], ids=str
)
def test_it_is_used_where_it_is_faster_and_near(mixed, monkeypatch, share, limit, used):
    model, weights, batch = mixed
    clock = iter([1.0, share] * 99)
    monkeypatch.setattr(timing, "seconds_of", lambda work, weights: [work(), next(clock)][1])
    monkeypatch.setattr(timing, "HALF_ERROR", limit)
    found = time_half(Evaluator(model, half=True), weights, (batch, SIZE), Ways(layers=True, captured=2.0))
    assert found.half is used
    assert found.captured == (1.0 if used else 2.0)
    assert f"{share:.2f} of the time" in found.half_reason
    assert "products are off by 0.0" in found.half_reason
    assert ("not worth it" in found.half_reason) is not used


def test_it_needs_layers(mixed):
    model, weights, batch = mixed
    found = time_half(Evaluator(model, half=True), weights, (batch, SIZE), Ways(layers=False, reason="of a test"))
    assert not found.half
    assert found.half_reason == "gradients don't come apart in the layers: of a test"


def test_the_first_batch_is_as_rounded_as_the_others(mixed):
    """Which batch comes first depends on the process: its numbers must not."""
    model, weights, batch = mixed
    fresh, used = Evaluator(model, ways=CHOSEN), Evaluator(model, ways=CHOSEN)
    used.norms(weights, batch, SIZE)
    assert torch.equal(fresh.norms(weights, batch, SIZE), used.norms(weights, batch, SIZE))
    assert "bf16" in fresh.used["squared_norm"]
    full = Evaluator(model, ways=replace(CHOSEN, half=False)).norms(weights, batch, SIZE)
    assert not torch.equal(fresh.norms(weights, batch, SIZE), full)


def test_an_analysis_keeps_losses_and_rises_in_fp32(run, tmp_path, monkeypatch):  # noqa: F811
    module, trained = run
    methods = lambda: [ForwardINF(), TracIn(), SelfInfluence(), TrainingDynamics()]  # noqa: E731
    analyse(module, trained, tmp_path / "full", methods=methods())
    monkeypatch.setattr(
        timing,
        "time_half",
        lambda evaluator, weights, batch, ways: replace(ways, half=True, half_reason="as a test says"),
    )
    analyse(module, trained, tmp_path / "half", methods=methods(), bf16=True, backend="layers")
    full, half = scores(tmp_path / "full"), scores(tmp_path / "half")
    for name in ("loss", "probability", "forward_inf"):
        np.testing.assert_allclose(column(half, name), column(full, name), rtol=1e-5, atol=1e-7, err_msg=name)
    for name in ("tracin", "self_influence"):
        ours, exact = column(half, name), column(full, name)
        assert 0 < np.abs(ours - exact).max() < 0.05 * np.abs(exact).max(), name
    said = json.loads((tmp_path / "half" / "summary.json").read_text())
    assert said["cost"]["ways"]["bf16"] is True
    assert said["cost"]["ways"]["bf16_reason"] == "as a test says"
    assert "of passes in bf16" in next(m["backend"] for m in said["methods"] if m["name"] == "tracin")
    without = json.loads((tmp_path / "full" / "summary.json").read_text())["cost"]["ways"]
    assert (without["bf16"], without["bf16_reason"]) == (False, "it was not asked for (bf16=True)")
