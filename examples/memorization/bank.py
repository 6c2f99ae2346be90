"""Hundreds of networks on random parts of the training pictures, trained side by side.

All networks of a group see the same batches; what is not of a network's part counts nothing in its loss. The first layers
of a group then are one matrix product, which is what makes hundreds of trainings a matter of minutes on one core.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from examples.memorization.model import CLASSES, INPUTS

#: Networks that are trained side by side.
GROUP = 50


@dataclass(frozen=True)
class Recipe:
    """How the networks are trained: as :class:`~examples.memorization.model.Memorizer`.

    Attributes:
        hidden: Width of the hidden layer.
        epochs: Passes over the data.
        batch: Pictures in a batch.
        lr: Learning rate of the first epoch; it falls linearly to nothing.
        share: Of the training pictures that each network sees.
    """

    hidden: int = 64
    epochs: int = 30
    batch: int = 50
    lr: float = 0.1
    share: float = 0.7


def parts(count: int, samples: int, share: float, seed: int = 0) -> np.ndarray:
    """Draw the parts: True where a network sees a picture, shape ``(count, samples)``."""
    generator = np.random.default_rng(seed)
    seen = np.zeros((count, samples), dtype=bool)
    for row in seen:
        row[generator.permutation(samples)[: round(share * samples)]] = True
    return seen


def answers(seen: np.ndarray, train: tuple[Tensor, Tensor], asked: tuple[Tensor, Tensor], recipe: Recipe) -> np.ndarray:
    """Train a network on each part; tell which pictures each gets right.

    Args:
        seen: The parts, shape ``(M, n)``.
        train: Pictures of shape ``(n, 1, 28, 28)`` and labels.
        asked: Pictures and labels that all networks are asked about, q of them.
        recipe: How.

    Returns:
        Shape ``(M, q)``, bool.
    """
    found = []
    for start in range(0, len(seen), GROUP):
        group = torch.from_numpy(seen[start : start + GROUP]).float()
        weights = fitted(group, *train, recipe, seed=start)
        found += [logits(weights, flat(x)).argmax(dim=2) == y for x, y in batches(asked, 500)]
        print(f"bank: {start + len(group)} of {len(seen)} networks", flush=True)
    per_group = -(-len(asked[1]) // 500)
    rows = [torch.cat(found[i : i + per_group], dim=1) for i in range(0, len(found), per_group)]
    return torch.cat(rows).numpy()


def fitted(group: Tensor, x: Tensor, y: Tensor, recipe: Recipe, seed: int) -> list[Tensor]:
    """Train a group of G networks by SGD with momentum.

    Args:
        group: 1.0 where a network sees a picture, shape ``(G, n)``.
        x: Pictures.
        y: Labels.
        recipe: How.
        seed: Of initial weights and batches.

    Returns:
        Weights and biases of both layers: ``(196, G h)``, ``(G h,)``, ``(G, h, 10)``, ``(G, 1, 10)``.
    """
    generator = torch.Generator().manual_seed(seed)
    models, pixels = len(group), flat(x)
    weights = [
        (2 * torch.rand(shape, generator=generator) - 1) / fan**0.5
        for shape, fan in (
            ((INPUTS, models * recipe.hidden), INPUTS),
            ((models * recipe.hidden,), INPUTS),
            ((models, recipe.hidden, CLASSES), recipe.hidden),
            ((models, 1, CLASSES), recipe.hidden),
        )
    ]
    speeds = [torch.zeros_like(tensor) for tensor in weights]
    for tensor in weights:
        tensor.requires_grad_()
    for epoch in range(recipe.epochs):
        rate = recipe.lr * (1 - epoch / recipe.epochs)
        for part in torch.randperm(len(y), generator=generator).split(recipe.batch):
            own = group[:, part]
            given = logits(weights, pixels[part])
            losses = F.cross_entropy(given.flatten(0, 1), y[part].repeat(models), reduction="none").reshape(own.shape)
            loss = ((losses * own).sum(dim=1) / own.sum(dim=1).clamp(min=1)).sum()
            gradients = torch.autograd.grad(loss, weights)
            with torch.no_grad():
                for tensor, speed, gradient in zip(weights, speeds, gradients, strict=True):
                    speed.mul_(0.9).add_(gradient)
                    tensor.sub_(speed, alpha=rate)
    return [tensor.detach() for tensor in weights]


def logits(weights: list[Tensor], pixels: Tensor) -> Tensor:
    """Run G networks on B pictures: shape ``(G, B, 10)``."""
    first, bias, second, last = weights
    hidden = torch.relu(pixels @ first + bias).reshape(len(pixels), len(second), -1)
    return torch.baddbmm(last, hidden.transpose(0, 1), second)


def flat(x: Tensor) -> Tensor:
    """Pool and flatten, as the network does: shape ``(B, 196)``."""
    return F.avg_pool2d(x, 2).flatten(1)


def batches(data: tuple[Tensor, Tensor], size: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Cut pictures and labels."""
    yield from zip(data[0].split(size), data[1].split(size), strict=True)
