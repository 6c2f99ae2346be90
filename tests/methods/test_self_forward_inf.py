"""Self-influence by ascent, from the callback to the file."""

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader, TensorDataset

from lightning_inf import InfluenceCallback, SelfForwardINF, SelfInfluence, influence
from tests.methods.test_forward_inf import Net
from tests.runs import quiet, scores


@pytest.fixture(scope="module")
def case():
    torch.manual_seed(0)
    x = torch.randn(40, 6)
    return Net(), TensorDataset(x, x[:, :3].argmax(dim=1))


def run(directory, case, methods, **arguments):
    module, data = case
    callback = InfluenceCallback(dirpath=str(directory), methods=methods, learning_rate=1.0, budget=None, **arguments)
    influence(quiet(callbacks=[callback]), module, DataLoader(data, 16), DataLoader(data, 16))
    return scores(directory), json.loads((directory / "summary.json").read_text())


def test_two_steps_to_the_letter(tmp_path, case):
    table, _ = run(tmp_path, case, [SelfForwardINF(steps=2, radius=0.05)], chunk_size=7)
    module, data = case
    start = {n: p.detach().double() for n, p in module.net.named_parameters()}
    reach = 0.05 * torch.cat([p.flatten() for p in start.values()]).norm()
    for i in range(len(data)):
        x, y = data[i]

        def loss(params, x=x, y=y):
            return F.cross_entropy(torch.func.functional_call(module.net, params, (x.double()[None],)), y[None])

        here = start
        for _ in range(2):
            leaves = {n: p.clone().requires_grad_() for n, p in here.items()}
            grads = torch.autograd.grad(loss(leaves), list(leaves.values()))
            length = torch.cat([g.flatten() for g in grads]).norm()
            here = {n: p + reach * g / length for (n, p), g in zip(here.items(), grads, strict=True)}
        assert table["self_forward_inf"][i] == pytest.approx(float(loss(here) - loss(start)), rel=1e-3)


def test_one_small_step_is_the_length_of_the_gradient(tmp_path, case):
    table, _ = run(tmp_path, case, [SelfForwardINF(steps=1, radius=1e-3), SelfInfluence()])
    found, norms = np.array(table["self_forward_inf"]), np.sqrt(table["self_influence"])
    reach = 1e-3 * torch.cat([p.detach().flatten() for p in case[0].parameters()]).norm().item()
    np.testing.assert_allclose(found, reach * norms, rtol=2e-2)


def test_a_seeded_part_is_asked_and_the_report_says_so(tmp_path, case):
    method = SelfForwardINF(max_samples=9, seed=3)
    table, summary = run(tmp_path / "a", case, [method])
    whole, _ = run(tmp_path / "b", case, [SelfForwardINF()])
    asked = [i for i, value in enumerate(table["self_forward_inf"]) if value is not None]
    assert len(asked) == 9
    for i in asked:
        assert table["self_forward_inf"][i] == pytest.approx(whole["self_forward_inf"][i], rel=1e-4)
    assert any("9 of 40 samples" in note for note in summary["methods"][0]["notes"])
    assert table["self_forward_inf_rank"].count(None) == 31
    assert summary["methods"][0]["backend"] == "vmap over samples"


def test_margins(tmp_path, case):
    table, summary = run(tmp_path, case, [SelfForwardINF(output="margin")])
    assert min(table["self_forward_inf"]) > 0
    assert "m_i(theta) - m_i(theta_5)" in summary["methods"][0]["formula"]


@pytest.mark.parametrize(
    "arguments",
    [{"steps": 0}, {"radius": 0}, {"max_samples": 0}, {"max_samples": 5001}, {"output": "x"}, {"checkpoints": "first"}],
)
def test_refuses_arguments_out_of_range(arguments):
    with pytest.raises(ValueError, match="SelfForwardINF"):
        SelfForwardINF(**arguments)
