"""Arguments, invariants and failure modes of Forward-INF."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch import LightningModule
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_inf import ForwardINF, InfluenceCallback, TracIn, influence
from lightning_inf.checkpoints.checkpoint import Checkpoint
from lightning_inf.data.references import Target
from lightning_inf.probes.ascent import Ascent
from lightning_inf.sweep.measurements import LossAt
from tests.runs import attributions, quiet, scores

CHECKPOINT = Checkpoint(Path("c.ckpt"), epoch=1, step=1, learning_rate=None, key="c")
TARGET = Target((0,), "references")


class Net(LightningModule):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(6, 32), nn.Tanh(), nn.Linear(32, 3))

    def training_step(self, batch, batch_idx):
        return F.cross_entropy(self.net(batch[0]), batch[1])

    def validation_step(self, batch, batch_idx):
        pass

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=0.01)


@pytest.fixture(scope="module")
def data():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(60, 6, generator=generator)
    return TensorDataset(x, x[:, :3].argmax(dim=1))


def run(directory, data, references, methods, module=None, epochs=0, **arguments):
    torch.manual_seed(0)
    module = module or Net()
    callback = InfluenceCallback(dirpath=str(directory), methods=methods, learning_rate=0.1, budget=None, **arguments)
    loaders = DataLoader(data, 16, shuffle=True), DataLoader(references, 16)
    if epochs:
        quiet(max_epochs=epochs).fit(module, *loaders)
    influence(quiet(callbacks=[callback]), module, *loaders)
    return scores(directory), json.loads((directory / "summary.json").read_text())


@pytest.mark.parametrize(
    "arguments",
    [
        {"steps": -1},
        {"radius": 0},
        {"step": "sideways"},
        {"step": "plain"},
        {"alpha": 0.1},
        {"step": "plain", "alpha": -0.1},
        {"checkpoints": "first"},
        {"output": "logit"},
        {"direction": "sideways"},
        {"step": "sign"},
        {"step": "per_layer", "alpha": 0.1},
    ],
)
def test_refuses_arguments_that_do_not_fit(arguments):
    with pytest.raises(ValueError, match="ForwardINF"):
        ForwardINF(**arguments)


def test_a_duplicate_is_the_first_proponent_of_a_memorised_model(tmp_path, data):
    """Each reference is a copy of a training sample; finite steps on a memorised model name it."""
    x, generator = data.tensors[0], torch.Generator().manual_seed(1)
    noise = TensorDataset(
        x, torch.randint(0, 3, (60,), generator=generator)
    )  # nothing but memory explains these labels
    copies = TensorDataset(*(t[:12] for t in noise.tensors))
    run(tmp_path, noise, copies, [ForwardINF(steps=10, radius=0.02)], epochs=400, individual_references=12)
    rows = attributions(tmp_path)
    first = [
        (r, i)
        for r, i, k, d in zip(
            rows["reference_index"], rows["train_index"], rows["rank"], rows["direction"], strict=True
        )
        if k == 1 and d == "helps"
    ]
    assert len(first) == 12
    assert sum(reference == index for reference, index in first) >= 11


@pytest.mark.parametrize(
    "method",
    [
        ForwardINF(steps=10, radius=0.02, output="margin"),
        ForwardINF(steps=10, radius=0.02, step="per_layer"),
        ForwardINF(steps=10, radius=0.02, step="per_layer", output="margin"),
        TracIn(normalize="cosine", name="forward_inf"),
    ],
    ids=["margin", "per_layer", "both", "cosine"],
)
def test_a_duplicate_is_found_by_the_other_kinds_too(tmp_path, data, method):
    generator = torch.Generator().manual_seed(1)
    noise = TensorDataset(data.tensors[0], torch.randint(0, 3, (60,), generator=generator))
    copies = TensorDataset(*(t[:12] for t in noise.tensors))
    run(tmp_path, noise, copies, [method], epochs=400, individual_references=12)
    rows = attributions(tmp_path)
    columns = (rows[name] for name in ("reference_index", "train_index", "rank", "direction"))
    first = [(r, i) for r, i, k, d in zip(*columns, strict=True) if k == 1 and d == "helps"]
    assert sum(reference == index for reference, index in first) >= 11


def test_the_limit_of_small_steps_is_the_derivative(tmp_path, data):
    methods = [ForwardINF(steps=0, name="limit"), ForwardINF(step="plain", steps=1, alpha=1e-2, name="step")]
    table, _ = run(tmp_path, data, data, methods)
    limit, step = np.array(table["limit"]), np.array(table["step"]) / 1e-2
    assert np.abs(limit - step).max() <= 2e-2 * np.abs(limit).max()


def test_normalised_steps_do_not_depend_on_the_scale_of_the_loss(tmp_path, data):
    class Scaled(Net):
        def influence_step(self, batch, batch_idx):
            return 1000 * F.cross_entropy(self.net(batch[0]), batch[1], reduction="none")

    plain, _ = run(tmp_path / "a", data, data, [ForwardINF(radius=1e-2)])
    scaled, _ = run(tmp_path / "b", data, data, [ForwardINF(radius=1e-2)], module=_seeded(Scaled))
    np.testing.assert_allclose(
        np.array(scaled["forward_inf"]) / 1000, plain["forward_inf"], atol=1e-3 * np.abs(plain["forward_inf"]).max()
    )


def _seeded(kind):
    torch.manual_seed(0)
    return kind()


def test_a_vanishing_gradient_is_null_with_the_reason(tmp_path, data):
    """A reference that the model is certain of beyond fp32 has no direction."""
    module = _seeded(Net)
    with torch.no_grad():
        module.net[2].weight.mul_(1e4)
        label = module.net(data.tensors[0][:1]).argmax()
    certain = TensorDataset(data.tensors[0][:1], label[None])
    table, summary = run(tmp_path, data, certain, [ForwardINF(), TracIn()], module=module)
    assert table["forward_inf"] == [None] * 60
    assert table["forward_inf_rank"] == [None] * 60
    assert all("vanishes" in " ".join(method["notes"]) for method in summary["methods"])
    assert attributions(tmp_path)["influence"] == []
    assert all("1 of 1 single references vanish" in " ".join(method["notes"]) for method in summary["methods"])


def test_a_step_that_leaves_finite_numbers_is_halved(tmp_path, data):
    """One that overflows at first is shrunk; one that always does is null with the reason."""

    class Steep(Net):
        def influence_step(self, batch, batch_idx):
            return F.cross_entropy(self.net(batch[0]), batch[1], reduction="none").mul(30).exp()

    module = _seeded(Steep)
    loss = module.influence_step(data.tensors, 0).mean()
    slope = (
        torch.cat([g.flatten().double() for g in torch.autograd.grad(loss, list(module.parameters()))]).norm().item()
    )
    methods = [
        ForwardINF(step="plain", steps=1, alpha=4 / slope, name="shrinks"),
        ForwardINF(step="plain", steps=2, alpha=1e30, name="never"),
    ]
    table, summary = run(tmp_path, data, data, methods, module=module)
    assert any(value is not None for value in table["shrinks"])
    assert table["never"] == [None] * 60
    assert "left finite numbers" in " ".join(summary["methods"][1]["notes"])


def test_two_methods_of_one_name_are_refused():
    with pytest.raises(ValueError, match="forward_inf"):
        InfluenceCallback(methods=[ForwardINF(), ForwardINF(steps=1)])


@pytest.mark.parametrize("direction", ["ascent", "descent"])
def test_a_relative_rise_is_that_of_the_logarithm(tmp_path, data, direction):
    methods = [
        ForwardINF(radius=0.01, direction=direction, checkpoints="last"),
        ForwardINF(radius=0.01, direction=direction, checkpoints="last", relative=True, name="relative"),
        ForwardINF(steps=0, checkpoints="last", name="limit"),
        ForwardINF(steps=0, checkpoints="last", relative=True, name="relative_limit"),
        TracIn(),
    ]
    found, summary = run(tmp_path, data, data, methods)
    torch.manual_seed(0)
    net = Net()
    x, y = data.tensors
    with torch.no_grad():
        losses = F.cross_entropy(net.net(x), y, reduction="none").double().numpy()
    rise = np.array(found["forward_inf"])
    moved = losses + rise if direction == "ascent" else losses - rise
    expected = np.log(moved / losses) if direction == "ascent" else np.log(losses / moved)
    np.testing.assert_allclose(found["relative"], expected, rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose(found["relative_limit"], np.array(found["limit"]) / losses, rtol=1e-4, atol=1e-8)
    formulas = {method["name"]: method["formula"] for method in summary["methods"]}
    assert "log l_i" in formulas["relative"]
    assert "log" not in formulas["forward_inf"]


def test_a_loss_of_nothing_has_no_relative_rise():
    method = ForwardINF(steps=1, relative=True)
    after, before = LossAt(CHECKPOINT, Ascent(CHECKPOINT, TARGET, 1, "normalized", 0.001)), LossAt(CHECKPOINT)
    answers = {after.key: {"loss": np.array([2.0, 1.0, -1.0])}, before.key: {"loss": np.array([1.0, 0.0, -2.0])}}
    found = method._score([[after, before]], answers, np.arange(3))["forward_inf"]
    np.testing.assert_allclose(found, [np.log(2.0), np.nan, np.nan])
    with pytest.raises(ValueError, match="relative"):
        ForwardINF(relative=True, output="margin")
