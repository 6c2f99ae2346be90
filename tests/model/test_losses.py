"""Each loss call, taken apart, against a loop over its samples."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import grad, jvp, vmap

from lightning_inf.model.losses import OBSERVED, LossCall, take_apart
from lightning_inf.model.observe import LossObserver, step_loss

B, C, T = 6, 4, 5
Case = tuple[Callable[..., Tensor], Tensor, Tensor, dict[str, Any]]
WEIGHT = torch.tensor([0.5, 2.0, 1.0, 3.0])


def ignored(target: Tensor, value: int = -100) -> Tensor:
    """Ignore all of sample 0, and one position of sample 3 where it has several."""
    target = target.clone()
    target[0] = value
    if target.dim() > 1:
        target[3].view(-1)[0] = value
    return target


def make_cases() -> dict[str, Case]:
    make = torch.Generator().manual_seed(0)
    rand = lambda *shape: torch.randn(*shape, generator=make, dtype=torch.float64)  # noqa: E731
    index = lambda *shape: torch.randint(0, C, shape, generator=make)  # noqa: E731
    weight = WEIGHT.double()
    flat, steps, image = (rand(B, C), index(B)), (rand(B, C, T), index(B, T)), (rand(B, C, 3, 2), index(B, 3, 2))
    ce, nll = F.cross_entropy, F.nll_loss
    cases: dict[str, Case] = {
        "ce": (ce, *flat, {}),
        "ce weight": (ce, *flat, {"weight": weight}),
        "ce smoothing": (ce, *flat, {"label_smoothing": 0.2}),
        "ce weight smoothing": (ce, *flat, {"weight": weight, "label_smoothing": 0.2}),
        "ce ignore": (ce, flat[0], ignored(flat[1]), {}),
        "ce ignore 2": (ce, flat[0], ignored(flat[1], 2), {"ignore_index": 2}),
        "ce ignore 255": (ce, flat[0], ignored(flat[1], 255), {"ignore_index": 255, "weight": weight}),
        "ce ignore weight smoothing": (ce, flat[0], ignored(flat[1]), {"weight": weight, "label_smoothing": 0.1}),
        "ce sequence": (ce, *steps, {}),
        "ce sequence ignore weight": (ce, steps[0], ignored(steps[1]), {"weight": weight}),
        "ce segmentation": (ce, *image, {}),
        "ce segmentation ignore weight smoothing": (
            ce,
            image[0],
            ignored(image[1]),
            {"weight": weight, "label_smoothing": 0.1},
        ),
        "ce soft": (ce, flat[0], rand(B, C).softmax(1), {}),
        "ce soft weight smoothing": (ce, flat[0], rand(B, C).softmax(1), {"weight": weight, "label_smoothing": 0.1}),
        "ce soft sequence": (ce, steps[0], rand(B, C, T).softmax(1), {}),
        "nll": (nll, flat[0].log_softmax(1), flat[1], {}),
        "nll weight ignore": (nll, flat[0].log_softmax(1), ignored(flat[1]), {"weight": weight}),
        "nll segmentation": (nll, image[0].log_softmax(1), image[1], {"weight": weight}),
    }
    bits = (rand(B, C) > 0).double()
    for name, function, x in (
        ("bcel", F.binary_cross_entropy_with_logits, rand(B, C)),
        ("bce", F.binary_cross_entropy, rand(B, C).sigmoid()),
    ):
        cases[f"{name} binary"] = (function, x[:, 0], bits[:, 0], {})
        cases[f"{name} column"] = (function, x[:, :1], bits[:, :1], {})
        cases[f"{name} labels"] = (function, x, bits, {})
        cases[f"{name} weight of labels"] = (function, x, bits, {"weight": weight})
    cases["bcel pos_weight"] = (F.binary_cross_entropy_with_logits, rand(B, C), bits, {"pos_weight": weight})
    for name, function, kwargs in (
        ("mse", F.mse_loss, {}),
        ("l1", F.l1_loss, {}),
        ("smooth l1", F.smooth_l1_loss, {"beta": 0.5}),
        ("huber", F.huber_loss, {"delta": 0.5}),
    ):
        cases[name] = (function, rand(B), rand(B), kwargs)
        cases[f"{name} outputs"] = (function, rand(B, 3), rand(B, 3), kwargs)
        cases[f"{name} image"] = (function, rand(B, 2, 3, 2), rand(B, 2, 3, 2), kwargs)
    return cases


CASES = make_cases()


def loop(case: Case, reduction: str) -> Tensor:
    """Each sample's loss by a call of its own: weighted sum over its positions, over how many count."""
    function, x, y, kwargs = case
    losses = []
    for i in range(len(x)):
        total = function(x[i : i + 1], y[i : i + 1], **kwargs, reduction="sum")
        positions = function(x[i : i + 1], y[i : i + 1], **kwargs, reduction="none").numel()
        if not y.is_floating_point():
            positions = int((y[i] != kwargs.get("ignore_index", -100)).sum())
        losses.append(total if reduction == "sum" else total / max(positions, 1))
    return torch.stack(losses)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("name", CASES)
def test_each_samples_loss_is_that_of_a_loop(name: str, reduction: str) -> None:
    case = function, x, y, kwargs = CASES[name]
    call = take_apart(function, (x, y), {**kwargs, "reduction": reduction})
    torch.testing.assert_close(call.loss, loop(case, reduction), rtol=1e-12, atol=1e-14)
    assert torch.equal(call.reduced, function(x, y, **kwargs, reduction=reduction))
    assert call.name == OBSERVED[function]
    if reduction != "none":
        torch.testing.assert_close(call.total, call.reduced, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("name", CASES)
def test_ignored_samples_have_no_loss_and_do_not_count(name: str) -> None:
    function, x, y, kwargs = CASES[name]
    call = take_apart(function, (x, y), kwargs)
    if "ignore" in name:
        assert call.loss[0] == 0
        assert call.count[0] == 0
        assert call.divisor[0] == 0
    assert bool((call.count[1:] > 0).all())


@pytest.mark.parametrize("name", CASES)
def test_derivatives_of_the_samples_losses_are_those_of_a_loop(name: str) -> None:
    case = function, x, y, kwargs = CASES[name]
    if function is F.binary_cross_entropy:
        x = x.clamp(0.1, 0.9)
        case = (function, x, y, kwargs)
    expected = torch.zeros_like(x)
    for i in range(len(x)):
        leaf = x.clone().requires_grad_()
        expected[i] = torch.autograd.grad(loop((function, leaf, y, kwargs), "mean")[i], leaf)[0][i]
    gradients = vmap(grad(lambda xi, yi: take_apart(function, (xi[None], yi[None]), kwargs).loss[0]))(x, y)
    torch.testing.assert_close(gradients, expected, rtol=1e-9, atol=1e-12)
    tangent = torch.randn(x.shape, generator=torch.Generator().manual_seed(3), dtype=x.dtype)
    value, along = jvp(lambda z: take_apart(function, (z, y), kwargs).loss, (x,), (tangent,))
    torch.testing.assert_close(value, loop(case, "mean"), rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(along, (expected * tangent).reshape(len(x), -1).sum(1), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("function", [F.mse_loss, F.l1_loss, F.huber_loss], ids=lambda f: f.__name__)
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_a_weighted_regression_reproduces_the_users_value(function: Callable[..., Tensor], reduction: str) -> None:
    x, y, weight = torch.randn(B, 3), torch.randn(B, 3), torch.rand(B, 3) + 0.1
    call = take_apart(function, (x, y), {"weight": weight, "reduction": reduction})
    torch.testing.assert_close(call.total, function(x, y, weight=weight, reduction=reduction))
    each = (function(x, y, reduction="none") * weight).sum(1)
    torch.testing.assert_close(call.loss, each / 3 if reduction == "mean" else each)


@pytest.mark.parametrize(
    ("legacy", "meant"), [({"size_average": False}, "sum"), ({"reduce": False}, "none"), ({}, "mean")]
)
@pytest.mark.filterwarnings("ignore:size_average and reduce args will be deprecated")
def test_legacy_reductions_are_read(legacy: dict[str, bool], meant: str) -> None:
    x, y = torch.randn(B, C), torch.arange(B) % C
    call = take_apart(F.cross_entropy, (x, y), legacy)
    assert call.reduction == meant
    torch.testing.assert_close(call.reduced, F.cross_entropy(x, y, reduction=meant))
    torch.testing.assert_close(call.loss, F.cross_entropy(x, y, reduction="none"))


def test_the_users_error_stays_the_users() -> None:
    with pytest.raises((RuntimeError, ValueError)) as expected:
        F.cross_entropy(torch.zeros(3, 2), torch.zeros(4, dtype=torch.long))
    with pytest.raises(expected.type) as found:
        take_apart(F.cross_entropy, (torch.zeros(3, 2), torch.zeros(4, dtype=torch.long)), {})
    assert str(found.value) == str(expected.value)


def test_a_target_out_of_range_stays_an_index_error() -> None:
    with pytest.raises(IndexError, match="out of bounds"):
        take_apart(F.cross_entropy, (torch.zeros(3, 2), torch.tensor([0, 1, 7])), {})


def test_a_sample_without_batch_dimension_is_a_batch_of_one() -> None:
    call = take_apart(F.mse_loss, (torch.tensor(3.0), torch.tensor(1.0)), {})
    assert call.loss.tolist() == [4.0]
    assert call.total.item() == 4.0


@pytest.mark.parametrize(
    ("name", "classifies"),
    [
        ("ce", True),
        ("ce ignore", True),
        ("nll", True),
        ("bcel binary", True),
        ("bcel column", True),
        ("ce soft", False),
        ("ce sequence", False),
        ("ce segmentation", False),
        ("bcel labels", False),
        ("mse", False),
    ],
)
def test_what_is_a_single_label_classification(name: str, classifies: bool) -> None:
    function, x, y, kwargs = CASES[name]
    found = take_apart(function, (x, y), kwargs).classification()
    assert (found is not None) == classifies
    if found is not None:
        logits, target = found
        # Logits and target are those of the loss: their cross-entropy is the samples' loss.
        expected = F.cross_entropy(logits, target, reduction="none")
        torch.testing.assert_close(expected, take_apart(function, (x, y), kwargs).loss)


def test_soft_binary_targets_are_no_classes() -> None:
    call = take_apart(F.binary_cross_entropy_with_logits, (torch.zeros(3), torch.tensor([0.0, 0.3, 1.0])), {})
    assert call.classification() is None


def test_the_observer_hands_the_user_their_own_value() -> None:
    x, y = torch.randn(B, C, requires_grad=True), torch.arange(B) % C
    with LossObserver() as observer:
        loss = torch.nn.CrossEntropyLoss()(x, y)
        unrelated = x.square().mean()
    assert torch.equal(loss, F.cross_entropy(x, y))
    assert torch.equal(unrelated, x.square().mean())
    assert [call.name for call in observer.calls] == ["cross_entropy"]
    assert torch.autograd.grad(loss, x)[0].shape == x.shape


def test_the_observer_replaces_the_reduction_on_request() -> None:
    x, y = torch.randn(B, C), torch.arange(B) % C
    with LossObserver(replace=True) as observer:
        loss = F.cross_entropy(x, y)
    torch.testing.assert_close(loss, F.cross_entropy(x, y, reduction="none"))
    assert isinstance(observer.calls[0], LossCall)


@pytest.mark.parametrize(
    ("output", "found"),
    [(torch.tensor(2.0), 2.0), ({"loss": torch.tensor(3.0)}, 3.0), ({"a": 1}, None), (None, None), (1.5, None)],
)
def test_the_loss_in_what_a_step_returns(output: Any, found: float | None) -> None:
    loss = step_loss(output)
    assert (None if loss is None else loss.item()) == found
