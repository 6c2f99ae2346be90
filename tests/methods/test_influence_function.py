"""Influence functions against exact leave-one-out retraining, and against captum."""

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from captum.influence._core.arnoldi_influence_function import ArnoldiInfluenceFunction
from captum.influence._core.influence_function import NaiveInfluenceFunction
from lightning.pytorch import LightningModule
from sklearn.linear_model import LogisticRegression
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_inf import (
    EKFAC,
    ConjugateGradients,
    DiagonalFisher,
    InfluenceCallback,
    InfluenceFunction,
    LiSSA,
    TracIn,
    influence,
)
from tests.runs import attributions, quiet, scores

SAMPLES, REFERENCES, L2 = 60, 12, 0.05
METHODS = [
    InfluenceFunction(ConjugateGradients(tolerance=1e-8), damping=L2, name="cg"),
    InfluenceFunction(LiSSA(depth=400), damping=L2, name="lissa"),
    InfluenceFunction(EKFAC(), damping=L2, name="ekfac"),
    InfluenceFunction(DiagonalFisher(), damping=L2, name="diagonal"),
    TracIn(),
]


class Logistic(LightningModule):
    """Multinomial logistic regression whose optimum scikit-learn finds; the last feature is 1, in place of a bias."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(6, 3, bias=False).double()

    def training_step(self, batch, batch_idx):
        x, y = batch
        return F.cross_entropy(self.layer(x), y) + L2 / 2 * self.layer.weight.square().sum()

    def validation_step(self, batch, batch_idx):
        pass

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def fit(x, y):
    # C as for all samples: leaving one out takes its loss away and leaves the regulariser as it was.
    return LogisticRegression(C=1 / (SAMPLES * L2), tol=1e-12, max_iter=10_000, fit_intercept=False).fit(x, y)


def losses(model, x, y):
    return -model.predict_log_proba(x)[np.arange(len(y)), y]


@pytest.fixture(scope="module")
def problem():
    rng = np.random.default_rng(4)
    x = np.concatenate([rng.normal(size=(SAMPLES + REFERENCES, 5)), np.ones((SAMPLES + REFERENCES, 1))], axis=1)
    y = np.argmax(x @ rng.normal(size=(6, 3)) + rng.gumbel(size=(len(x), 3)), axis=1)
    y[:8] = (y[:8] + 1) % 3  # harmful samples
    train, held_out = (x[:SAMPLES], y[:SAMPLES]), (x[SAMPLES:], y[SAMPLES:])
    whole = fit(*train)
    left_out = [fit(np.delete(train[0], i, axis=0), np.delete(train[1], i)) for i in range(SAMPLES)]
    rise = np.stack([losses(m, *held_out) - losses(whole, *held_out) for m in left_out])  # (samples, references)
    return train, held_out, whole, rise


@pytest.fixture(scope="module")
def ours(problem, tmp_path_factory):
    train, held_out, whole, _ = problem
    module = Logistic()
    with torch.no_grad():
        module.layer.weight.copy_(torch.from_numpy(whole.coef_))
    directory = tmp_path_factory.mktemp("influence")
    callback = InfluenceCallback(
        dirpath=str(directory),
        methods=METHODS,
        learning_rate=1.0,
        individual_references=REFERENCES,
        budget=None,
        batch_size=SAMPLES,
    )
    sides = (TensorDataset(*(torch.from_numpy(a) for a in side)) for side in (train, held_out))
    influence(quiet(callbacks=[callback]), module, *(DataLoader(side, 16) for side in sides))
    return directory


@pytest.mark.parametrize("name", ["cg", "lissa"])
def test_leave_one_out_retraining(problem, ours, name):
    """Correlated at .99 with what happens, and of its size: the score is the rise of the mean loss.

    It is too small by the samples' own leverage, which leaving one of 60 out also takes away.
    """
    rise, found = problem[3].mean(axis=1), np.array(scores(ours)[name])
    assert np.corrcoef(found, rise)[0, 1] >= 0.99
    assert np.polyfit(found, rise, 1)[0] == pytest.approx(1.1, abs=0.1)


def test_leave_one_out_of_single_references(problem, ours):
    rows = attributions(ours)
    pairs = [
        (rows["influence"][k], problem[3][rows["train_index"][k], rows["reference_index"][k]])
        for k in range(len(rows["method"]))
        if rows["method"][k] == "cg"
    ]
    assert len({rows["reference_index"][k] for k in range(len(rows["method"]))}) == REFERENCES
    assert np.corrcoef(np.array(pairs).T)[0, 1] >= 0.99


def test_closed_form(problem, ours):
    """Eq. 6 with the dense Hessian of logistic regression, in double precision."""
    (x, y), (rx, ry), whole, _ = problem
    p, rp = whole.predict_proba(x), whole.predict_proba(rx)
    inner = np.stack([np.diag(q) - np.outer(q, q) for q in p])
    hessian = np.einsum("nij,na,nb->iajb", inner, x, x).reshape(18, 18) / SAMPLES + L2 * np.eye(18)
    gradients = np.einsum("ni,na->nia", p - np.eye(3)[y], x).reshape(SAMPLES, 18)
    reference = np.einsum("ni,na->nia", rp - np.eye(3)[ry], rx).reshape(REFERENCES, 18).mean(axis=0)
    expected = gradients @ np.linalg.solve(hessian, reference) / SAMPLES
    table = scores(ours)
    np.testing.assert_allclose(table["cg"], expected, rtol=1e-5, atol=1e-9)
    np.testing.assert_allclose(table["lissa"], expected, rtol=1e-3, atol=1e-6)
    diagonal = np.square(gradients).mean(axis=0) + L2
    np.testing.assert_allclose(table["diagonal"], gradients @ (reference / diagonal) / SAMPLES, rtol=1e-6)


def test_curvature_comes_closer_to_retraining(problem, ours):
    rise, table = problem[3].mean(axis=1), scores(ours)
    agreement = {name: np.corrcoef(table[name], rise)[0, 1] for name in ("cg", "ekfac", "diagonal", "tracin")}
    assert agreement["cg"] > agreement["ekfac"] > agreement["tracin"]
    assert all(value > 0.7 for value in agreement.values())  # one sign


def test_the_report_says_what_was_done(ours):
    entries = {m["name"]: m for m in json.loads((ours / "summary.json").read_text())["methods"]}
    assert entries["ekfac"]["arguments"]["solver"] == {"class": "EKFAC", "eigenvalues": "corrected", "labels": "auto"}
    assert entries["cg"]["formula"].endswith("H by ConjugateGradients over 5000 training samples, damping 0.05")


class Classifier(LightningModule):
    def __init__(self, net):
        super().__init__()
        self.net = net

    def training_step(self, batch, batch_idx):
        return F.cross_entropy(self.net(batch[0]), batch[1])

    def validation_step(self, batch, batch_idx):
        pass

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def run(module, train, held_out, directory, **arguments):
    callback = InfluenceCallback(
        dirpath=str(directory), learning_rate=1.0, individual_references=0, budget=None, on_error="raise", **arguments
    )
    influence(quiet(callbacks=[callback]), module, DataLoader(train, 16), DataLoader(held_out, 6))
    return scores(directory)


def small_mlp(tmp_path):
    """An MLP whose trainable part is linear, and its 48 samples and 6 references; captum reads ``net.pt``."""
    torch.manual_seed(0)
    x, y = torch.randn(54, 8), torch.randint(0, 3, (54,))
    net = nn.Sequential(nn.Linear(8, 6), nn.Tanh(), nn.Linear(6, 3))
    torch.save(net.state_dict(), tmp_path / "net.pt")
    return net, TensorDataset(x[:48], y[:48]), TensorDataset(x[48:], y[48:])


def captum(kind, net, train, held_out, tmp_path, **arguments):
    """captum's mean influence on the references, of the head alone, at a damping of 0.01."""
    theirs = kind(
        net,
        DataLoader(train, 16),
        str(tmp_path / "net.pt"),
        layers=["2"],
        loss_fn=nn.CrossEntropyLoss(reduction="sum"),
        sample_wise_grads_per_batch=True,
        hessian_reg=48 * 0.01,
        **arguments,
    )
    return theirs.influence(held_out.tensors).double().mean(dim=0).numpy()


def test_captum_agrees_on_an_mlp(tmp_path):
    """captum undoes the dense Hessian, which is our matrix where the trainable part of the network is linear.

    Its Hessian is a sum over the samples, so its regularisation is n times our damping and the factor 1/n is in it.
    """
    net, train, held_out = small_mlp(tmp_path)
    ours = InfluenceFunction(ConjugateGradients(tolerance=1e-6), damping=0.01)
    found = run(Classifier(net), train, held_out, tmp_path, methods=[ours], parameters="head")["influence_function"]
    expected = captum(NaiveInfluenceFunction, net, train, held_out, tmp_path)
    np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize(("dimensions", "agreement"), [(21, 0.9999), (8, 0.9)])
def test_captum_by_arnoldi_iteration_agrees_as_far_as_its_dimensions_go(tmp_path, dimensions, agreement):
    """The head has 21 parameters. With all of them only rounding is left; a third of them are the large eigenvalues."""
    net, train, held_out = small_mlp(tmp_path)
    ours = InfluenceFunction(ConjugateGradients(tolerance=1e-6), damping=0.01)
    found = run(Classifier(net), train, held_out, tmp_path, methods=[ours], parameters="head")["influence_function"]
    low_rank = {"projection_dim": dimensions, "arnoldi_dim": 21, "arnoldi_tol": 1e-9, "hessian_inverse_tol": 1e-9}
    expected = captum(ArnoldiInfluenceFunction, net, train, held_out, tmp_path, **low_rank)
    assert np.corrcoef(found, expected)[0, 1] >= agreement


def test_convolutions_with_batch_norm(tmp_path):
    torch.manual_seed(0)
    x, y = torch.randn(38, 2, 6, 6), torch.randint(0, 3, (38,))
    layers = [nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(64, 3)]
    solvers = {"cg": ConjugateGradients(), "lissa": LiSSA(200), "ekfac": EKFAC(), "diagonal": DiagonalFisher()}
    methods = [InfluenceFunction(solver, subset=20, name=name) for name, solver in solvers.items()]
    module = Classifier(nn.Sequential(*layers))
    table = run(module, TensorDataset(x[:32], y[:32]), TensorDataset(x[32:], y[32:]), tmp_path, methods=methods)
    assert all(np.isfinite(table[name]).all() for name in solvers)
    assert np.corrcoef(table["cg"], table["lissa"])[0, 1] > 0.9
    assert np.corrcoef(table["cg"], table["ekfac"])[0, 1] > 0.5


class TwoTerms(Classifier):
    def training_step(self, batch, batch_idx):
        z = self.net(batch[0])
        return F.cross_entropy(z, batch[1]) + F.mse_loss(z, torch.zeros_like(z))


def test_where_no_curvature_can_be_had_the_column_is_null_with_the_reason(tmp_path):
    torch.manual_seed(0)
    x, y = torch.randn(22, 5), torch.randint(0, 3, (22,))
    methods = [InfluenceFunction(name="cg"), InfluenceFunction(DiagonalFisher(), name="diagonal")]
    module = TwoTerms(nn.Linear(5, 3))
    table = run(module, TensorDataset(x[:16], y[:16]), TensorDataset(x[16:], y[16:]), tmp_path, methods=methods)
    assert table["cg"] == [None] * 16
    assert None not in table["diagonal"]
    entries = json.loads((tmp_path / "summary.json").read_text())["methods"]
    assert "exactly one call of a loss of torch.nn.functional" in json.dumps(entries[0])


def test_wrong_arguments():
    with pytest.raises(ValueError, match="expected 'last' or 'all', found 'first'"):
        InfluenceFunction(checkpoints="first")
    with pytest.raises(ValueError, match="expected a solver such as ConjugateGradients"):
        InfluenceFunction(solver="cg")
    with pytest.raises(ValueError, match="expected a number above 0"):
        InfluenceFunction(damping=-1.0)
