"""What half the step does to the scores, computed once more by hand."""

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.stats import spearmanr

from lightning_inf import ForwardINF, InfluenceFunction, SelfForwardINF, SelfInfluence, TracIn, TrainingDynamics
from lightning_inf.analysis.diagnose import agreement
from tests.methods.test_forward_inf import Net, data, run  # noqa: F401 - `data` is a fixture

STEPS, RADIUS = 3, 0.3


@pytest.fixture
def module():
    torch.manual_seed(3)
    return Net()


def losses(module, parameters, x, y):
    return F.cross_entropy(torch.func.functional_call(module, parameters, (x,)), y, reduction="none")


def differences(module, x, y, references, radius):
    """Walk up the references' mean loss with nothing of the package."""
    net = module.net
    start = {name: p.detach().double() for name, p in net.named_parameters()}
    length = torch.cat([p.flatten() for p in start.values()]).norm()
    weights = start
    for _ in range(STEPS):
        leaves = {name: p.clone().requires_grad_() for name, p in weights.items()}
        loss = losses(net, leaves, references[0].double(), references[1]).mean()
        gradient = dict(zip(leaves, torch.autograd.grad(loss, list(leaves.values())), strict=True))
        size = torch.cat([g.flatten() for g in gradient.values()]).norm()
        weights = {name: weights[name] + radius * length / size * gradient[name] for name in weights}
    return (losses(net, weights, x.double(), y) - losses(net, start, x.double(), y)).detach().numpy()


def test_finite_steps_against_scipy(tmp_path, data, module):  # noqa: F811
    references = tuple(tensor[:7] for tensor in data.tensors)
    methods = [ForwardINF(STEPS, RADIUS, name="far"), ForwardINF(STEPS, 1e-4, name="near")]
    reference_set = torch.utils.data.TensorDataset(*references)
    _, summary = run(tmp_path, data, reference_set, methods, module=module, individual_references=0)
    for entry, radius in zip(summary["methods"], (RADIUS, 1e-4), strict=True):
        found = entry["diagnostics"]["step"]
        whole, half = (differences(module, *data.tensors, references, r) for r in (radius, radius / 2))
        assert found["step"] == f"radius {radius:g}"
        assert found["samples"] == 60
        assert found["spearman"] == pytest.approx(spearmanr(whole, half).statistic, abs=0.01)
        assert found["ratio"] == pytest.approx(np.linalg.norm(whole) / np.linalg.norm(half) / 2, rel=0.01)
        assert found["reading"] in entry["notes"]
    far, near = (entry["diagnostics"]["step"] for entry in summary["methods"])
    assert "in the linear range" in near["reading"]
    assert "beyond the linear range" in far["reading"]


def test_central_differences_are_halved_and_other_derivatives_have_no_step(tmp_path, data, module):  # noqa: F811
    methods = [TracIn(), ForwardINF(steps=0), SelfForwardINF(steps=2), SelfInfluence(), TrainingDynamics()]
    for backend in ("central", "jvp"):
        _, summary = run(tmp_path / backend, data, data, methods, module=module, backend=backend)
        found = {entry["name"]: entry["diagnostics"]["step"] for entry in summary["methods"]}
        assert found["self_influence"] is None
        assert found["training_dynamics"] is None
        assert found["self_forward_inf"]["spearman"] > 0.9
        for name in ("tracin", "forward_inf"):
            if backend == "jvp":
                assert found[name] is None
                continue
            assert found[name]["step"].startswith("central difference ")
            assert found[name]["spearman"] > 0.99  # both are near the derivative
            assert found[name]["ratio"] == pytest.approx(1, abs=0.05)
            assert "in the linear range" in found[name]["reading"]


def test_influence_functions_have_no_step(tmp_path, data, module):  # noqa: F811
    _, summary = run(tmp_path, data, data, [InfluenceFunction(damping=0.1)], module=module)
    assert summary["methods"][0]["diagnostics"]["step"] is None


def test_single_references_without_a_gradient_are_counted(tmp_path, data, module):  # noqa: F811
    """Of two references the model is certain of one beyond fp32."""
    with torch.no_grad():
        module.net[2].weight.mul_(1e4)
        label = module.net(data.tensors[0][:1]).argmax()
    certain = torch.stack([label, (label + 1) % 3])
    references = torch.utils.data.TensorDataset(data.tensors[0][:1].repeat(2, 1), certain)
    methods = [ForwardINF(), TracIn(), SelfInfluence()]
    _, summary = run(tmp_path, data, references, methods, module=module)
    found = [entry["diagnostics"]["vanishing_gradients"] for entry in summary["methods"]]
    assert found == [{"references": 2, "vanishing": 1, "share": 0.5}] * 2 + [None]
    _, summary = run(tmp_path / "none", data, references, methods, module=module, individual_references=0)
    assert summary["methods"][0]["diagnostics"]["vanishing_gradients"] == {
        "references": 0,
        "vanishing": 0,
        "share": None,
    }
    json.dumps(summary, allow_nan=False)


def test_nothing_is_said_of_constant_scores():
    assert agreement(np.zeros(5), np.zeros(5)) == (None, None)
    assert agreement(np.arange(2.0), np.arange(2.0)) == (None, None)
    assert agreement(np.arange(5.0), np.arange(5.0)) == (pytest.approx(1.0), 1.0)
