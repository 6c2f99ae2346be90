"""Compiled forward passes are those of the step, or are not used; what the compiler does is torch's affair and stands aside."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch import LightningModule
from torch import nn

from lightning_inf import ForwardINF, TracIn
from lightning_inf.model.compiled import Compiled
from lightning_inf.model.sample_model import SampleModel
from lightning_inf.model.weights import Weights, tenth
from lightning_inf.sweep import timing
from tests.sweep.test_same_numbers import analyse, assert_same, run  # noqa: F401 - `run` is a fixture


class Net(LightningModule):
    def __init__(self, looks=False):
        super().__init__()
        self.net, self.looks = (
            nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(inplace=True), nn.Linear(6, 3)),
            looks,
        )

    def training_step(self, batch, batch_idx):
        x, y = batch["x"], batch["y"]
        loss = F.cross_entropy(self.net(x), y)
        return loss * 2 if self.looks and loss > 100 else loss


@pytest.fixture
def graphs(monkeypatch):
    """What torch.compile is given, and how often each runs."""
    given = []

    def as_it_is(graph, **options):
        given.append(0)

        def counted(*arguments):
            given[-1] += 1
            return graph(*arguments)

        return counted

    monkeypatch.setattr(torch, "compile", as_it_is)
    return given


def batch(size, name="a"):
    torch.manual_seed(size)
    return {"x": torch.randn(size, 4), "y": torch.randint(0, 3, (size,)), "name": name}


def same(found, expected):
    assert vars(found).keys() == vars(expected).keys()
    for name, value in vars(expected).items():
        torch.testing.assert_close(getattr(found, name), value, msg=name)


def test_the_graph_is_that_of_the_step_at_any_weights(graphs):
    torch.manual_seed(0)
    module = Net().eval()
    model, weights = SampleModel(module), Weights.of(module)
    compiled = Compiled(model)
    for given in (batch(8), {**batch(8), "x": torch.randn(8, 4)}):
        for at in (weights, weights.moved({n: tenth(t) for n, t in weights.trainable.items()})):
            with torch.no_grad():
                same(compiled(at, given), model.outputs(at, given))
    assert not compiled.refused
    assert graphs == [1 + 3]  # compared on the first, used on the others
    for other in (batch(5), {**batch(8), "name": "b"}, {**batch(8), "x": batch(8)["x"].t().contiguous().t()}):
        with torch.no_grad():
            same(compiled(weights, other), model.outputs(weights, other))
    assert graphs == [4]  # what has another form runs as ever


class Slope(Net):
    def training_step(self, batch, batch_idx):
        return F.mse_loss(self.net(batch["x"])[:, 0], batch["x"].sum(dim=1))


def test_a_regression_says_its_predictions_too(graphs):
    module = Slope().eval()
    model, weights = SampleModel(module), Weights.of(module)
    compiled = Compiled(model)
    with torch.no_grad():
        for _ in range(2):
            same(compiled(weights, batch(8)), model.outputs(weights, batch(8)))
    assert model.outputs(weights, batch(8)).prediction is not None
    assert graphs == [2]


def test_a_step_that_looks_at_values_is_refused(graphs):
    module = Net(looks=True).eval()
    compiled, weights = Compiled(SampleModel(module)), Weights.of(module)
    with torch.no_grad():
        for _ in range(2):
            same(compiled(weights, batch(8)), compiled.model.outputs(weights, batch(8)))
    assert "Data" in compiled.refused
    assert graphs == []


def test_a_graph_that_computes_something_else_is_refused(monkeypatch):
    monkeypatch.setattr(
        torch, "compile", lambda graph, **options: lambda *given: {n: 2 * t for n, t in graph(*given).items()}
    )
    module = Net().eval()
    compiled = Compiled(SampleModel(module))
    with torch.no_grad():
        same(compiled(Weights.of(module), batch(8)), compiled.model.outputs(Weights.of(module), batch(8)))
    assert compiled.refused == "it changes the losses"


def failing(graph, **options):
    raise RuntimeError("InvalidCxxCompiler: No working C++ compiler found")


@pytest.mark.parametrize("case", ["faster", "slower", "fails"])
def test_an_analysis_uses_it_where_it_pays_and_says_so(run, tmp_path, monkeypatch, graphs, case):  # noqa: F811
    module, trained = run
    methods = [ForwardINF(), TracIn()]
    analyse(module, trained, tmp_path / "plain", methods=methods)
    if case == "fails":
        monkeypatch.setattr(torch, "compile", failing)
    seconds = timing.seconds_of
    unit = {"faster": 0.5, "slower": 2.0, "fails": 1.0}[case]

    def told(work, weights):
        of = getattr(work, "func", None)
        return unit if isinstance(of, Compiled) else [1.0, work()][0] if of is not None else seconds(work, weights)

    monkeypatch.setattr(timing, "seconds_of", told)
    analyse(module, trained, tmp_path / "compiled", methods=methods, compile=True)
    said = json.loads((tmp_path / "compiled" / "summary.json").read_text())["cost"]["ways"]
    assert said["compiled"] == (case == "faster")
    assert {"faster": "0.50 of the time", "slower": "2.00 of the time", "fails": "No working C++"}[case] in said[
        "compiled_reason"
    ]
    assert (sum(graphs) > 2) == (case == "faster")
    assert_same(tmp_path / "compiled", tmp_path / "plain")


FORKED = """
import os, torch
from tests.model.test_compiled import Compiled, Net, SampleModel, Weights, batch

torch.compile = lambda graph, **options: graph
module = Net().eval()
compiled = Compiled(SampleModel(module))
with torch.no_grad():
    compiled(Weights.of(module), batch(8))
assert not compiled.refused, compiled.refused
torch.zeros((), requires_grad=True).clone().backward()
child = os.fork()
if not child:
    torch.zeros((), requires_grad=True).clone().backward()
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_a_process_that_has_compiled_can_be_forked():
    """In a new interpreter: whether it can is settled by what comes first, tracing or a backward pass."""
    done = subprocess.run([sys.executable, "-c", FORKED], cwd=Path(__file__).parents[2], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.long
def test_with_the_compiler_itself():
    torch.manual_seed(0)
    module = Net().eval()
    compiled, weights = Compiled(SampleModel(module)), Weights.of(module)
    with torch.no_grad():
        compiled(weights, batch(8))
        assert not compiled.refused
        same(compiled(weights, batch(8)), compiled.model.outputs(weights, batch(8)))
