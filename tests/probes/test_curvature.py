"""(H + damping)^-1 g against closed forms, dense matrices and curvlinops."""

import sys

import curvlinops
import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import nn

from lightning_inf.data.references import Target
from lightning_inf.probes.conjugate_gradients import ConjugateGradients
from lightning_inf.probes.curvature import Preconditioner
from lightning_inf.probes.diagonal import DiagonalFisher, fisher_diagonal
from lightning_inf.probes.gauss_newton import GaussNewton
from lightning_inf.probes.inverse import InverseGradient
from lightning_inf.probes.kronecker import EKFAC
from lightning_inf.probes.lissa import LiSSA
from lightning_inf.probes.scene import Unavailable
from tests.checkpoint_stub import stub
from tests.probes.curved import (
    Fit,
    curvature,
    data,
    explicit_gauss_newton,
    flat,
    mlp,
    prepared,
    random_vector,
    scene,
)

EXACT = ConjugateGradients(iterations=500, tolerance=1e-10)
SOLVERS = [ConjugateGradients(), LiSSA(depth=20), EKFAC(), EKFAC(eigenvalues="kronecker"), DiagonalFisher()]


def solve(solver, module, x, y, vector, **arguments):
    return flat(prepared(solver, curvature(module, x, y, **arguments))(vector))


def cosine(left, right):
    return float(left @ right / (left.norm() * right.norm()))


def dense_solution(module, x, y, vector, damping):
    matrix = explicit_gauss_newton(module, x, y)
    return torch.linalg.solve(matrix + damping * torch.eye(len(matrix), dtype=matrix.dtype), flat(vector))


# The matrix itself


@pytest.mark.parametrize(
    ("loss", "arguments"),
    [
        (F.cross_entropy, {}),
        (F.cross_entropy, {"label_smoothing": 0.1}),
        (F.mse_loss, {}),
        (F.mse_loss, {"reduction": "sum"}),
        (F.binary_cross_entropy_with_logits, {}),
        (F.huber_loss, {"delta": 0.7}),
    ],
)
def test_products_are_those_of_the_dense_matrix(loss, arguments):
    module = Fit(mlp(), loss, **arguments)
    x, y = data()
    y = y if loss is F.cross_entropy else F.one_hot(y, 3).double()
    matrix, vector = GaussNewton(curvature(module, x, y, batch_size=7)), random_vector(module)
    expected = explicit_gauss_newton(module, x, y) @ flat(vector)
    torch.testing.assert_close(matrix.product(matrix.flat(vector)), expected, rtol=1e-9, atol=1e-12)


def test_class_weights_and_ignored_targets_count_as_in_the_loss():
    weight = torch.tensor([1.0, 3.0, 0.5], dtype=torch.float64)
    x, y = data()
    plain = Fit(mlp(), F.cross_entropy)
    # A sample's loss is its weight times its own cross-entropy, and zero where it is ignored.
    parts = [weight[c] * (y == c).double().mean() * explicit_gauss_newton(plain, x[y == c], y[y == c]) for c in (1, 2)]
    y = torch.where(y == 0, -100, y)
    matrix = GaussNewton(curvature(Fit(mlp(), F.cross_entropy, weight=weight), x, y))
    vector = matrix.flat(random_vector(plain))
    torch.testing.assert_close(matrix.product(vector), sum(parts) @ vector)


def test_log_probabilities_have_the_curvature_of_cross_entropy():
    x, y = data()
    logits = Fit(mlp())
    logs = Fit(nn.Sequential(*mlp(), nn.LogSoftmax(dim=1)), F.nll_loss)
    left, right = (GaussNewton(curvature(module, x, y)) for module in (logits, logs))
    vector = left.flat(random_vector(logits))
    torch.testing.assert_close(left.product(vector), right.product(vector))


def test_products_are_those_of_curvlinops():
    module, (x, y) = Fit(mlp()), data()
    theirs = curvlinops.GGNLinearOperator(
        module.net, nn.CrossEntropyLoss(), list(module.net.parameters()), [(x[:16], y[:16]), (x[16:], y[16:])]
    )
    matrix, vector = GaussNewton(curvature(module, x, y)), random_vector(module)
    torch.testing.assert_close(matrix.product(matrix.flat(vector)), flat_list(theirs @ list(vector.values())))


def flat_list(tensors):
    return torch.cat([t.reshape(-1) for t in tensors])


def test_eigenvalues():
    module, (x, y) = Fit(mlp()), data()
    matrix, dense = GaussNewton(curvature(module, x, y)), explicit_gauss_newton(module, x, y)
    assert matrix.largest_eigenvalue() == pytest.approx(float(torch.linalg.eigvalsh(dense)[-1]), rel=1e-2)
    assert matrix.mean_eigenvalue() == pytest.approx(float(dense.trace()) / len(dense), rel=0.3)


def test_the_part_is_seeded_and_single_batches_are_right_on_average():
    module, (x, y) = Fit(mlp()), data(30)
    matrix = GaussNewton(curvature(module, x, y, subset=20, batch_size=8))  # batches of 8, 8 and 4
    part = matrix.curvature.training.part(20)
    assert len(part) == 20
    assert part == curvature(module, x, y).training.part(20)
    vector = matrix.flat(random_vector(module))
    expected = explicit_gauss_newton(module, x[part], y[part]) @ vector
    torch.testing.assert_close(matrix.product(vector), expected)
    torch.testing.assert_close(sum(matrix.product(vector, [b]) for b in range(3)) / 3, expected)


# Conjugate gradients and LiSSA


def test_ridge_regression_in_closed_form():
    x, _ = data(40)
    y = torch.randn(40, 1, dtype=torch.float64)
    module = Fit(nn.Linear(5, 1, bias=False).double(), F.mse_loss)
    found = solve(EXACT, module, x, y, {"net.weight": x[:1]}, damping=0.2)
    closed = torch.linalg.solve(2 * x.T @ x / 40 + 0.2 * torch.eye(5, dtype=torch.float64), x[0])
    torch.testing.assert_close(found, closed, rtol=1e-8, atol=1e-10)


def test_logistic_regression_in_closed_form():
    x, y = data(40, classes=2)
    module = Fit(nn.Sequential(nn.Linear(5, 1, bias=False).double(), nn.Flatten(0)), F.binary_cross_entropy_with_logits)
    p = torch.sigmoid(module.net(x)).detach()
    found = solve(EXACT, module, x, y.double(), {"net.0.weight": x[:1]}, damping=0.01)
    explicit = (x * (p * (1 - p))[:, None]).T @ x / 40 + 0.01 * torch.eye(5, dtype=torch.float64)
    torch.testing.assert_close(found, torch.linalg.solve(explicit, x[0]), rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("tolerance", [1e-2, 1e-5])
def test_conjugate_gradients_stop_at_the_tolerance(tolerance):
    module, (x, y) = Fit(mlp()), data()
    vector = random_vector(module)
    found = solve(ConjugateGradients(500, tolerance), module, x, y, vector, damping=1e-2)
    matrix = explicit_gauss_newton(module, x, y)
    residual = (matrix @ found + 1e-2 * found - flat(vector)).norm() / flat(vector).norm()
    assert 0 < residual <= tolerance
    exact = dense_solution(module, x, y, vector, 1e-2)
    assert (found - exact).norm() / exact.norm() <= tolerance * torch.linalg.cond(
        matrix + 1e-2 * torch.eye(len(matrix))
    )


def test_conjugate_gradients_in_single_precision():
    """Weights in fp32, vectors in fp64: as good as the products."""
    x, y = data(dtype=torch.float32)
    module = Fit(mlp(torch.float32))
    vector = random_vector(module)
    found = solve(ConjugateGradients(500, 1e-6), module, x, y, vector, damping=1e-3).double()
    module, vector = module.double(), {n: v.double() for n, v in vector.items()}
    exact = dense_solution(module, x.double(), y, vector, 1e-3)
    assert (found - exact).norm() / exact.norm() < 1e-3


def test_lissa_converges_to_conjugate_gradients():
    module, (x, y) = Fit(mlp()), data()
    vector = random_vector(module)
    exact = solve(EXACT, module, x, y, vector, damping=0.05)
    errors = []
    for depth in (10, 100, 400):
        found = solve(LiSSA(depth), module, x, y, vector, damping=0.05, batch_size=32)
        errors.append(float((found - exact).norm() / exact.norm()))
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < 1e-4
    # Over mini-batches it scatters around the answer, the less the more often it is repeated.
    scattered = solve(LiSSA(400, repeats=8), module, x, y, vector, damping=0.05, batch_size=8)
    assert cosine(scattered, exact) > 0.99


def test_lissa_enlarges_a_scale_that_diverges():
    module, (x, y) = Fit(mlp()), data()
    vector = random_vector(module)
    largest = float(torch.linalg.eigvalsh(explicit_gauss_newton(module, x, y))[-1])
    found = solve(LiSSA(2000, scale=largest / 10), module, x, y, vector, damping=0.05, batch_size=32)
    exact = dense_solution(module, x, y, vector, 0.05)
    assert (found - exact).norm() / exact.norm() < 1e-3
    with pytest.raises(Unavailable, match=r"LiSSA diverged at every scale from .* use a larger damping"):
        solve(LiSSA(2000, scale=largest / 1000), module, x, y, vector, damping=0.05)


# Diagonal and Kronecker factors


def explicit_gradients(module, x, y):
    parameters = list(module.parameters())
    losses = [module.loss(module.net(a[None]), b[None]) for a, b in zip(x, y, strict=True)]
    return torch.stack([flat_list(torch.autograd.grad(loss, parameters)) for loss in losses])


def test_diagonal_fisher_is_the_mean_squared_gradient():
    module, (x, y) = Fit(mlp()), data()
    vector, squares = random_vector(module), explicit_gradients(module, x, y).square().mean(dim=0)
    found = solve(DiagonalFisher(), module, x, y, vector, damping=1e-3, batch_size=7)
    torch.testing.assert_close(found, flat(vector) / (squares + 1e-3))
    tenth = solve(DiagonalFisher(), module, x, y, vector)
    torch.testing.assert_close(tenth, flat(vector) / (squares + squares.mean() / 10))


def test_diagonal_fisher_without_batching_rules():
    class Looks(nn.Module):
        def forward(self, x):
            return x if float(x.sum()) < 1e9 else -x  # `float` can't be taken under vmap

    x, y = data()
    plain, looking = Fit(mlp()), Fit(nn.Sequential(*mlp(), Looks()))
    names = [n for n, _ in plain.named_parameters()]
    left, right = (fisher_diagonal(curvature(m, x, y), names) for m in (plain, looking))
    torch.testing.assert_close(left, right)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("eigenvalues", ["corrected", "kronecker"])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_kronecker_factors_are_exact_for_linear_regression(bias, eigenvalues, reduction):
    """The Hessian of squared errors is one multiple of the identity for all samples: G = 2 I (x) mean(a a^T)."""
    x, _ = data(20)
    y = torch.randn(20, 3, dtype=torch.float64)
    module = Fit(nn.Linear(5, 3, bias=bias).double(), F.mse_loss, reduction=reduction)
    vector = random_vector(module)
    found = solve(EKFAC(eigenvalues), module, x, y, vector, damping=0.1)
    torch.testing.assert_close(found, dense_solution(module, x, y, vector, 0.1))


def test_kronecker_factors_are_exact_for_a_single_sample():
    """Its matrix is a Kronecker product by itself: (diag p - p p^T) (x) a a^T."""
    x, y = data(1)
    module = Fit(nn.Linear(5, 3).double())
    vector = random_vector(module)
    for eigenvalues in ("corrected", "kronecker"):
        found = solve(EKFAC(eigenvalues), module, x, y, vector, damping=0.1)
        torch.testing.assert_close(found, dense_solution(module, x, y, vector, 0.1))


def test_ekfac_is_that_of_curvlinops():
    module, (x, y) = Fit(mlp()), data()
    vector = random_vector(module)
    operator = curvlinops.EKFACLinearOperator(
        module.net,
        nn.CrossEntropyLoss(),
        list(module.net.parameters()),
        [(x[:20], y[:20]), (x[20:], y[20:])],
        fisher_type="type-2",
        separate_weight_and_bias=False,
    )
    inverse = curvlinops.KFACInverseLinearOperator(operator, damping=0.02, use_exact_damping=True)
    found = solve(EKFAC(), module, x, y, vector, damping=0.02, batch_size=7)
    torch.testing.assert_close(found, flat_list(inverse @ list(vector.values())))


@pytest.mark.parametrize("eigenvalues", ["corrected", "kronecker"])
def test_ekfac_points_where_the_dense_inverse_does(eigenvalues):
    """Against the inverse of each layer's block almost exactly; against the whole, as far as the blocks themselves can."""
    x, _ = data(160)
    y = (x[:, :3] + torch.randn(160, 3, dtype=torch.float64) / 2).argmax(dim=1)
    module = Fit(mlp(sizes=(5, 8, 3)))
    gradient = torch.autograd.grad(F.cross_entropy(module.net(x[128:]), y[128:]), list(module.parameters()))
    vector = dict(zip((n for n, _ in module.named_parameters()), gradient, strict=True))
    matrix, identity, first = explicit_gauss_newton(module, x[:128], y[:128]), torch.eye(75).double(), 48
    blocks = torch.block_diag(matrix[:first, :first], matrix[first:, first:])
    whole, by_layer = (torch.linalg.solve(m + 0.02 * identity, flat(vector)) for m in (matrix, blocks))
    found = solve(EKFAC(eigenvalues), module, x[:128], y[:128], vector, damping=0.02)
    assert cosine(found, by_layer) > 0.97
    assert cosine(found, whole) > cosine(by_layer, whole) - 0.02
    assert cosine(found, whole) > cosine(flat(vector), whole) + 0.1


def test_sampled_labels_approach_the_exact_expectation():
    module, (x, y) = Fit(mlp()), data(400)
    vector = random_vector(module)
    found = [solve(EKFAC(labels=labels), module, x, y, vector, damping=0.05) for labels in ("exact", "sampled")]
    assert cosine(*found) > 0.97


class Convolutional(nn.Module):
    """Convolutions, BatchNorm, in-place ReLU, a grouped convolution, a layer that nothing depends on."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(inplace=True))
        self.grouped = nn.Conv2d(4, 4, 3, groups=2, padding=1)
        self.down = nn.Sequential(nn.Conv2d(4, 4, 3, stride=2, bias=False), nn.BatchNorm2d(4), nn.ReLU(inplace=True))
        self.head = nn.Linear(4, 3)
        self.idle = nn.Linear(4, 3)

    def forward(self, x):
        return self.head(self.down(self.grouped(self.stem(x))).mean(dim=(2, 3)))


@pytest.mark.parametrize("solver", SOLVERS, ids=lambda s: f"{type(s).__name__}-{getattr(s, 'eigenvalues', '')}")
def test_convolutions_and_batch_norm(solver):
    torch.manual_seed(0)
    x, y = torch.randn(16, 2, 6, 6), torch.randint(0, 3, (16,))
    module = Fit(Convolutional())
    module.net.train()(torch.randn(16, 2, 6, 6))  # running statistics that are not those of the data
    before = {n: t.clone() for n, t in module.state_dict().items()}
    gradient = torch.autograd.grad(
        F.cross_entropy(module.eval().net(x), y), list(module.parameters()), allow_unused=True
    )
    vector = {
        n: torch.zeros_like(p) if g is None else g
        for (n, p), g in zip(module.named_parameters(), gradient, strict=True)
    }
    found = prepared(solver, curvature(module, x, y))(vector)
    assert list(found) == list(vector)
    assert all(found[n].isfinite().all() and found[n].shape == t.shape for n, t in vector.items())
    assert found["net.idle.weight"].abs().sum() == 0
    assert float(flat(found) @ flat(vector)) > 0  # positive definite
    assert all(torch.equal(before[n], t) for n, t in module.state_dict().items())
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in module.modules())


def test_conjugate_gradients_with_batch_norm_are_exact():
    torch.manual_seed(0)
    x, y = torch.randn(16, 2, 6, 6).double(), torch.randint(0, 3, (16,))
    module = Fit(Convolutional().double()).eval()
    del module.net.idle
    vector = random_vector(module)
    found = solve(EXACT, module, x, y, vector, damping=0.01)
    torch.testing.assert_close(found, dense_solution(module, x, y, vector, 0.01), rtol=1e-5, atol=1e-7)


def test_shared_layers_have_a_diagonal():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner, self.head = nn.Linear(5, 5), nn.Linear(5, 3)

        def forward(self, x):
            return self.head(self.inner(torch.tanh(self.inner(x))))

    torch.manual_seed(0)
    module, (x, y) = Fit(Twice().double()), data()
    vector = random_vector(module)
    found = prepared(EKFAC(), curvature(module, x, y, damping=0.1))(vector)
    diagonal = fisher_diagonal(curvature(module, x, y), ["net.inner.weight"])["net.inner.weight"]
    torch.testing.assert_close(found["net.inner.weight"], vector["net.inner.weight"] / (diagonal + 0.1))


def test_frozen_parameters_have_no_part():
    module, (x, y) = Fit(mlp()), data()
    module.net[0].weight.requires_grad_(False)
    for solver in SOLVERS:
        found = prepared(solver, curvature(module, x, y, damping=0.1))(random_vector(module))
        assert set(found) == {"net.0.bias", "net.2.weight", "net.2.bias"}


# What can't be had


class TwoTerms(LightningModule):
    def __init__(self):
        super().__init__()
        self.net = nn.Linear(5, 3).double()

    def training_step(self, batch, batch_idx):
        z = self.net(batch[0])
        return F.cross_entropy(z, batch[1]) + F.mse_loss(z, torch.zeros_like(z))


class Scaled(TwoTerms):
    def training_step(self, batch, batch_idx):
        return 2 * F.cross_entropy(self.net(batch[0]), batch[1])


@pytest.mark.parametrize("solver", SOLVERS[:4], ids=lambda s: type(s).__name__)
@pytest.mark.parametrize(
    ("module", "reason"),
    [
        (TwoTerms, "exactly one call of a loss of torch.nn.functional in training_step, found 2"),
        (Scaled, "something is added to it or multiplied with it"),
    ],
)
def test_losses_that_are_no_single_call_are_refused(solver, module, reason):
    with pytest.raises(Unavailable, match=f"{reason}.*DiagonalFisher"):
        prepared(solver, curvature(module(), *data(), mode="replaced"))


def test_the_diagonal_takes_any_loss():
    module, (x, y) = Scaled(), data()
    vector = random_vector(module)
    found = solve(DiagonalFisher(), module, x, y, vector, damping=1e-3, mode="replaced")
    plain = Fit(nn.Linear(5, 3).double())
    plain.net.load_state_dict(module.net.state_dict())
    squares = explicit_gradients(plain, x, y).square().mean(dim=0)
    torch.testing.assert_close(found, flat(vector) / (4 * squares + 1e-3))


def test_other_losses_are_refused():
    x, _ = data()
    module = Fit(mlp(), F.l1_loss)
    with pytest.raises(Unavailable, match=r"expected a loss function among cross_entropy.*found l1_loss"):
        GaussNewton(curvature(module, x, torch.zeros(32, 3, dtype=torch.float64)))
    weighted, (x, y) = Fit(mlp(), weight=torch.ones(3, dtype=torch.float64)), data()
    with pytest.raises(Unavailable, match=r"no weight= of cross_entropy; use solver ConjugateGradients"):
        prepared(EKFAC(), curvature(weighted, x, y))
    with pytest.raises(Unavailable, match=r"no ignored targets"):
        prepared(EKFAC(), curvature(Fit(mlp()), x, torch.where(y == 0, -100, y)))


def test_operators_without_a_forward_derivative_are_named():
    class Backward(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, grad):
            return grad

    class Only(nn.Module):
        def forward(self, x):
            return Backward.apply(x)

    module, (x, y) = Fit(nn.Sequential(mlp(), Only())), data()
    with pytest.raises(Unavailable, match=r"no forward-mode derivative.*EKFAC or DiagonalFisher"):
        prepared(EXACT, curvature(module, x, y))


def test_arguments_out_of_range():
    with pytest.raises(ValueError, match=r"damping=0: expected a number above 0"):
        Preconditioner(EXACT, damping=0)
    with pytest.raises(ValueError, match=r"subset=0"):
        Preconditioner(EXACT, subset=0)
    for wrong in (lambda: ConjugateGradients(0), lambda: LiSSA(scale=-1.0), lambda: EKFAC(labels="given")):
        with pytest.raises(ValueError, match="expected"):
            wrong()


def test_ekfac_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "curvlinops", None)
    monkeypatch.delitem(sys.modules, "curvlinops")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MisconfigurationException, match=r"pip install 'lightning_inf\[curvature\]'"):
        EKFAC()


# The direction


def counting(solver, calls):
    class Counting(type(solver)):
        def statistics(self, curvature):
            calls.append(curvature)
            return super().statistics(curvature)

    return Counting()


def test_the_direction_is_the_solution_over_n():
    module, (x, y) = Fit(mlp()), data(40)
    here = scene(module, x[:32], y[:32], x[32:], y[32:])
    target = Target((0, 3), "t")
    found = InverseGradient(stub("a"), target, Preconditioner(EXACT, 0.01)).make(here)
    gradient, _ = here.gradient(here.weights(None), target)
    torch.testing.assert_close(flat(found), dense_solution(module, x[:32], y[:32], gradient, 0.01) / 32)


def test_the_curvature_is_taken_once_a_checkpoint():
    module, (x, y) = Fit(mlp()), data(40)
    here, calls = scene(module, x[:32], y[:32], x[32:], y[32:]), []
    twin = counting(DiagonalFisher(), calls)
    for name in ("a", "b", "a"):
        for index in range(3):
            InverseGradient(stub(name), Target((index,), str(index)), Preconditioner(twin)).make(here)
    assert len(calls) == 2
    InverseGradient(stub("a"), Target((0,), "0"), Preconditioner(twin, damping=1.0)).make(here)
    assert len(calls) == 3


def test_a_refusal_is_remembered():
    x, y = data(40)
    here, calls = scene(TwoTerms(), x[:32], y[:32], x[32:], y[32:]), []
    here.model.mode = "replaced"
    solver = counting(ConjugateGradients(), calls)
    for _ in range(2):
        with pytest.raises(Unavailable, match="found 2"):
            InverseGradient(stub("a"), Target((0,), "t"), Preconditioner(solver)).make(here)
    assert len(calls) == 1
    here.training = None
    with pytest.raises(Unavailable, match="no training samples"):
        InverseGradient(stub("b"), Target((0,), "t"), Preconditioner(solver)).make(here)


def test_keys_tell_what_the_vector_depends_on():
    base = InverseGradient(stub("a"), Target((0,), "t"), Preconditioner(ConjugateGradients(), 0.1, 100))
    others = [
        InverseGradient(stub("b"), Target((0,), "t"), Preconditioner(ConjugateGradients(), 0.1, 100)),
        InverseGradient(stub("a"), Target((0,), "u"), Preconditioner(ConjugateGradients(), 0.1, 100)),
        InverseGradient(stub("a"), Target((0,), "t"), Preconditioner(ConjugateGradients(9), 0.1, 100)),
        InverseGradient(stub("a"), Target((0,), "t"), Preconditioner(ConjugateGradients(), None, 100)),
        InverseGradient(stub("a"), Target((0,), "t"), Preconditioner(ConjugateGradients(), 0.1, 99)),
        *(InverseGradient(stub("a"), Target((0,), "t"), Preconditioner(s, 0.1, 100)) for s in SOLVERS[1:]),
    ]
    assert len({base.key, *(other.key for other in others)}) == 10
    again = InverseGradient(stub("a"), Target((0,), "t"), Preconditioner(ConjugateGradients(), 0.1, 100))
    assert again.key == base.key
