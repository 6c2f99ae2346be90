"""Every probe's vector under every backend, and every exact way to H^-1 g against each other."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call, hessian

from lightning_inf.data.references import Target
from lightning_inf.model import gradients
from lightning_inf.probes.ascent import Ascent
from lightning_inf.probes.conjugate_gradients import ConjugateGradients
from lightning_inf.probes.curvature import Preconditioner
from lightning_inf.probes.diagonal import DiagonalFisher
from lightning_inf.probes.gradient import Gradient
from lightning_inf.probes.inverse import InverseGradient
from lightning_inf.probes.kronecker import EKFAC
from lightning_inf.probes.lissa import LiSSA
from lightning_inf.sweep.evaluate import Evaluator
from lightning_inf.sweep.measurements import DerivativeAt
from tests.checkpoint_stub import stub
from tests.probes.curved import Fit, curvature, flat, prepared, random_vector, scene

TARGET, CHECKPOINT = Target((0, 2, 3), "t"), stub("a")
NAMES = ["net.0.weight", "net.0.bias", "net.3.weight", "net.3.bias"]
ADAM = replace(
    CHECKPOINT,
    optimizer={
        "settings": {name: {"optimizer": "Adam", "betas": (0.9, 0.99), "eps": 1e-8} for name in NAMES},
        "second_moment": {name: {"exp_avg_sq": torch.tensor(0.3), "step": torch.tensor(5.0)} for name in NAMES},
    },
)
RATES = {name: 0.1 * (k + 1) for k, name in enumerate(NAMES)}
SOLVERS = [ConjugateGradients(), LiSSA(depth=50), EKFAC(), EKFAC(eigenvalues="kronecker"), DiagonalFisher()]

PROBES = {
    "gradient": Gradient(CHECKPOINT, TARGET),
    "gradient, learning rates": Gradient(CHECKPOINT, TARGET, RATES),
    "gradient, margin": Gradient(CHECKPOINT, TARGET, output="margin"),
    "gradient, unit": Gradient(CHECKPOINT, TARGET, RATES, unit=True),
    "gradient, adam": Gradient(ADAM, TARGET, optimizer="adam"),
    "gradient, training samples": Gradient(CHECKPOINT, Target.training((1, 4))),
    **{
        f"ascent, {step}": Ascent(CHECKPOINT, TARGET, 3, step, 0.01)
        for step in ("normalized", "plain", "per_layer", "sign")
    },
    "ascent, margin": Ascent(CHECKPOINT, TARGET, 2, "normalized", 0.01, "margin"),
    "descent": Ascent(CHECKPOINT, TARGET, 2, "plain", 0.1, direction="descent"),
    "ascent, training samples": Ascent(CHECKPOINT, Target.training(range(9)), 2, "normalized", 0.01),
    "ascent, preconditioned": Ascent(
        CHECKPOINT, TARGET, 2, "normalized", 0.01, preconditioner=Preconditioner(EKFAC(), 0.1)
    ),
    **{
        f"inverse, {type(solver).__name__}{k}": InverseGradient(CHECKPOINT, TARGET, Preconditioner(solver, 0.1))
        for k, solver in enumerate(SOLVERS)
    },
}


@pytest.fixture(scope="module")
def case():
    torch.manual_seed(0)
    layers = [nn.Conv2d(1, 4, 3), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(36, 3)]
    x, y = torch.randn(17, 1, 5, 5), torch.arange(17) % 3
    return scene(Fit(nn.Sequential(*layers)), x[:12], y[:12], x[12:], y[12:]), (x[:12], y[:12])


@pytest.mark.parametrize("output", ["loss", "margin"])
@pytest.mark.parametrize("name", PROBES)
def test_all_backends_agree_along_every_probe(case, name, output):
    """jvp and per-sample gradients to rounding, central differences to the kinks of ReLU; by one backward pass each."""
    here, batch = case
    tangent = PROBES[name].make(here)
    weights, model = here.weights(None), here.model
    truth = gradients.exact(model.giving(output), weights, [tangent], batch, 12)[:, 0]
    assert truth.abs().max() > 0
    asked = [DerivativeAt(CHECKPOINT, PROBES[name], output)]
    for backend, tolerance in (("jvp", 1e-5), ("vmap", 1e-5), ("central", 2e-2)):
        evaluator = Evaluator(model, backend)
        (answer,) = evaluator(weights, asked, {PROBES[name].key: tangent}, batch, 12).values()
        error = (answer["derivative"].double() - truth).abs().max() / truth.abs().max()
        assert error < tolerance, (backend, evaluator.used)


@pytest.mark.parametrize("outputs", [1, 3])
@pytest.mark.parametrize("bias", [True, False])
def test_conjugate_gradients_ekfac_and_the_explicit_inverse_are_one_on_a_linear_net(bias, outputs):
    """With squared errors the Hessian of a linear net is a Kronecker product, so nothing is approximated."""
    torch.manual_seed(0)
    x, y = torch.randn(32, 5).double(), torch.randn(32, outputs).double()
    module = Fit(nn.Linear(5, outputs, bias=bias).double(), F.mse_loss)
    vector = random_vector(module)
    parameters = {name: p.detach() for name, p in module.net.named_parameters()}
    shapes = [p.shape for p in parameters.values()]

    def loss(row):
        parts = row.split([s.numel() for s in shapes])
        given = {n: v.reshape(s) for n, v, s in zip(parameters, parts, shapes, strict=True)}
        return F.mse_loss(functional_call(module.net, given, (x,)), y)

    matrix = hessian(loss)(flat(parameters))
    explicit = torch.linalg.solve(matrix + 0.03 * torch.eye(len(matrix)).double(), flat(vector))
    for solver in (ConjugateGradients(iterations=200, tolerance=1e-10), EKFAC(), EKFAC(eigenvalues="kronecker")):
        found = flat(prepared(solver, curvature(module, x, y, damping=0.03))(vector))
        torch.testing.assert_close(found, explicit, rtol=1e-6, atol=1e-8)
