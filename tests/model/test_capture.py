"""What the layers' gradients do about models that they don't fit."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lightning_inf.model.capture import Uncaptured, capture
from lightning_inf.model.sample_model import SampleModel
from lightning_inf.model.weights import Weights, chosen_names
from tests.model.layers.cases import SIZE, Task, case, check, truth
from tests.model.test_trunk import Plain


class Scaled(nn.Module):
    """Uses a parameter of its own in an operation that is no layer."""

    def __init__(self, counts=True):
        super().__init__()
        self.inner = nn.Linear(3, 3)
        self.gain = nn.Parameter(torch.ones(3))
        self.counts = counts

    def forward(self, x):
        y = self.inner(x)
        return y / self.gain if self.counts else y + 0 * x.sum().detach() * self.gain.detach()


def test_a_parameter_outside_of_a_layer_is_named():
    model, weights, batch, _ = case(Scaled(), torch.randn(SIZE, 3))
    with pytest.raises(Uncaptured, match=r"body\.gain is used by .*div"):
        capture(model, weights, batch, SIZE)


def test_a_parameter_that_the_losses_do_not_depend_on_does_not_matter():
    model, weights, batch, vectors = case(Scaled(counts=False), torch.randn(SIZE, 3))
    check(capture(model, weights, batch, SIZE), truth(model.module, weights, batch), vectors)


def test_a_regulariser_beside_the_loss_does_not_matter():
    class Regularised(Task):
        def training_step(self, batch, batch_idx):
            penalty = sum(p.square().sum() for p in self.parameters())
            return super().training_step(batch, batch_idx) + 0.1 * penalty

    torch.manual_seed(0)
    module = Regularised(nn.Sequential(nn.Linear(3, 4), nn.Tanh())).double().eval()
    batch, weights = (torch.randn(SIZE, 3).double(), torch.randn(SIZE, 1).double()), Weights.of(module)
    plain = Task(module.body).eval()
    vectors = [{n: torch.randn_like(p) for n, p in weights.trainable.items()}]
    check(capture(SampleModel(module), weights, batch, SIZE), truth(plain, weights, batch), vectors * 3)


def test_batch_statistics_are_refused():
    module = Task(nn.BatchNorm1d(3, track_running_stats=False)).eval()
    with pytest.raises(Uncaptured, match="batch statistics"):
        capture(SampleModel(module), Weights.of(module), (torch.randn(SIZE, 3), torch.randn(SIZE, 1)), SIZE)


def test_writing_into_what_a_layer_has_taken_is_refused():
    def forward(body, x):
        x = x.clone()
        y = body(x)
        x += 1
        return y

    module = Task(nn.Linear(3, 2), forward).eval()
    with pytest.raises(Uncaptured, match="writes into"):
        capture(SampleModel(module), Weights.of(module), (torch.randn(SIZE, 3), torch.randn(SIZE, 1)), SIZE)


def _into_a_part(body, x):
    y = body[0](x)
    y[:, 1:] *= 2  # a view of the matrix that the layer made
    y[:, 0].relu_()
    return body[1](y)


def test_writing_into_what_a_layer_gave_for_a_sequence_leaves_its_gradient():
    model, weights, batch, vectors = case(
        nn.Sequential(nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 4)), nn.Linear(4, 2)),
        torch.randn(SIZE, 6, 3),
        _into_a_part,
    )
    check(capture(model, weights, batch, SIZE), truth(model.module, weights, batch), vectors)


def test_what_the_step_runs_without_gradients_has_none():
    def forward(body, x):
        with torch.no_grad():
            x = body[0](x)
        return body[1](x)

    model, weights, batch, vectors = case(
        nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2)), torch.randn(SIZE, 3), forward
    )
    check(capture(model, weights, batch, SIZE), truth(model.module, weights, batch), vectors)


def test_nothing_of_the_module_changes():
    model, weights, batch, _ = case(nn.Sequential(nn.Linear(3, 4), nn.ReLU(inplace=True)), torch.randn(SIZE, 3))
    before = {name: tensor.clone() for name, tensor in model.module.state_dict().items()}
    fast = torch.backends.mha.get_fastpath_enabled()
    captured = capture(model, weights, batch, SIZE)
    assert all(torch.equal(before[n], t) for n, t in model.module.state_dict().items())
    assert all(p.grad is None for p in model.module.parameters())
    assert not captured.losses.requires_grad
    assert torch.backends.mha.get_fastpath_enabled() == fast


@pytest.mark.parametrize("output", ["loss", "margin"])
def test_from_the_end_of_a_shared_trunk(output):
    torch.manual_seed(0)
    module = Plain().eval()
    weights = Weights.of(module, names=chosen_names(module, "head"))
    batch = torch.randn(SIZE, 1, 24, 24), torch.arange(SIZE) % 3
    model = SampleModel(module).giving(output)
    expected = capture(model, weights, batch, SIZE).answer(None, [None])[1][0]
    with model.trunk:
        model.share(weights, batch)
        assert model.trunk.of(weights.fixed, batch) is not None
        found = capture(model, weights, batch, SIZE)
        assert model.trunk.refused is None
    torch.testing.assert_close(found.answer(None, [None])[1][0], expected, rtol=1e-5, atol=1e-12)
    assert float(expected.min()) > 0


def test_the_margin_and_class_weights():
    class Classes(Task):
        def training_step(self, batch, batch_idx):
            x, y = batch
            return F.cross_entropy(self.body(x), y, weight=torch.tensor([1.0, 5.0, 0.5], dtype=x.dtype))

    torch.manual_seed(0)
    module = Classes(nn.Sequential(nn.Linear(4, 6), nn.ReLU(inplace=True), nn.Linear(6, 3))).double().eval()
    x, y = torch.randn(SIZE, 4).double(), torch.arange(SIZE) % 3
    weights, model = Weights.of(module), SampleModel(module)
    for output, loss in (
        ("loss", lambda z, t: F.cross_entropy(z, t, reduction="none")[0] * [1.0, 5.0, 0.5][int(t)]),
        ("margin", lambda z, t: -(z[0, t] - z[0, torch.arange(3) != t].logsumexp(0)).squeeze()),
    ):
        exact = []
        for i in range(SIZE):
            grads = torch.autograd.grad(loss(module.body(x[i : i + 1]), y[i : i + 1]), list(module.parameters()))
            exact.append(sum(g.square().sum() for g in grads))
        found = capture(model.giving(output), weights, (x, y), SIZE).answer(None, [None])[1][0]
        torch.testing.assert_close(found, torch.stack(exact), rtol=1e-9, atol=1e-12)
