"""The exact refits against scikit-learn, and the command on tiny sizes."""

import json

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import nn

from benchmarks.data import data_root
from benchmarks.hypothesis import groups, section
from benchmarks.hypothesis.__main__ import main
from benchmarks.hypothesis.convex import influence, package
from benchmarks.hypothesis.logistic import Logistic, in_span


@pytest.fixture
def problem():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(40, 60, generator=generator, dtype=torch.float64)  # more features than samples
    return x, torch.randint(0, 4, (40,), generator=generator)


def sklearn_losses(x, y, kept, penalty):
    fitted = LogisticRegression(C=1 / (len(kept) * penalty), tol=1e-12, max_iter=10_000).fit(x[kept], y[kept])
    return -fitted.predict_log_proba(x)[np.arange(len(y)), y]


def test_refits_in_the_span_are_those_of_scikit_learn_on_the_pixels(problem):
    x, y = problem
    model, n = Logistic(in_span(x), y, 0.1, classes=4), len(y)
    everyone = torch.full((n,), 1 / n, dtype=torch.float64)
    theta = model.fit(everyone)
    weights = (1 - torch.eye(n, dtype=torch.float64)[[3, 17]]) / (n - 1)
    refits = model.refit(theta, model.hessian_factor(theta, everyone), weights, 1e-11)
    assert refits.gradient <= 1e-11
    found = model.losses(refits.theta)
    for row, left_out in zip(found, (3, 17), strict=True):
        expected = sklearn_losses(x.numpy(), y.numpy(), np.delete(np.arange(n), left_out), 0.1)
        np.testing.assert_allclose(row.numpy(), expected, rtol=1e-5, atol=1e-7)


def test_influence_is_the_limit_of_leaving_out_a_little(problem):
    x, y = problem
    model, n = Logistic(in_span(x), y, 0.1, classes=4), len(y) - 1
    everyone = torch.cat([torch.full((n,), 1 / n), torch.zeros(1)]).double()
    theta = model.fit(everyone)
    factor = model.hessian_factor(theta, everyone)
    little = 1e-3
    weights = everyone - little / n * torch.eye(n + 1, dtype=torch.float64)[:n]
    moved = model.refit(theta, factor, weights, 1e-13)
    measured = (model.losses(theta[None])[0, n] - model.losses(moved.theta)[:, n]) / little
    torch.testing.assert_close(influence(model, theta, factor, n)[0], measured, rtol=1e-2, atol=1e-6)


def test_influence_by_the_package_is_the_closed_form_with_a_damped_intercept(problem):
    x, y = problem
    x, n, penalty = in_span(x), len(y) - 3, 0.1
    model = Logistic(x, y, penalty, classes=4)
    weights = torch.cat([torch.full((n,), 1 / n), torch.zeros(3)]).double()
    theta = model.fit(weights)
    model.decay[-1] = penalty
    expected = influence(model, theta, model.hessian_factor(theta, weights), n)
    found = package(theta, x, y, penalty, queries=3)["influence_function_cg"]
    torch.testing.assert_close(-found, expected, rtol=1e-2, atol=1e-3 * float(expected.abs().max()))


def test_pooling_before_relu_changes_nothing():
    torch.manual_seed(0)
    ours, x = groups.PaperCNN(1).net, torch.rand(3, 1, 28, 28)
    order = [0, 2, 1, 3, 5, 4, 6, 7, 8, 9]
    theirs = nn.Sequential(*[ours[k] for k in order])
    assert torch.equal(ours(x), theirs(x))
    left, right = (torch.autograd.grad(net(x).logsumexp(1).sum(), list(ours.parameters())) for net in (ours, theirs))
    for a, b in zip(left, right, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.data
def test_the_command_measures_goes_on_and_reports(tmp_path, capsys):
    out = tmp_path / "hypothesis.json"
    arguments = ["--quick", "--out", str(out), "--seeds", "0", "--data", "mnist", "--data-root", str(data_root())]
    main(arguments)
    results = json.loads(out.read_text())
    case = results["convex"]["mnist-0.01-60-0"]
    assert case["largest_gradient"] <= 1e-10
    # On a tiny problem the mirror is blurred, but its sign is sure; so is that of the package, which is the opposite one.
    assert np.mean(case["correlations"]["loo~dual"]["pearson"]) > 0.5
    assert np.mean(case["correlations"]["loo~influence_function"]["pearson"]) > 0.8
    assert np.mean(case["correlations"]["loo~influence_function_cg"]["pearson"]) < -0.8
    group = results["groups"]["mnist-0.3-1-0"]
    assert group["trainings"] == 1 + 2 + 4
    assert len(group["references"]["20"]["effects"]["removal"]) == 4
    capsys.readouterr()
    main(arguments)
    assert "mnist-0.3-1-0:" not in capsys.readouterr().out  # nothing is measured twice
    assert section(results).startswith("## ")
