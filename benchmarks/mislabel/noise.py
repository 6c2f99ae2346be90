"""Three ways in which labels go wrong."""

from __future__ import annotations

from typing import Literal

import numpy as np
from torch import Tensor

from benchmarks.data import PAIRS

#: ``symmetric``: any class, the true one included, as in the paper's Fig. 5; ``pair``: each class's look-alike;
#: ``instance``: flipping rate and wrong class depend on the image (Xia et al., NeurIPS 2020).
Kind = Literal["symmetric", "pair", "instance"]
KINDS: tuple[Kind, ...] = ("symmetric", "pair", "instance")
_SPREAD = 0.1


def corrupt(x: Tensor, labels: np.ndarray, name: str, kind: Kind, share: float, seed: int) -> np.ndarray:
    """Return labels of which about ``share`` were drawn anew.

    Args:
        x: Images, shape ``(n, channels, height, width)``.
        labels: True labels, shape ``(n,)``.
        name: The data set, for its pairs.
        kind: The noise.
        share: Of the labels that are drawn anew; with ``symmetric`` one in ten of those stays right.
        seed: Seed of every draw.
    """
    generator = np.random.default_rng(seed)
    count, given = len(labels), labels.copy()
    if kind == "instance":
        return _by_instance(x, labels, share, generator)
    chosen = generator.choice(count, round(share * count), replace=False)
    if kind == "symmetric":
        given[chosen] = generator.integers(0, 10, len(chosen))
    else:
        given[chosen] = [PAIRS[name][int(label)] for label in labels[chosen]]
    return given


def _by_instance(x: Tensor, labels: np.ndarray, share: float, generator: np.random.Generator) -> np.ndarray:
    """Each sample's rate is normal around the share; its wrong class follows a random projection of the image."""
    flat = x.reshape(len(x), -1).numpy()
    flat = (flat - flat.mean(axis=0)) / (flat.std() + 1e-8)
    rates = generator.normal(share, _SPREAD, 4 * len(labels))
    rates = rates[(rates >= 0) & (rates <= 1)][: len(labels)]
    projection = generator.standard_normal((10, flat.shape[1], 10)).astype(np.float32)
    given = labels.copy()
    for i in range(len(labels)):
        scores = flat[i] @ projection[labels[i]]
        scores[labels[i]] = -np.inf
        chance = np.exp(scores - scores.max())
        if generator.random() < rates[i]:
            given[i] = generator.choice(10, p=chance / chance.sum())
    return given
