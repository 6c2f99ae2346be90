"""The margin in the place of the loss: every way to a derivative, and measurements of both outputs side by side."""

import pytest
import torch

from lightning_inf.model import gradients
from lightning_inf.model.sample_model import SampleModel
from lightning_inf.model.weights import Weights
from lightning_inf.sweep import backends
from lightning_inf.sweep.evaluate import Evaluator
from lightning_inf.sweep.measurements import DerivativeAt, GradientNormAt, LossAt, OutputsAt
from tests.checkpoint_stub import stub
from tests.sweep.test_backends import SAMPLES, TANGENTS, Fixed, Net, relative


@pytest.fixture(scope="module")
def case():
    torch.manual_seed(0)
    module = Net()
    module.body.norm.running_mean.normal_()
    batch = {"x": torch.randn(SAMPLES, 1, 6, 6), "y": torch.randint(0, 6, (SAMPLES,))}
    weights = Weights.of(module.eval())
    tangents = [{n: torch.randn_like(p) for n, p in weights.trainable.items()} for _ in range(TANGENTS)]
    return SampleModel(module), weights, tangents, batch


@pytest.fixture(scope="module")
def truth(case):
    """Minus log(p / (1 - p)) and its gradients, by a loop of plain backward passes in double precision."""
    model, weights, tangents, batch = case
    body = model.module.body.double()
    values, rows, norms = [], [], []
    for i in range(SAMPLES):
        p = body(batch["x"][i : i + 1].double()).softmax(dim=1)[0, batch["y"][i]]
        value = -torch.log(p / (1 - p))
        grads = dict(zip(weights.trainable, torch.autograd.grad(value, list(body.parameters())), strict=True))
        values.append(value.detach())
        rows.append(torch.stack([sum((grads[n] * t[n].double()).sum() for n in grads) for t in tangents]))
        norms.append(sum(g.square().sum() for g in grads.values()))
    model.module.float()
    return torch.stack(values), torch.stack(rows), torch.stack(norms)


def test_all_backends_agree(case, truth):
    model, weights, tangents, batch = case
    margins = model.giving("margin")
    assert relative(backends.forward_mode(margins, weights, tangents, batch), truth[1]) < 1e-5
    for vectorize in (True, False):
        slices = list(gradients.per_sample_gradients(margins, weights, batch, SAMPLES, vectorize))
        assert relative(torch.cat([gradients.products(g, tangents) for _, g in slices]), truth[1]) < 1e-5
    with torch.no_grad():
        assert relative(backends.central(margins, weights, tangents, batch, 1e-8, torch.float64), truth[1]) < 2e-4


@pytest.mark.parametrize("backend", ["auto", "jvp", "vmap", "central"])
def test_losses_and_margins_are_answered_side_by_side(case, truth, backend):
    model, weights, tangents, batch = case
    checkpoint, direction = stub("a"), Fixed("0")
    asked = [
        kind
        for output in ("loss", "margin")
        for kind in (
            LossAt(checkpoint, output=output),
            DerivativeAt(checkpoint, direction, output),
            GradientNormAt(checkpoint, output=output),
        )
    ]
    asked.append(OutputsAt(checkpoint))
    assert len({m.key for m in asked}) == 7
    answers = Evaluator(model, backend)(weights, asked, {"0": tangents[0]}, batch, SAMPLES)
    loss, _, _, margin, derivative, norm, outputs = (answers[m.key] for m in asked)
    assert relative(margin["loss"], truth[0]) < 1e-5
    torch.testing.assert_close(outputs["margin"], -margin["loss"])
    torch.testing.assert_close(outputs["loss"], loss["loss"])
    assert relative(derivative["derivative"], truth[1][:, 0]) < (2e-2 if backend == "central" else 1e-5)
    assert relative(norm["squared_norm"], truth[2]) < 1e-5
    alone = Evaluator(model, backend)(weights, asked[:3], {"0": tangents[0]}, batch, SAMPLES)
    for measurement in asked[:3]:  # the loss is not disturbed
        for name, values in alone[measurement.key].items():
            torch.testing.assert_close(values, answers[measurement.key][name])
