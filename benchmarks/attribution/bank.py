"""The model bank: what networks trained on random halves of the data say of the queries."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from benchmarks.attribution.problem import Data, Recipe, network, optimizer, outputs, rate_of
from lightning_inf.files import atomic

#: Seeds of the bank start here, so that no analysed model shares one.
FIRST_SEED = 100_000


@dataclass
class Bank:
    """Outputs of R networks on each of M halves.

    Attributes:
        subsets: True where a sample was trained on, shape ``(M, n)``.
        margin: Log-odds of the label, shape ``(R, M, queries + tuning)``, queries first.
        loss: *Minus* the loss, same shape.
        seconds: CPU time of all trainings.
    """

    subsets: np.ndarray
    margin: np.ndarray
    loss: np.ndarray
    seconds: float


def halves(recipe: Recipe) -> np.ndarray:
    """Draw the subsets, shape ``(M, n)``."""
    generator = np.random.default_rng(0)
    masks = np.zeros((recipe.subsets, recipe.samples), dtype=bool)
    for mask in masks:
        mask[generator.permutation(recipe.samples)[: recipe.samples // 2]] = True
    return masks


def train(data: Data, chosen: np.ndarray, recipe: Recipe, seed: int) -> torch.nn.Sequential:
    """Train on the chosen samples, as a Trainer would and without one: a second matters three hundred times."""
    torch.manual_seed(seed)
    net = network(recipe.hidden)
    sgd = optimizer(net, recipe)
    x, y = data.x[chosen].flatten(1), data.y[chosen]
    for epoch in range(recipe.epochs):
        for group in sgd.param_groups:
            group["lr"] = rate_of(recipe, epoch)
        for part in torch.randperm(len(y)).split(recipe.batch):
            sgd.zero_grad()
            F.cross_entropy(net(x[part]), y[part]).backward()
            sgd.step()
    return net


def build(data: Data, recipe: Recipe, cache: Path) -> Bank:
    """Train what is not in the cache yet.

    Args:
        data: The images.
        recipe: How to train.
        cache: A file; it is written every ten subsets, so that an interrupted bank goes on.

    Returns:
        The whole bank.
    """
    masks = halves(recipe)
    shape = (recipe.repeats, recipe.subsets, recipe.queries + recipe.tuning)
    bank = Bank(masks, np.full(shape, np.nan), np.full(shape, np.nan), 0.0)
    settings = json.dumps(recipe.plain(), sort_keys=True)
    if cache.is_file():
        with np.load(cache, allow_pickle=False) as stored:
            if str(stored["settings"]) == settings:
                bank = Bank(masks, stored["margin"], stored["loss"], float(stored["seconds"]))
    x, y = torch.cat([data.query_x, data.tuning_x]), torch.cat([data.query_y, data.tuning_y])
    missing = np.flatnonzero(np.isnan(bank.margin).any(axis=(0, 2)))
    for done, subset in enumerate(missing.tolist(), start=1):
        started = time.process_time()
        for repeat in range(recipe.repeats):
            net = train(data, masks[subset], recipe, FIRST_SEED + subset * recipe.repeats + repeat)
            margin, loss = outputs(net, x, y)
            bank.margin[repeat, subset], bank.loss[repeat, subset] = margin.numpy(), loss.numpy()
        bank.seconds += time.process_time() - started
        if done % 10 == 0 or done == len(missing):
            parts = {"margin": bank.margin, "loss": bank.loss, "seconds": bank.seconds, "settings": settings}
            with atomic(cache) as temporary, open(temporary, "wb") as stream:
                np.savez(stream, **parts)  # type: ignore[arg-type]
            print(f"bank: {done} of {len(missing)} subsets", flush=True)
    return bank
