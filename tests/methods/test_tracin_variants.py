"""Normalised and optimiser-aware TracIn against gradients written out by hand."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_inf import InfluenceCallback, SelfInfluence, TracIn, influence
from lightning_inf.checkpoints.checkpoint import load
from tests.runs import quiet, scores

SAMPLES, REFERENCES = 30, 7


class Net(LightningModule):
    def __init__(self, kind="adam"):
        super().__init__()
        self.kind = kind
        self.body, self.head = nn.Linear(6, 10), nn.Linear(10, 3)

    def logits(self, x):
        return self.head(torch.tanh(self.body(x)))

    def training_step(self, batch, batch_idx):
        return F.cross_entropy(self.logits(batch[0]), batch[1])

    def validation_step(self, batch, batch_idx):
        pass

    def configure_optimizers(self):
        if self.kind == "adam":
            return torch.optim.Adam(self.parameters(), lr=0.01)
        return torch.optim.SGD(self.parameters(), lr=0.05, momentum=0.8)


@pytest.fixture(scope="module")
def data():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(SAMPLES + REFERENCES, 6, generator=generator)
    y = x[:, :3].argmax(dim=1)
    y[4] = -100  # ignored: its gradient vanishes
    return TensorDataset(x[:SAMPLES], y[:SAMPLES]), TensorDataset(x[SAMPLES:], y[SAMPLES:])


METHODS = [
    TracIn(normalize="cosine", name="cosine"),
    TracIn(normalize="relatif", name="relatif"),
    TracIn(normalize="cosine", output="margin", name="cosine_margin"),
    TracIn(optimizer="auto", name="auto"),
    TracIn(optimizer="auto", normalize="cosine", name="auto_cosine"),
    SelfInfluence(output="margin", name="self_margin"),
]


@pytest.fixture(scope="module", params=["adam", "momentum"])
def fitted(request, data, tmp_path_factory):
    directory = tmp_path_factory.mktemp("run")
    torch.manual_seed(0)
    module = Net(request.param)
    methods = [*METHODS, TracIn(optimizer=request.param, name="named")]
    callback = InfluenceCallback(
        dirpath=str(directory), methods=methods, keep_checkpoints=3, optimizer_state=True, budget=None, on_error="raise"
    )
    loaders = DataLoader(data[0], 8, shuffle=True), DataLoader(data[1], 4)
    quiet(max_epochs=3, callbacks=[callback]).fit(module, *loaders)
    return module, directory, data


def gradients(module, dataset, output):
    """A row a sample, of minus the log-odds or of the loss, in double precision."""
    rows = []
    for x, y in zip(*dataset.tensors, strict=True):
        logits = module.logits(x[None])
        if output == "loss":
            value = F.cross_entropy(logits, y[None], reduction="none")[0]
        elif y < 0:
            value = 0.0 * logits.sum()
        else:
            p = logits.softmax(dim=1)[0, y]
            value = -torch.log(p / (1 - p))
        grads = torch.autograd.grad(value, list(module.parameters()))
        rows.append(torch.cat([g.flatten() for g in grads]))
    return torch.stack(rows)


def expected(fitted, name):
    """Sum over the captured checkpoints, from the equations of the docstring."""
    module, directory, (train, held_out) = fitted
    output = "margin" if "margin" in name else "loss"
    twin, total = Net(module.kind).double(), torch.zeros(SAMPLES, dtype=torch.float64)
    double = [TensorDataset(d.tensors[0].double(), d.tensors[1]) for d in (train, held_out)]
    for path in sorted((directory / "checkpoints").glob("*.ckpt")):
        content = load(path)
        twin.load_state_dict(content["state_dict"])
        each = gradients(twin, double[0], output)
        reference = gradients(twin, double[1], output).mean(dim=0)
        entry = content["influence"]
        (rate,) = set(entry["learning_rate"].values())
        if name in ("auto", "named", "auto_cosine"):
            if module.kind == "adam":
                moments = [entry["optimizer"]["second_moment"][n] for n, _ in twin.named_parameters()]
                hats = [(m["exp_avg_sq"].double() / (1 - 0.999 ** float(m["step"]))).flatten() for m in moments]
                reference = reference / (torch.cat(hats).sqrt() + 1e-8)
            else:
                reference = reference / (1 - 0.8)
        if name == "self_margin":
            total += rate * each.square().sum(dim=1)
            continue
        term = each @ reference
        lengths = each.norm(dim=1)
        if "cosine" in name:
            term = term / (lengths * reference.norm()).where(lengths > 0, 1.0)
        elif name == "relatif":
            term = term / lengths.where(lengths > 0, 1.0)
        total += rate * term
    return total.numpy()


@pytest.mark.parametrize("name", [*(m.name for m in METHODS), "named"])
def test_equals_the_equation(fitted, name):
    table, wanted = scores(fitted[1]), expected(fitted, name)
    kept = [i for i in range(SAMPLES) if i != 4]
    found = np.array([table[name][i] for i in kept])
    np.testing.assert_allclose(found, wanted[kept], rtol=0, atol=2e-5 * np.abs(wanted).max())


def test_a_sample_without_a_gradient_is_null_where_it_would_be_divided_by_it(fitted):
    table = scores(fitted[1])
    assert all(table[name][4] is None for name in ("cosine", "relatif", "cosine_margin", "auto_cosine"))
    assert all(table[name][4] == 0 for name in ("auto", "named", "self_margin"))


def test_optimiser_state_that_is_not_captured_is_refused_before_training(data, tmp_path):
    callback = InfluenceCallback(dirpath=str(tmp_path / "run"), methods=[TracIn(optimizer="adam")])
    module = Net()
    before = module.head.weight.detach().clone()
    with pytest.raises(MisconfigurationException, match="optimizer_state=True"):
        quiet(max_epochs=1, callbacks=[callback]).fit(module, DataLoader(data[0], 8), DataLoader(data[1], 4))
    assert torch.equal(module.head.weight, before)
    assert not (tmp_path / "run").exists()


def test_checkpoints_without_it_are_refused_by_name(data, tmp_path):
    loaders = DataLoader(data[0], 8), DataLoader(data[1], 4)
    module = Net()
    first = InfluenceCallback(dirpath=str(tmp_path / "fit"), on_error="raise", record=False)
    quiet(max_epochs=1, callbacks=[first]).fit(module, *loaders)
    again = InfluenceCallback(
        dirpath=str(tmp_path / "again"),
        checkpoints=str(tmp_path / "fit" / "checkpoints"),
        methods=[TracIn(optimizer="auto")],
    )
    with pytest.raises(MisconfigurationException, match=r"(?s)\.ckpt has none.*optimizer_state=True"):
        influence(quiet(callbacks=[again]), module, *loaders)


@pytest.mark.parametrize("arguments", [{"normalize": "l2"}, {"optimizer": "lion"}, {"output": "logit"}])
def test_refuses_arguments_that_do_not_fit(arguments):
    with pytest.raises(ValueError, match="TracIn"):
        TracIn(**arguments)
