"""What does not come from the package: hashing the inputs, and the recipe of the authors' code."""

from __future__ import annotations

import copy
import hashlib
from collections import defaultdict
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.leakage.cases import Planted

#: The recipe's learning rate: one step of Adam moves every weight by about this.
RATE = 5e-3

#: Below this loss the recipe takes a point nearby in the query's place, and it goes on until the loss is this large.
SATURATED, ACCEPTED = 1e-2, 2e-2

#: Radius of the sphere that the point is drawn from, in normalised pixels, its growth a try, and the most tries: the
#: recipe has no limit.
RADIUS, GROWTH, TRIES = 3.0, 1.1, 100


def hash_ranks(planted: Planted) -> np.ndarray:
    """Look each query up by the SHA-256 of its pixels and label; as many samples as share it are tied."""
    found: dict[bytes, list[int]] = defaultdict(list)
    for index, (image, label) in enumerate(zip(planted.x, planted.y, strict=True)):
        found[_digest(image, label)].append(index)
    matches = [
        found[_digest(image, label)] for image, label in zip(planted.queries.x, planted.queries.targets, strict=True)
    ]
    return np.array(
        [len(m) if int(own) in m else len(planted.y) for m, own in zip(matches, planted.copied, strict=True)]
    )


def _digest(image: Tensor, label: int) -> bytes:
    return hashlib.sha256(image.numpy().tobytes() + bytes([int(label)])).digest()


@dataclass
class AuthorsRecipe:
    """One step of Adam on the query in train mode, and the absolute change of every training sample's loss.

    This is what the authors' notebook on leakage does where it differs from their Algorithm 1: a step of Adam that is
    the sign of the gradient but for its epsilon, the query twice in a batch, BatchNorm with that batch's statistics,
    which also shifts its running ones, and no sign on the score.

    Attributes:
        planted: The trained network.
        nearby: Where the query's loss is below :data:`SATURATED`, ascend on a random point around it instead.
    """

    planted: Planted
    nearby: bool

    def ranks(self, queries: int) -> np.ndarray:
        """Rank the copies of the first queries; a tie counts against them."""
        self._before = self._losses(self.planted.module)
        generator = torch.Generator().manual_seed(self.planted.seed)
        return np.array([self._rank(int(index), generator) for index in self.planted.copied[:queries]])

    def _rank(self, index: int, generator: torch.Generator) -> int:
        image, label = self.planted.x[index], torch.tensor([int(self.planted.y[index])] * 2)
        moved, loss = self._step(image, label)
        if self.nearby and loss < SATURATED:
            radius = RADIUS
            for _ in range(TRIES):
                noise = torch.randn(image.shape, generator=generator)
                moved, loss = self._step(image + radius * noise / noise.norm(), label)
                if loss >= ACCEPTED:
                    break
                radius *= GROWTH
        score = (self._losses(moved) - self._before).abs()
        return int((score >= score[index]).sum()) if bool(score.isfinite().all()) else len(score)

    def _step(self, image: Tensor, labels: Tensor) -> tuple[nn.Module, float]:
        """Move a copy of the network; return it with the loss before the step."""
        moved = copy.deepcopy(self.planted.module).train()
        optimizer = torch.optim.Adam(moved.parameters(), lr=RATE, maximize=True)
        loss = F.cross_entropy(moved(image.expand(2, *image.shape)), labels)
        loss.backward()
        optimizer.step()
        return moved, float(loss.detach())

    def _losses(self, module: nn.Module) -> Tensor:
        """Losses of the training samples in eval mode, fp64."""
        module.eval()
        with torch.no_grad():
            logits = torch.cat([module(part) for part in self.planted.x.split(256)]).double()
        return F.cross_entropy(logits, torch.from_numpy(self.planted.y), reduction="none")
