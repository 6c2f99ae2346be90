"""The sign table of the mirrored influence paper against exact retraining of logistic regression.

Row by row, for a sample that helps the references:

- Eq. 1, 2, 3, 4, 5, 6 and 14, and I_up,loss of Koh & Liang (DataInf's, too), are negative;
- Eq. 7, Algorithm 1 by ascent (Eq. 9 without the division), and the rise of the loss when the sample is left out
  (torch-influence) are positive; Algorithm 1 by descent is negative as it stands;
- the absolute value of the authors' notebook is large for helpful and harmful samples alike;
- TRAK and turn-over dropout are positive, as are captum, dattri and kronfluence, which ours equal in
  ``test_tracin_captum``, ``test_influence_function``, ``test_dattri`` and ``test_kronfluence``; OGA's formula is negative,
  though its text calls positive values beneficial.

Ours are positive throughout.
"""

import logging

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch import LightningModule
from scipy.stats import spearmanr
from sklearn.linear_model import LogisticRegression
from torch import nn
from torch.func import grad, hessian, jacrev
from torch.utils.data import DataLoader, TensorDataset
from trak import TRAKer
from trak.projectors import NoOpProjector

from lightning_inf import ConjugateGradients, ForwardINF, InfluenceCallback, InfluenceFunction, TracIn, influence
from tests.runs import quiet, scores

SAMPLES, REFERENCES, L2 = 60, 12, 0.05


class Logistic(LightningModule):
    """Multinomial logistic regression whose optimum scikit-learn finds."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(5, 3).double()

    def training_step(self, batch, batch_idx):
        x, y = batch
        return F.cross_entropy(self.layer(x), y) + L2 / 2 * self.layer.weight.square().sum()

    def validation_step(self, batch, batch_idx):
        pass

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def fit(x, y):
    return LogisticRegression(C=1 / (len(y) * L2), tol=1e-12, max_iter=10_000).fit(x, y)


def loss(model, x, y):
    return -model.predict_log_proba(x)[np.arange(len(y)), y].mean()


@pytest.fixture(scope="module")
def problem():
    rng = np.random.default_rng(4)
    x = rng.normal(size=(SAMPLES + REFERENCES, 5))
    y = np.argmax(x @ rng.normal(size=(5, 3)) + rng.gumbel(size=(len(x), 3)), axis=1)
    y[:8] = (y[:8] + 1) % 3  # harmful samples
    train, held_out = (x[:SAMPLES], y[:SAMPLES]), (x[SAMPLES:], y[SAMPLES:])
    whole = fit(*train)
    left_out = [fit(np.delete(train[0], i, axis=0), np.delete(train[1], i)) for i in range(SAMPLES)]
    eq1 = np.array([loss(whole, *held_out) - loss(model, *held_out) for model in left_out])  # positive = harmful
    mirrored = fit(np.concatenate([x[:SAMPLES], held_out[0]]), np.concatenate([y[:SAMPLES], held_out[1]]))
    each = lambda m: -m.predict_log_proba(train[0])[np.arange(SAMPLES), train[1]]  # noqa: E731
    return train, held_out, whole, eq1, each(mirrored) - each(whole)


@pytest.fixture(scope="module")
def ours(problem, tmp_path_factory):
    (x, y), held_out, whole, _, _ = problem
    module = Logistic()
    with torch.no_grad():
        module.layer.weight.copy_(torch.from_numpy(whole.coef_))
        module.layer.bias.copy_(torch.from_numpy(whole.intercept_))
    directory = tmp_path_factory.mktemp("signs")
    methods = [
        TracIn(),
        ForwardINF(step="plain", steps=1, alpha=1e-3, name="algorithm_1"),
        ForwardINF(step="plain", steps=5, alpha=0.05, name="algorithm_1_k5"),
        ForwardINF(steps=0, name="eq_14"),
        ForwardINF(name="normalized"),
        ForwardINF(step="per_layer", radius=0.01, name="per_layer"),
        ForwardINF(step="sign", steps=1, alpha=0.005, name="sign"),
        ForwardINF(step="plain", steps=5, alpha=0.05, direction="descent", name="descent"),
        ForwardINF(step="plain", steps=1, alpha=1e-3, direction="descent", name="small_descent"),
        ForwardINF(direction="descent", name="normalized_descent"),
        ForwardINF(output="margin", name="margins"),
        ForwardINF(output="margin", step="plain", steps=5, alpha=0.05, name="margin_k5"),
        ForwardINF(output="margin", direction="descent", name="margin_descent"),
        ForwardINF(output="margin", steps=0, name="margin_limit"),
        TracIn(output="margin", name="tracin_margin"),
        TracIn(normalize="cosine", name="cosine"),
        TracIn(normalize="relatif", name="relatif"),
        InfluenceFunction(ConjugateGradients(tolerance=1e-8), damping=L2, name="influence_function"),
    ]
    callback = InfluenceCallback(dirpath=str(directory), methods=methods, learning_rate=1.0, individual_references=0)
    train, references = (TensorDataset(torch.from_numpy(a), torch.from_numpy(b)) for a, b in ((x, y), held_out))
    influence(quiet(callbacks=[callback]), module, DataLoader(train, 16), DataLoader(references, 5))
    return scores(directory)


METHODS = ["tracin", "algorithm_1", "algorithm_1_k5", "eq_14", "normalized", "per_layer", "sign", "descent"]
METHODS += ["small_descent", "normalized_descent", "influence_function"]
#: They measure something else than the change of the loss: the sign holds, the size is another.
OTHERS = ["margins", "margin_k5", "margin_descent", "margin_limit", "tracin_margin", "cosine", "relatif"]


@pytest.mark.parametrize("name", METHODS)
def test_positive_means_helpful_by_exact_retraining(problem, ours, name):
    """Eq. 1 is positive for harmful samples, so a public score runs against it."""
    eq1 = problem[3]
    found = np.array(ours[name])
    assert np.corrcoef(found, eq1)[0, 1] < -0.7
    # The three most harmful and the three most helpful samples by retraining have the sign that the table says.
    order = np.argsort(eq1)
    assert (found[order[-3:]] < 0).all()
    assert (found[order[:3]] > 0).all()


@pytest.mark.parametrize("name", OTHERS)
def test_positive_means_helpful_whatever_is_measured(problem, ours, name):
    eq1, found = problem[3], np.array(ours[name])
    order = np.argsort(eq1)
    assert spearmanr(found, eq1).statistic < -0.5
    assert (found[order[-3:]] < 0).all()
    assert (found[order[:3]] > 0).all()


@pytest.mark.parametrize("name", METHODS)
def test_mirrored_side_has_the_opposite_sign_too(problem, ours, name):
    """Eq. 2, the loss of each sample after training on the references as well."""
    assert np.corrcoef(np.array(ours[name]), problem[4])[0, 1] < -0.7


def test_small_plain_steps_are_tracin(ours):
    """Algorithm 1 and Eq. 7 agree: corr +1, and alpha times the derivative in size."""
    algorithm_1, tracin = np.array(ours["algorithm_1"]), np.array(ours["tracin"])
    np.testing.assert_allclose(algorithm_1 / 1e-3, tracin, atol=2e-3 * np.abs(tracin).max())
    np.testing.assert_allclose(ours["eq_14"], tracin, rtol=1e-9)


def test_a_small_descent_is_tracin_too(ours):
    """METHODS G.2: Algorithm 1 with descent is negative for helpful samples as it stands, so it is turned round."""
    found, tracin = np.array(ours["small_descent"]), np.array(ours["tracin"])
    np.testing.assert_allclose(found / 1e-3, tracin, atol=2e-3 * np.abs(tracin).max())


def test_small_steps_on_the_margin_are_its_derivative(ours):
    np.testing.assert_allclose(ours["margin_limit"], ours["tracin_margin"], rtol=1e-9)
    assert np.corrcoef(ours["margins"], ours["margin_limit"])[0, 1] > 0.999


def test_the_margin_form_to_the_letter(problem, ours):
    """K = 5 plain steps down the references' mean log-odds; the score is the margin before minus after."""
    (x, y), (rx, ry), whole, _, _ = problem
    x, y, rx, ry = (torch.from_numpy(a) for a in (x, y, rx, ry))
    params = [torch.from_numpy(a.copy()).requires_grad_() for a in (whole.coef_, whole.intercept_)]

    def margin(params, x, y):
        p = (x @ params[0].T + params[1]).softmax(dim=1)[torch.arange(len(y)), y]
        return torch.log(p / (1 - p))

    before = margin(params, x, y)
    for _ in range(5):
        grads = torch.autograd.grad(margin(params, rx, ry).mean(), params)
        params = [(p - 0.05 * g).detach().requires_grad_() for p, g in zip(params, grads, strict=True)]
    np.testing.assert_allclose(ours["margin_k5"], (before - margin(params, x, y)).detach().numpy(), atol=1e-10)


@pytest.mark.parametrize(("name", "sign"), [("algorithm_1_k5", 1.0), ("descent", -1.0)])
def test_algorithm_1_to_the_letter(problem, ours, name, sign):
    """K = 5 plain steps written out by hand, in double precision; with descent, turned round."""
    (x, y), (rx, ry), whole, _, _ = problem
    x, y, rx, ry = (torch.from_numpy(a) for a in (x, y, rx, ry))
    weight = torch.from_numpy(whole.coef_.copy()).requires_grad_()
    bias = torch.from_numpy(whole.intercept_.copy()).requires_grad_()
    before = F.cross_entropy(x @ weight.T + bias, y, reduction="none").detach()
    for _ in range(5):
        grads = torch.autograd.grad(F.cross_entropy(rx @ weight.T + bias, ry), (weight, bias))
        weight, bias = (
            (p + sign * 0.05 * g).detach().requires_grad_() for p, g in zip((weight, bias), grads, strict=True)
        )
    after = F.cross_entropy(x @ weight.T + bias, y, reduction="none").detach()
    np.testing.assert_allclose(ours[name], sign * (after - before).numpy(), atol=1e-12)


@pytest.mark.parametrize("i", [0, 1, 2, 3])
def test_eq_7_of_a_pair_is_the_gradient_product(problem, ours, i):
    """The closed form of logistic regression: (p_i - y_i)(p_t - y_t) (x_i x_t + 1), averaged over references."""
    (x, y), (rx, ry), whole, _, _ = problem
    residual = lambda a, b: whole.predict_proba(a) - np.eye(3)[b]  # noqa: E731
    closed = (residual(x, y) @ residual(rx, ry).T * (x @ rx.T + 1)).mean(axis=1)
    assert ours["tracin"][i] == pytest.approx(closed[i], rel=1e-6)


# The rows about infinitesimal weights: exact optima of reweighted objectives, by Newton's method


def sample_losses(row, x, y):
    """Losses of logistic regression as a function of its parameters laid out in a row."""
    return F.cross_entropy(x @ row[:15].reshape(3, 5).T + row[15:], y, reduction="none")


@pytest.fixture(scope="module")
def exact(problem):
    """The problem in torch, its optimum, and a function that finds the optimum under other weights."""
    train, held_out, whole, _, _ = problem
    (x, y), (rx, ry) = ((torch.from_numpy(a), torch.from_numpy(b)) for a, b in (train, held_out))
    start = torch.cat([torch.from_numpy(whole.coef_).flatten(), torch.from_numpy(whole.intercept_)])

    def objective(row, weights, references):
        fit = (weights * sample_losses(row, x, y)).sum() + references * sample_losses(row, rx, ry).mean()
        return fit + L2 / 2 * row[:15].square().sum()

    def optimum(weights=None, references=0.0):
        weights = torch.full((SAMPLES,), 1 / SAMPLES).double() if weights is None else weights
        row = start
        for _ in range(12):
            slope, curvature = grad(objective)(row, weights, references), hessian(objective)(row, weights, references)
            row = row - torch.linalg.pinv(curvature, hermitian=True, rtol=1e-10) @ slope  # one bias is free
        return row

    base = optimum()
    each = jacrev(sample_losses)(base, x, y)
    reference = jacrev(sample_losses)(base, rx, ry).mean(dim=0)
    curvature = hessian(objective)(base, torch.full((SAMPLES,), 1 / SAMPLES).double(), 0.0)
    product = each @ torch.linalg.pinv(curvature, hermitian=True, rtol=1e-10) @ reference
    return (x, y), (rx, ry), optimum, base, product.numpy()


def ends(problem):
    """The samples that help most and those that hurt most, by exact retraining."""
    order = np.argsort(problem[3])
    return order[:3], order[-3:]


def test_eq_3_and_koh_and_liang(problem, exact):
    """d L_ref / d epsilon under a sample's weight of epsilon more is -g H^-1 g_i: negative where it helps."""
    _, references, optimum, base, product = exact
    helpful, harmful = ends(problem)
    for i in (*helpful, *harmful):
        weights = torch.full((SAMPLES,), 1 / SAMPLES).double()
        weights[i] += 1e-5
        rise = (sample_losses(optimum(weights), *references) - sample_losses(base, *references)).mean() / 1e-5
        assert float(rise) == pytest.approx(-product[i], rel=1e-3)
        assert (rise < 0) == (i in helpful)


def test_eq_4_is_eq_1_to_first_order(problem, exact):
    eq4 = -exact[-1] / SAMPLES
    helpful, harmful = ends(problem)
    assert (eq4[helpful] < 0).all()
    assert (eq4[harmful] > 0).all()
    assert np.corrcoef(eq4, problem[3])[0, 1] > 0.99


@pytest.mark.parametrize("epsilon", [1e-5, -1e-5])
def test_eq_5_and_eq_14(problem, exact, epsilon):
    """d l_i / d epsilon under a weight of epsilon on the references, from either side: negative where the sample helps."""
    train, _, optimum, base, product = exact
    difference = sample_losses(optimum(references=epsilon), *train) - sample_losses(base, *train)
    helpful, harmful = ends(problem)
    quotient = (difference / epsilon).numpy()
    np.testing.assert_allclose(quotient, -product, rtol=1e-2, atol=1e-3 * np.abs(product).max())
    assert (quotient[helpful] < 0).all()
    assert (quotient[harmful] > 0).all()
    # Without the division (Eq. 9) the references are unlearned where epsilon is negative, and the sign turns round.
    assert (np.sign(difference.numpy()[helpful]) == -np.sign(epsilon)).all()


def test_eq_6_is_eq_2_to_first_order(problem, exact):
    """Training on the twelve references as well adds as many weights of 1/n each."""
    eq6 = -exact[-1] * REFERENCES / SAMPLES
    assert np.corrcoef(eq6, problem[4])[0, 1] > 0.95
    helpful, harmful = ends(problem)
    assert (eq6[helpful] < 0).all()
    assert (eq6[harmful] > 0).all()


def test_ours_is_minus_eq_4_and_torch_influences(problem, ours, exact):
    """+(1/n) g H^-1 g_i, the rise of the loss when the sample is left out; ours damps the biases, too."""
    found = np.array(ours["influence_function"])
    assert np.corrcoef(found, exact[-1] / SAMPLES)[0, 1] > 0.98
    assert np.polyfit(exact[-1] / SAMPLES, found, 1)[0] == pytest.approx(1.0, abs=0.15)
    assert np.corrcoef(found, -problem[3])[0, 1] > 0.98


def test_the_absolute_value_of_the_authors_notebook_has_no_sign(problem, ours):
    size = np.abs(np.array(ours["algorithm_1_k5"]))
    helpful, harmful = ends(problem)
    assert size[helpful].min() > np.median(size)
    assert size[harmful].min() > np.median(size)


def test_descent_is_negative_as_it_stands(problem, ours):
    """What the public score negates: the sample's loss falls with the references' where it has helped to learn them."""
    helpful, harmful = ends(problem)
    raw = -np.array(ours["descent"])
    assert (raw[helpful] < 0).all()
    assert (raw[harmful] > 0).all()


def test_datainf_is_negative(problem, exact, ours):
    """Its closed form, the mean over training samples of (damping + g g^T)^-1 put in the place of H^-1, with the minus."""
    (x, y), (rx, ry), _, base, _ = exact
    each = jacrev(sample_losses)(base, x, y)
    reference = jacrev(sample_losses)(base, rx, ry).mean(dim=0)
    damping = 0.1 * each.square().mean()
    part = (each @ reference) / (damping + each.square().sum(dim=1))
    solved = (reference - part[:, None] * each).mean(dim=0) / damping
    found = -(each @ solved).numpy()
    helpful, harmful = ends(problem)
    assert (found[helpful] < 0).all()
    assert (found[harmful] > 0).all()
    assert np.corrcoef(found, ours["influence_function"])[0, 1] < -0.7


def test_ogas_formula_is_negative_whatever_its_text_says(problem, exact):
    """-g H^-1 g_i as printed is negative for a sample whose training lowers the reference loss."""
    _, _, _, _, product = exact
    helpful, harmful = ends(problem)
    printed = -product
    assert (printed[helpful] < 0).all()
    assert (printed[harmful] > 0).all()


def test_trak_is_positive(problem, exact, tmp_path):
    """The authors' package, with every gradient kept whole: its score is +g (G^T G + lambda)^-1 g_i times a factor."""
    (x, y), (rx, ry), _, base, _ = exact
    net = nn.Linear(5, 3)
    with torch.no_grad():
        net.weight.copy_(base[:15].reshape(3, 5))
        net.bias.copy_(base[15:])
    size = sum(p.numel() for p in net.parameters())
    projector = NoOpProjector(size, size, 0, None, torch.device("cpu"))
    trak = TRAKer(
        net,
        "image_classification",
        len(y),
        save_dir=str(tmp_path),
        device="cpu",
        projector=projector,
        proj_dim=size,
        use_half_precision=False,
        lambda_reg=1.0,
        logging_level=logging.ERROR,
    )
    trak.load_checkpoint(net.state_dict(), model_id=0)
    trak.featurize((x.float(), y), num_samples=len(y))
    trak.finalize_features()
    trak.start_scoring_checkpoint("references", net.state_dict(), 0, len(ry))
    trak.score((rx.float(), ry), num_samples=len(ry))
    found = np.array(trak.finalize_scores("references")).mean(axis=1)
    helpful, harmful = ends(problem)
    assert (found[helpful] > 0).all()
    assert (found[harmful] < 0).all()
    assert np.corrcoef(found, problem[3])[0, 1] < -0.7


def test_turn_over_dropout_is_positive(problem):
    """The loss under the half of the inputs' copies that never saw the sample, minus that under the half that did.

    Each sample trains one half of a doubled set of features, chosen by a seeded mask of its own; averaged over masks.
    """
    (x, y), (rx, ry), _, _, _ = problem
    rng = np.random.default_rng(0)
    copies, draws = 8, 60
    total = np.zeros(SAMPLES)
    for _ in range(draws):
        masks = np.stack([rng.permutation(copies) < copies // 2 for _ in range(SAMPLES)])
        spread = lambda a, m: (a[:, None, :] * m[..., None] * 2 / copies).reshape(len(a), -1)  # noqa: E731
        model = fit(spread(x, masks), y)
        for i in range(SAMPLES):
            seen = np.broadcast_to(masks[i], (REFERENCES, copies))
            total[i] += loss(model, spread(rx, ~seen), ry) - loss(model, spread(rx, seen), ry)
    found = total / draws
    helpful, harmful = ends(problem)
    assert found[helpful].mean() > 0 > found[harmful].mean()
    assert spearmanr(found, problem[3]).statistic < -0.5
