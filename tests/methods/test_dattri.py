"""TracIn, its cosine, and influence functions against dattri, on a small MLP."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from dattri.algorithm.influence_function import IFAttributorEKFAC, IFAttributorExplicit
from dattri.algorithm.tracin import TracInAttributor
from dattri.task import AttributionTask
from lightning.pytorch import LightningModule
from torch import nn
from torch.func import functional_call
from torch.utils.data import DataLoader, TensorDataset

from lightning_inf import (
    EKFAC,
    ConjugateGradients,
    InfluenceCallback,
    InfluenceFunction,
    SelfInfluence,
    TracIn,
    influence,
)
from lightning_inf.checkpoints.checkpoint import load
from tests.runs import quiet, scores

SAMPLES, REFERENCES = 40, 7


class Net(LightningModule):
    """Without biases: dattri's EK-FAC puts a layer's weight and bias together in another order than it takes them apart."""

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(6, 10, bias=False), nn.Tanh(), nn.Linear(10, 3, bias=False))

    def training_step(self, batch, batch_idx):
        return F.cross_entropy(self.net(batch[0]), batch[1])

    def validation_step(self, batch, batch_idx):
        pass

    def configure_optimizers(self):
        optimizer = torch.optim.SGD(self.parameters(), lr=0.2)
        return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5)]


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    """A fitted model, both sides of the data, and its captures."""
    torch.manual_seed(0)
    x = torch.randn(SAMPLES + REFERENCES, 6)
    y = (x[:, :3] + torch.randn(len(x), 3) / 2).argmax(dim=1)
    train, held_out = TensorDataset(x[:SAMPLES], y[:SAMPLES]), TensorDataset(x[SAMPLES:], y[SAMPLES:])
    directory = tmp_path_factory.mktemp("fit")
    module = Net()
    callback = InfluenceCallback(dirpath=str(directory), methods=[TracIn()], record=False, on_error="raise")
    quiet(max_epochs=4, callbacks=[callback]).fit(module, DataLoader(train, 8, shuffle=True), DataLoader(held_out, 7))
    return module, train, held_out, directory / "checkpoints"


def ours(fitted, tmp_path, methods, **arguments):
    module, train, held_out, captures = fitted
    callback = InfluenceCallback(
        dirpath=str(tmp_path),
        checkpoints=str(captures),
        methods=methods,
        individual_references=0,
        budget=None,
        **arguments,
    )
    influence(quiet(callbacks=[callback]), module, DataLoader(train, 16), DataLoader(held_out, 7))
    return scores(tmp_path)


def task(fitted, checkpoints):
    """What dattri asks for: a loss of parameters and one sample, or of a batch for the curvature."""
    net = fitted[0].net

    def loss(params, data):
        image, label = (a[None] if a.dim() == d else a for a, d in zip(data, (1, 0), strict=True))
        return F.cross_entropy(functional_call(net, params, (image,)), label)

    return AttributionTask(loss_func=loss, model=net, checkpoints=checkpoints)


def states(fitted):
    contents = [load(path) for path in sorted(fitted[3].glob("*.ckpt"))]
    weights = [{k.removeprefix("net."): v for k, v in content["state_dict"].items()} for content in contents]
    return weights, [next(iter(content["influence"]["learning_rate"].values())) for content in contents]


def tracin(fitted, normalized):
    """dattri's TracIn, without the random projection that it has by default."""
    weights, rates = states(fitted)
    attributor = TracInAttributor(task(fitted, weights), torch.tensor(rates), normalized)
    attributor.projector_kwargs = None
    return attributor


def theirs(attributor, fitted, whole_batch=False):
    """dattri's influence of each training sample on each reference, shape ``(samples, references)``."""
    _, train, held_out, _ = fitted
    if whole_batch:
        attributor.cache(DataLoader(train, SAMPLES))
    return attributor.attribute(DataLoader(train, 10), DataLoader(held_out, 7)).double().detach().numpy()


def relative(found, expected):
    return np.abs(np.array(found) - expected).max() / np.abs(expected).max()


def test_tracin(fitted, tmp_path):
    _, rates = states(fitted)
    assert len(rates) == 4
    assert len(set(rates)) == 4
    table = ours(fitted, tmp_path, [TracIn(), SelfInfluence()])
    attributor = tracin(fitted, normalized=False)
    assert relative(table["tracin"], theirs(attributor, fitted).mean(axis=1)) <= 1e-5
    own = attributor.self_attribute(DataLoader(fitted[1], 10)).double().numpy()
    assert relative(table["self_influence"], own) <= 1e-5


def test_cosines_of_a_single_reference(fitted, tmp_path):
    """The cosine with a mean gradient is no mean of cosines, so one reference is asked."""
    module, train, held_out, captures = fitted
    one = module, train, TensorDataset(*(t[:1] for t in held_out.tensors)), captures
    table = ours(one, tmp_path, [TracIn(normalize="cosine")])
    assert relative(table["tracin"], theirs(tracin(fitted, normalized=True), one)[:, 0]) <= 1e-5


def test_influence_function_of_the_head(fitted, tmp_path):
    """The network is linear in its head, so the Hessian that dattri undoes is our Gauss-Newton matrix; it has no 1/n."""
    weights, _ = states(fitted)
    method = InfluenceFunction(ConjugateGradients(tolerance=1e-7), damping=0.02)
    found = np.array(ours(fitted, tmp_path, [method], parameters="head")["influence_function"]) * SAMPLES
    attributor = IFAttributorExplicit(task(fitted, weights[-1]), layer_name=["2.weight"], regularization=0.02)
    assert relative(found, theirs(attributor, fitted, whole_batch=True).mean(axis=1)) <= 1e-4


def test_ekfac(fitted, tmp_path):
    """dattri takes gradients at the given labels, ours at the model's own: alike, not equal."""
    weights, _ = states(fitted)
    found = ours(fitted, tmp_path, [InfluenceFunction(EKFAC(), damping=0.1)])["influence_function"]
    attributor = IFAttributorEKFAC(task(fitted, weights[-1]), module_name=["0", "2"], damping=0.1)
    expected = theirs(attributor, fitted, whole_batch=True).mean(axis=1)
    assert np.corrcoef(found, expected)[0, 1] >= 0.9
