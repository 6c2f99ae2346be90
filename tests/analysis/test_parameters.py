"""Influence through a part of the parameters, and outputs that a model doesn't have."""

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch.utils.data import DataLoader, TensorDataset

from lightning_inf import ForwardINF, InfluenceCallback, SelfForwardINF, SelfInfluence, TracIn, influence
from lightning_inf.model.weights import Weights, chosen_names
from tests.methods.test_tracin_variants import Net
from tests.runs import quiet, scores

SAMPLES = 24


@pytest.fixture(scope="module")
def case():
    torch.manual_seed(0)
    x = torch.randn(SAMPLES, 6)
    return Net(), TensorDataset(x, x[:, :3].argmax(dim=1))


def run(directory, case, **arguments):
    module, data = case
    methods = arguments.pop("methods", [TracIn(), SelfInfluence(), ForwardINF(steps=1, step="plain", alpha=1e-2)])
    callback = InfluenceCallback(dirpath=str(directory), methods=methods, learning_rate=1.0, budget=None, **arguments)
    influence(quiet(callbacks=[callback]), module, DataLoader(data, 8), DataLoader(data, 8))
    return scores(directory)


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        ("head", {"head.weight", "head.bias"}),
        (r"^body\.", {"body.weight", "body.bias"}),
        ("bias", {"body.bias", "head.bias"}),
        (["head.bias", "body.weight"], {"head.bias", "body.weight"}),
        (None, None),
    ],
)
def test_which_parameters(case, parameters, expected):
    assert chosen_names(case[0], parameters) == (None if expected is None else frozenset(expected))
    weights = Weights.of(case[0], names=chosen_names(case[0], parameters))
    everything = dict(case[0].named_parameters())
    assert set(weights.trainable) == (expected or set(everything))
    assert set(weights.trainable) | set(weights.fixed) == set(everything)


def test_frozen_parameters_are_never_chosen(case):
    torch.manual_seed(0)
    module = Net()
    module.head.requires_grad_(False)
    assert chosen_names(module, "head") == {"body.weight", "body.bias"}
    with pytest.raises(ValueError, match=r"found none among body\.weight, body\.bias"):
        chosen_names(module, r"head\.")


def test_the_head_alone_in_closed_form(tmp_path, case):
    """The last layer's gradient product is (p_i - y_i)(p_t - y_t) (a_i a_t + 1): TracInCPFast, and + 1 for the bias."""
    table = run(tmp_path, case, parameters="head")
    module, data = case
    x, y = data.tensors
    with torch.no_grad():
        active = torch.tanh(module.body(x)).double()
        residual = (module.logits(x).softmax(dim=1) - F.one_hot(y, 3)).double()
    products = (residual @ residual.T) * (active @ active.T + 1)
    np.testing.assert_allclose(table["tracin"], products.mean(dim=1), atol=1e-5 * float(products.abs().max()))
    np.testing.assert_allclose(table["self_influence"], products.diagonal(), rtol=1e-4)
    # One small step moves the head only.
    limit = 1e-2 * products.mean(dim=1).numpy()
    np.testing.assert_allclose(table["forward_inf"], limit, atol=2e-2 * np.abs(limit).max())


def test_parts_add_up_to_the_whole_and_are_runs_of_their_own(tmp_path, case):
    tables = {p: run(tmp_path, case, parameters=p) for p in (None, r"^head\.", r"^body\.")}
    for name in ("tracin", "self_influence"):
        whole, head, body = (np.array(table[name]) for table in tables.values())
        np.testing.assert_allclose(head + body, whole, atol=1e-5 * np.abs(whole).max())
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert manifest["parameters"] == ["body.bias", "body.weight"]


def test_a_pattern_that_matches_nothing_is_refused_with_the_names(tmp_path, case):
    with pytest.raises(MisconfigurationException, match=r"(?s)parameters='tail'.*body\.weight"):
        run(tmp_path / "run", case, parameters="tail")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("parameters", ["(", [], [3], ["a", "["]])
def test_what_is_no_pattern_is_refused_at_once(parameters):
    with pytest.raises(ValueError, match="parameters="):
        InfluenceCallback(parameters=parameters)


class Regression(Net):
    def training_step(self, batch, batch_idx):
        return F.mse_loss(self.logits(batch[0])[:, 0], batch[1].float())


@pytest.mark.parametrize(
    "method",
    [
        ForwardINF(output="margin"),
        TracIn(output="margin"),
        SelfInfluence(output="margin"),
        SelfForwardINF(output="margin"),
    ],
    ids=lambda method: type(method).__name__,
)
def test_a_margin_without_classes_is_refused_before_training(tmp_path, case, method):
    torch.manual_seed(0)
    module, loaders = Regression(), [DataLoader(case[1], 8), DataLoader(case[1], 8)]
    before = module.head.weight.detach().clone()
    callback = InfluenceCallback(dirpath=str(tmp_path / "run"), methods=[method])
    with pytest.raises(MisconfigurationException, match=r"(?s)output='margin'.*single-label.*mse_loss"):
        quiet(max_epochs=1, callbacks=[callback]).fit(module, *loaders)
    assert torch.equal(module.head.weight, before)
    assert not (tmp_path / "run").exists()


def test_a_label_out_of_range_is_named_with_the_head_alone(tmp_path, case):
    """The checks before the sweep see a few samples only, and none of them is this one."""
    module, data = case
    labels = torch.cat([data.tensors[1]] * 8)
    labels[101] = 9
    spoiled = TensorDataset(torch.cat([data.tensors[0]] * 8), labels)
    callback = InfluenceCallback(
        dirpath=str(tmp_path), methods=[ForwardINF()], parameters="head", learning_rate=1.0, budget=None
    )
    message = r"training sample 101 of .* can't be evaluated.*out of range"
    with pytest.raises(ValueError, match=message):
        influence(quiet(callbacks=[callback]), module, DataLoader(spoiled, 8), DataLoader(data, 8))
