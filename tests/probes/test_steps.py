"""The kinds of steps, and what an optimiser makes of a gradient, against plain autograd and torch's own optimisers."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from lightning_inf.data.references import Target
from lightning_inf.probes.ascent import Ascent
from lightning_inf.probes.gradient import Gradient
from lightning_inf.probes.optimizer import factors, state_key
from lightning_inf.probes.scene import Unavailable
from tests.checkpoint_stub import stub
from tests.probes.test_probes import plain, scene  # noqa: F401  # a fixture

TARGET = Target((0, 1, 2), "t")


def test_a_per_layer_step_has_each_tensors_own_length(scene):  # noqa: F811
    move = Ascent(stub("a"), TARGET, 1, "per_layer", 0.1).make(scene)
    start = scene.weights(None).trainable
    for name, gradient in plain(scene, TARGET.indices).items():
        torch.testing.assert_close(move[name], 0.1 * start[name].norm() * gradient / gradient.norm())
    assert move["unused.weight"].abs().sum() == 0


def test_a_per_layer_step_needs_a_tensor_with_a_length(scene):  # noqa: F811
    weights = scene.weights(None)
    for tensor in weights.trainable.values():
        tensor.zero_()
    with pytest.raises(Unavailable, match="per_layer"):
        Ascent(stub("a"), TARGET, 1, "per_layer", 0.1).make(scene)


def test_a_sign_step_is_the_first_step_of_adam(scene):  # noqa: F811
    move = Ascent(stub("a"), TARGET, 1, "sign", 0.005).make(scene)
    module = scene.model.module
    x, y = (t[list(TARGET.indices)] for t in scene.references.samples.dataset.tensors)
    before = {n: p.detach().clone() for n, p in module.named_parameters()}
    optimizer = torch.optim.Adam(module.parameters(), lr=0.005, maximize=True)
    F.cross_entropy(module.used(x), y).backward()
    optimizer.step()
    for name, parameter in module.used.named_parameters(prefix="used"):
        torch.testing.assert_close(move[name], parameter.detach() - before[name], rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize(("step", "size"), [("normalized", 0.05), ("plain", 0.5), ("per_layer", 0.05), ("sign", 0.01)])
def test_descent_lowers_the_loss_and_starts_the_other_way(scene, step, size):  # noqa: F811
    up = Ascent(stub("a"), TARGET, 1, step, size).make(scene)
    down = Ascent(stub("a"), TARGET, 1, step, size, direction="descent").make(scene)
    for name in up:
        torch.testing.assert_close(up[name], -down[name], rtol=1e-4, atol=1e-6)
    weights = scene.weights(None)
    losses = [scene.gradient(w, TARGET)[1] for w in (weights.moved(down), weights, weights.moved(up))]
    assert losses == sorted(losses)
    assert losses[0] < losses[2]


def test_an_ascent_on_the_margin_brings_the_log_odds_down(scene):  # noqa: F811
    module = scene.model.module
    x, y = (t[list(TARGET.indices)] for t in scene.references.samples.dataset.tensors)

    def margin(layer):
        p = layer(x).softmax(dim=1)[torch.arange(3), y]
        return torch.log(p / (1 - p)).mean()

    expected = torch.autograd.grad(-margin(module.used), list(module.used.parameters()))
    found = Gradient(stub("a"), TARGET, output="margin").make(scene)
    for name, gradient in zip(("used.weight", "used.bias"), expected, strict=True):
        torch.testing.assert_close(found[name], gradient)
    move = Ascent(stub("a"), TARGET, 1, "plain", 0.1, "margin").make(scene)
    for name, gradient in zip(("used.weight", "used.bias"), expected, strict=True):
        torch.testing.assert_close(move[name], 0.1 * gradient, rtol=1e-4, atol=1e-6)


def test_keys_tell_kind_output_and_direction():
    keys = {
        Ascent(stub("a"), TARGET, 2, step, 0.5, output, direction).key
        for step in ("plain", "sign", "normalized", "per_layer")
        for output in ("loss", "margin")
        for direction in ("ascent", "descent")
    }
    assert len(keys) == 16
    plain_gradient = Gradient(stub("a"), TARGET)
    assert plain_gradient.key != Gradient(stub("a"), TARGET, output="margin").key
    assert plain_gradient.key != Gradient(stub("a"), TARGET, unit=True).key


def with_state(kind, **arguments):
    """A checkpoint with the state of an optimiser that took five steps, as a capture keeps it, and the optimiser."""
    parameter = torch.nn.Parameter(torch.tensor([1.0, -2.0, 3.0]))
    optimizer = kind([parameter], lr=0.1, **arguments)
    for k in range(5):
        parameter.grad = torch.tensor([0.1, -0.02 * (k + 1), 1.0])
        optimizer.step()
    state, group = optimizer.state[parameter], optimizer.param_groups[0]
    settings = {k: v for k, v in group.items() if isinstance(v, (int, float, bool, tuple))}
    moments = {k: state[k] for k in ("exp_avg_sq", "square_avg", "step") if k in state}
    content = {
        "second_moment": {"w": moments} if moments else {},
        "settings": {"w": {"optimizer": kind.__name__, **settings}},
    }
    return replace(stub("a"), optimizer=content), parameter, optimizer


@pytest.mark.parametrize(
    ("kind", "arguments", "optimizer"),
    [
        (torch.optim.SGD, {"momentum": 0.9}, "momentum"),
        (torch.optim.SGD, {"momentum": 0.8, "nesterov": True}, "auto"),
        (torch.optim.SGD, {"momentum": 0.5, "dampening": 0.2}, "auto"),
        (torch.optim.SGD, {}, "auto"),
        (torch.optim.Adam, {"betas": (0.9, 0.99)}, "adam"),
        (torch.optim.AdamW, {"weight_decay": 0.0}, "auto"),
        (torch.optim.RMSprop, {"momentum": 0.7}, "auto"),
    ],
)
def test_a_gradient_adds_up_to_what_the_optimiser_makes_of_it(kind, arguments, optimizer):
    """Two runs of torch's optimiser from one state, one of them with a small gradient more at the next step."""
    ends = []
    push = torch.tensor([1e-4, -2e-4, 3e-4], dtype=torch.float64)
    for pushed in (False, True):
        checkpoint, parameter, real = with_state(kind, **arguments)
        parameter.data = parameter.data.double()
        for value in real.state[parameter].values():
            if isinstance(value, torch.Tensor) and value.dim():
                value.data = value.data.double()
        if pushed:
            factor = factors(checkpoint, optimizer, ["w"])["w"]
            factor = factor.clone() if isinstance(factor, torch.Tensor) else factor
        second = {k: v.clone() for k, v in real.state[parameter].items() if k in ("exp_avg_sq", "square_avg")}
        count = float(real.state[parameter].get("step", 0))
        for k in range(300):
            parameter.grad = push.clone() if pushed and k == 0 else torch.zeros(3, dtype=torch.float64)
            for key, value in second.items():  # the state held fixed
                beta = real.param_groups[0]["betas"][1] if key == "exp_avg_sq" else real.param_groups[0]["alpha"]
                real.state[parameter][key].copy_((value - (1 - beta) * parameter.grad**2) / beta)
                if key == "exp_avg_sq":
                    real.state[parameter]["step"].fill_(1e6)  # so that the first moment has no correction either
                    value_hat = value / (1 - beta**count)
                    real.state[parameter][key].copy_((value_hat - (1 - beta) * parameter.grad**2) / beta)
            real.step()
        ends.append(parameter.detach().clone())
    torch.testing.assert_close(ends[0] - ends[1], 0.1 * factor * push, rtol=1e-3, atol=0)


def test_without_the_state_the_error_names_the_argument():
    with pytest.raises(MisconfigurationException, match="optimizer_state=True"):
        factors(stub("a"), "adam", ["w"])


@pytest.mark.parametrize(("kind", "asked"), [(torch.optim.SGD, "adam"), (torch.optim.Adam, "momentum")])
def test_an_optimiser_that_does_not_fit_is_named(kind, asked):
    checkpoint = with_state(kind)[0]
    if asked == "momentum":
        with pytest.raises(MisconfigurationException, match="found Adam"):
            factors(checkpoint, asked, ["w"])
    else:
        with pytest.raises(MisconfigurationException, match="found SGD"):
            factors(checkpoint, asked, ["w"])


def test_an_optimiser_that_nobody_knows_is_refused():
    checkpoint = with_state(torch.optim.Adagrad)[0]
    with pytest.raises(MisconfigurationException, match="found Adagrad"):
        factors(checkpoint, "auto", ["w"])


def test_equal_weights_with_another_state_have_another_key():
    first, again, other = (
        with_state(torch.optim.Adam, betas=betas)[0] for betas in ((0.9, 0.99), (0.9, 0.99), (0.9, 0.9))
    )
    assert state_key(first) == state_key(again) != state_key(other)
    keys = [Gradient(c, TARGET, {"w": 0.1}, optimizer="adam").key for c in (first, again, other)]
    assert keys[0] == keys[1] != keys[2]
    assert Gradient(first, TARGET, {"w": 0.1}).key == Gradient(other, TARGET, {"w": 0.1}).key
