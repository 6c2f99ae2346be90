"""The study of memorisation, in small, and the bank against networks that are trained one by one."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from examples.memorization.bank import Recipe, answers, fitted, flat, logits, parts
from examples.memorization.model import Memorizer
from examples.memorization.study import hits, main
from tests.test_configs import DATA


@pytest.fixture(scope="module")
def pictures() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return 2 * torch.randn(40, 1, 28, 28, generator=generator), torch.arange(40) % 10


def test_networks_of_a_group_are_trained_as_if_alone(pictures: tuple[torch.Tensor, torch.Tensor]) -> None:
    """By an optimiser of torch's, on the batches that the group saw."""
    x, y = pictures
    recipe = Recipe(hidden=5, epochs=2, batch=20, lr=0.3)
    group = torch.from_numpy(parts(3, 40, 0.7)).float()
    start = fitted(group, x, y, Recipe(hidden=5, epochs=0), seed=4)
    found = fitted(group, x, y, recipe, seed=4)
    generator = torch.Generator().manual_seed(4)
    for shape in [tensor.shape for tensor in start]:
        torch.rand(shape, generator=generator)  # what the initial weights took
    orders = [torch.randperm(40, generator=generator) for _ in range(2)]
    for place in range(3):
        model = Memorizer(hidden=5)
        layers = (model.features[2], model.head)
        own = slice(place * 5, place * 5 + 5)
        with torch.no_grad():
            layers[0].weight.copy_(start[0][:, own].T)
            layers[0].bias.copy_(start[1][own])
            layers[1].weight.copy_(start[2][place].T)
            layers[1].bias.copy_(start[3][place, 0])
        sgd = torch.optim.SGD(model.parameters(), lr=0.3, momentum=0.9)
        for epoch, order in enumerate(orders):
            for options in sgd.param_groups:
                options["lr"] = 0.3 * (1 - epoch / 2)
            for part in order.split(20):
                seen = part[group[place, part] > 0]
                sgd.zero_grad()
                F.cross_entropy(model(x[seen]), y[seen]).backward()
                sgd.step()
        torch.testing.assert_close(logits(found, flat(x))[place], model(x).detach(), rtol=1e-3, atol=1e-4)


def test_answers_are_those_of_all_networks(pictures: tuple[torch.Tensor, torch.Tensor]) -> None:
    seen = parts(4, 40, 0.7)
    assert seen.sum(axis=1).tolist() == [28] * 4
    right = answers(seen, pictures, pictures, Recipe(hidden=32, epochs=40, batch=10, lr=0.05))
    assert right.shape == (4, 40)
    assert right[seen].mean() > 0.9, "noise is learnt by heart"
    assert right[~seen].mean() < 0.5, "and nothing else is"


def test_hits_count_partners_among_the_first() -> None:
    scores = np.array([[3.0, 2.0, 1.0], [np.nan, 2.0, 3.0]])
    assert hits(scores, np.array([1, 2]), 1) == 0.5
    assert hits(scores, np.array([1, 2]), 2) == 1.0
    assert hits(scores, np.array([2, 0]), 2) == 0.0


@pytest.mark.skipif(not (DATA / "MNIST/raw").is_dir(), reason="needs real data")
def test_the_study_makes_its_tables(tmp_path: Path) -> None:
    main(["--quick", "--root", str(DATA), "--out", str(tmp_path / "study.json")])
    pairs, partners = json.loads((tmp_path / "study.json").read_text())["tables"]
    counts = [row[1] for row in pairs["rows"]]
    assert counts == sorted(counts, reverse=True)
    assert all(row[2] <= row[1] for row in pairs["rows"])
    rows = {name: cells for name, *cells in partners["rows"]}
    assert {"Forward-INF, last checkpoint", "feature cosine", "nearest pixels"} <= rows.keys()
    assert all(0 <= first <= five <= 1 for first, five, _, _ in rows.values())
