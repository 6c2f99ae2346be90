import copy

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import torch.nn.functional as F

from benchmarks.leakage import section
from benchmarks.leakage.attribute import UNLISTED, attribute, read_ranks
from benchmarks.leakage.baselines import RATE, AuthorsRecipe, hash_ranks
from benchmarks.leakage.cases import BatchNormNet, Case, Planted
from benchmarks.leakage.rows import ROWS
from benchmarks.leakage.section import detection
from benchmarks.leakage.tuning import forward_inf
from lightning_inf import TracIn


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """Noise with random labels, learned by heart; samples 3 and 4 are equal."""
    torch.manual_seed(0)
    x, y = torch.randn(48, 1, 8, 8), np.arange(48) % 10
    x[4], y[4] = x[3], y[3]
    module = BatchNormNet(1, 8, 4, epochs=1)
    (optimizer,), _ = module.configure_optimizers()
    for _ in range(60):
        optimizer.zero_grad()
        F.cross_entropy(module(x), torch.from_numpy(y)).backward()
        optimizer.step()
    path = tmp_path_factory.mktemp("leakage") / "epoch=0.ckpt"
    influence = {"learning_rate": {name: 0.05 for name, _ in module.named_parameters()}}
    torch.save({"state_dict": module.state_dict(), "epoch": 0, "global_step": 60, "influence": influence}, path)
    case = Case("noise", 48, 1, 8, 4, epochs=1, queries=6)
    return Planted(case, 0, module, x, y, [path], np.array([30, 3, 17, 40, 8, 25]), {})


def test_gradients_of_a_copy_have_cosine_one_with_its_original(planted):
    methods = [TracIn(normalize="cosine", name="gradcos"), forward_inf(False, steps=3, radius=0.01)]
    found = attribute(planted, methods, planted.copied, planted.checkpoints)
    # 3 and 4 are equal: tied, which counts against the method, or apart by rounding, which depends on their places.
    assert np.delete(found.ranks["gradcos"], 1).tolist() == [1] * 5
    assert found.ranks["gradcos"][1] in (1, 2)
    assert found.ranks["forward_inf"][1] in (1, 2)
    assert (np.delete(found.ranks["forward_inf"], 1) == 1).mean() >= 0.8


def test_a_copy_that_is_not_listed_ranks_behind_all_that_are(tmp_path):
    columns = {
        "reference_index": [0, 0, 1, 1, 1],
        "train_index": [5, 9, 4, 6, 9],
        "direction": ["helps", "helps", "helps", "helps", "hurts"],
        "influence": [2.0, 1.0, 3.0, 3.0, -1.0],
        "method": ["a"] * 5,
    }
    pq.write_table(pa.table(columns), tmp_path / "attributions.parquet")
    # 9 is second for query 0; 4 and 6 are tied for query 1; query 2 has no list.
    ranks = read_ranks(tmp_path / "attributions.parquet", ["a"], np.array([9, 4, 9]))
    assert ranks["a"].tolist() == [2, 2, UNLISTED]


def test_hashes_find_copies_and_count_ties(planted):
    assert hash_ranks(planted).tolist() == [1, 2, 1, 1, 1, 1]


def test_the_recipe_takes_a_step_of_adam_in_train_mode(planted):
    recipe = AuthorsRecipe(planted, nearby=False)
    image, labels = planted.x[30], torch.tensor([int(planted.y[30])] * 2)
    moved, loss = recipe._step(image, labels)
    before = copy.deepcopy(planted.module).train()
    expected = F.cross_entropy(before(torch.stack([image, image])), labels)
    expected.backward()
    assert loss == pytest.approx(expected.item(), rel=1e-5)
    for (_, old), (_, new) in zip(before.named_parameters(), moved.named_parameters(), strict=True):
        steep = old.grad.abs() > 1e-5  # beyond Adam's epsilon its first step is the sign
        torch.testing.assert_close((new - old)[steep], RATE * old.grad.sign()[steep], rtol=1e-2, atol=1e-6)
    buffers = dict(moved.named_buffers())
    assert not torch.equal(buffers["net.1.running_mean"], dict(planted.module.named_buffers())["net.1.running_mean"])


def test_the_section_says_what_was_reached_and_what_was_missed():
    def run(hits, cost):
        ranks = [1] * hits + [7] * (100 - hits)
        tuned = {"values": {"steps": 3, "radius": 0.01}, "hit_rate": 0.5, "stand_ins": 32}
        clock = {"sweeps_per_query": cost, "bare_sweep_seconds": 0.1, "sweeps_once": 9, "quartiles": [cost, cost]}
        training = dict.fromkeys(("train_loss", "train_accuracy", "test_accuracy", "parameters"), 1.0)
        return {
            "seed": 0,
            "training": training,
            "tuned": {"forward_inf": tuned},
            "rows": {"forward_inf": {"ranks": ranks, "seconds": 10.0}},
            "cost": [{"row": "forward_inf", "pairs": 7, "samples": 10_000, "width": 16, "wall": clock, "cpu": clock}],
        }

    sizes = {name: {"samples": 10_000} for name in ("cifar10", "mnist")}
    settings = {
        "seeds": [0],
        "queries": 100,
        "cases": sizes,
        "rows": {row.key: {"label": row.label, "published": row.published} for row in ROWS},
        "explored": 100,
        "lissa": {"queries": {"100": 20, "1000": 7}, "mini_batch": 64, "subset": 2000},
    }
    page = section({"settings": settings, "runs": {"cifar10/0": run(100, 1.5), "mnist/0": run(80, 1.2)}})
    assert page.startswith("## ")
    cifar, mnist = page.split("### MNIST")
    assert "96.3%, reached" in cifar
    assert "1.50 bare" in cifar
    assert "at most 1.3, **missed**" in cifar
    assert "71.1%, **missed**" in mnist
    assert "at most 1.3, reached" in mnist
    assert "| 80.0% [71.1%, 86.7%] | 80.0% [71.1%, 86.7%] | 100.0%" in mnist


def test_queries_of_all_seeds_are_pooled():
    found = detection([{"ranks": [1, 3]}, {"ranks": [UNLISTED, 1]}])
    assert found["hit_rate"] == {1: 0.5, 5: 0.75, 10: 0.75}
    assert found["count"] == 4
