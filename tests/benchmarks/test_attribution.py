"""The attribution benchmark on tiny sizes."""

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from benchmarks.attribution import section
from benchmarks.attribution.__main__ import QUICK, main
from benchmarks.attribution.analysis import attribute, fit
from benchmarks.attribution.bank import build, halves
from benchmarks.attribution.problem import Data, Recipe
from benchmarks.data import data_root
from lightning_inf import TracIn

pytestmark = [
    pytest.mark.data,
    pytest.mark.skipif(not (data_root() / "FashionMNIST/raw").is_dir(), reason="needs Fashion-MNIST"),
]


def test_scores_are_those_of_the_trained_model(tmp_path):
    data = Data.load(data_root(), QUICK)
    fitted = fit(data, QUICK, 0, tmp_path)
    queries = (data.query_x, data.query_y)
    found, _ = attribute(fitted, data, [TracIn()], queries, last=True)

    def gradients(x, y):
        losses = F.cross_entropy(fitted.module.net(x), y, reduction="none")
        each = [torch.autograd.grad(loss, list(fitted.module.parameters()), retain_graph=True) for loss in losses]
        return torch.stack([torch.cat([g.reshape(-1) for g in grads]) for grads in each]).double()

    rate = QUICK.rate / QUICK.epochs  # of the last epoch
    expected = rate * gradients(*queries) @ gradients(data.x, data.y).T
    np.testing.assert_allclose(found["tracin"], expected.numpy(), rtol=1e-3, atol=1e-5)


def test_the_bank_goes_on_where_it_stopped(tmp_path):
    data, cache = Data.load(data_root(), QUICK), tmp_path / "bank.npz"
    whole = build(data, QUICK, cache)
    assert halves(QUICK).sum(axis=1).tolist() == [QUICK.samples // 2] * QUICK.subsets
    assert np.isfinite(whole.margin).all()
    assert (whole.loss <= 0).all()
    # log(1 + exp(-margin)) is the loss of a class against all others
    np.testing.assert_allclose(-whole.loss, np.logaddexp(0, -whole.margin), rtol=1e-4, atol=1e-5)
    with np.load(cache) as stored:
        parts = dict(stored)
    parts["margin"][:, 2:] = np.nan
    np.savez(cache, **parts)
    np.testing.assert_array_equal(build(data, QUICK, cache).margin, whole.margin)


def test_a_run_writes_json_and_a_section(tmp_path):
    out = tmp_path / "attribution.json"
    arguments = ["--quick", "--seeds", "0", "1", "--out", str(out), "--rows", "random", "forward_inf_tuned"]
    main(arguments)
    results = json.loads(out.read_text())
    assert [(case["name"], case["models"]) for case in results["cases"]] == [
        ("random", [0]),
        ("random", [1]),
        ("forward_inf_tuned", [0]),
        ("forward_inf_tuned", [1]),
        ("forward_inf_tuned", [0, 1]),
    ]
    assert results["settings"]["samples"] == QUICK.samples
    assert -1 <= results["single_model"]["forward_inf_tuned"]["margin"]["score"] <= 1
    table = section(results)
    assert table.startswith("## ")
    assert "tuned on planted truth" in table
    best = max(results["choices"]["planted"]["trials"], key=lambda t: (t["hit_rate"], t["reciprocal_rank"]))
    assert results["choices"]["planted"]["chosen"] == {"steps": best["steps"], "radius": best["radius"]}
    main(arguments)  # nothing is left to do
    assert json.loads(out.read_text())["cases"] == results["cases"]


def test_trak_finds_the_copies_of_queries(tmp_path):
    peer = pytest.importorskip("benchmarks.attribution.peer", reason="needs traker", exc_type=ImportError)
    recipe = Recipe(samples=100, queries=20, tuning=10, hidden=8, epochs=3, batch=16)
    data = Data.load(data_root(), recipe)
    fitted = fit(data, recipe, 0, tmp_path)
    scores, _ = peer.trak(data, recipe, [fitted.module.net], (data.x[:20], data.y[:20]), dimension=64, ridge=0.0)
    assert scores.shape == (20, 100)
    ahead = (scores > scores[np.arange(20), np.arange(20)][:, None]).sum(axis=1)
    assert np.median(ahead) <= 5  # about 50 by chance
