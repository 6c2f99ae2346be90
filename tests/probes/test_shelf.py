"""Statistics of the curvature that outlive an analysis."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from lightning_inf import (
    EKFAC,
    ConjugateGradients,
    DiagonalFisher,
    InfluenceCallback,
    InfluenceFunction,
    LiSSA,
    influence,
)
from lightning_inf.data.references import Target
from lightning_inf.probes.curvature import Preconditioner
from lightning_inf.probes.inverse import InverseGradient
from lightning_inf.probes.shelf import Shelf
from tests.checkpoint_stub import stub
from tests.probes.curved import Fit, data, flat, mlp, scene
from tests.runs import quiet, scores

CPU = torch.device("cpu")
SOLVERS = [EKFAC(), DiagonalFisher(), ConjugateGradients(), LiSSA(depth=40)]


@pytest.mark.parametrize("solver", SOLVERS, ids=lambda solver: type(solver).__name__)
@pytest.mark.parametrize("damping", [None, 0.05])
def test_the_next_analysis_reads_what_this_one_took(tmp_path, monkeypatch, solver, damping):
    module, (x, y) = Fit(mlp()), data(40)
    shelf = Shelf(tmp_path, "run")

    def direction():
        here = dataclasses.replace(scene(module, x[:32], y[:32], x[32:], y[32:]), shelf=shelf)
        return flat(InverseGradient(stub("a"), Target((0, 3), "t"), Preconditioner(solver, damping)).make(here))

    first = direction()
    kept = list(tmp_path.glob("run/*.pt"))
    if solver.statistics.__qualname__.startswith("ConjugateGradients") and damping is not None:
        assert not kept  # a damping of the user's leaves nothing to take
    else:
        assert len(kept) == 1
        taken = pytest.fail
        monkeypatch.setattr(type(solver), "statistics", lambda self, curvature: taken("it was taken again"))
    torch.testing.assert_close(direction(), first, rtol=0, atol=0)


def test_the_size_of_a_damping_does_not_matter_but_whether_there_is_one_does(tmp_path):
    module, (x, y) = Fit(mlp()), data(40)
    here = dataclasses.replace(scene(module, x[:32], y[:32], x[32:], y[32:]), shelf=Shelf(tmp_path, "run"))
    for damping in (0.1, 0.2, None):
        InverseGradient(stub("a"), Target((0,), "t"), Preconditioner(DiagonalFisher(), damping)).make(here)
    assert len(list(tmp_path.glob("run/*.pt"))) == 2
    InverseGradient(stub("b"), Target((0,), "t"), Preconditioner(DiagonalFisher(), 0.1)).make(here)
    InverseGradient(stub("a"), Target((0,), "t"), Preconditioner(DiagonalFisher(), 0.1, subset=20)).make(here)
    assert len(list(tmp_path.glob("run/*.pt"))) == 4


@pytest.mark.parametrize("part", ["entry", "seal", "half"])
def test_a_damaged_entry_counts_as_none(tmp_path, part):
    shelf, value = Shelf(tmp_path, "run"), {"mean": 0.5, "layers": [{"weight": "a", "outputs": torch.eye(3)}]}
    shelf.put("key", value)
    assert shelf.get("key", CPU)["layers"][0]["weight"] == "a"
    entry, seal = tmp_path / "run" / "key.pt", tmp_path / "run" / "key.json"
    if part == "entry":
        content = bytearray(entry.read_bytes())
        content[len(content) // 2] ^= 1
        entry.write_bytes(content)
    elif part == "seal":
        seal.write_text("{")
    else:
        seal.unlink()
    assert shelf.get("key", CPU) is None


def test_what_is_too_large_is_not_kept(tmp_path):
    shelf = Shelf(tmp_path, "run", limit=100)
    shelf.put("small", {"a": torch.zeros(12)})
    shelf.put("large", {"a": torch.zeros(30)})
    assert shelf.get("small", CPU) is not None
    assert shelf.get("large", CPU) is None


class Trained(Fit):
    """With all that a Trainer asks for."""

    def validation_step(self, batch, batch_idx):
        pass

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def analysed(directory, references, train_labels):
    torch.manual_seed(0)
    module = Trained(mlp())
    x, _ = data(40)
    callback = InfluenceCallback(
        dirpath=str(directory), methods=[InfluenceFunction(EKFAC(), damping=0.1)], individual_references=0, record=False
    )
    train, held_out = TensorDataset(x[:32], train_labels), TensorDataset(x[references], train_labels[: len(references)])
    influence(quiet(callbacks=[callback]), module, DataLoader(train, 8), DataLoader(held_out, 8))
    return scores(directory)["influence_function"]


def test_other_references_find_the_curvature_and_other_data_do_not(tmp_path, monkeypatch):
    labels = data(40)[1][:32]
    taken = []
    real = EKFAC.statistics
    monkeypatch.setattr(EKFAC, "statistics", lambda self, curvature: taken.append(1) or real(self, curvature))
    first = analysed(tmp_path, [33, 34], labels)
    second = analysed(tmp_path, [35, 36, 37], labels)
    assert len(taken) == 1
    assert not np.allclose(first, second)
    changed = labels.clone()
    changed[0] = (changed[0] + 1) % 3
    analysed(tmp_path, [33, 34], changed)
    assert len(taken) == 2
    assert len(list((tmp_path / "curvature").iterdir())) == 1  # the other data's were removed
    assert json.loads(next((tmp_path / "curvature").glob("*/*.json")).read_text())["bytes"] > 0
