"""What a model that learnt several exemplars is asked about: pictures it draws, of which it is plain what they came of."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from examples.diffusion.model import Diffusion
from examples.diffusion.sizes import Sizes


@dataclass(frozen=True)
class Questions:
    """Drawn pictures, each of another exemplar.

    Attributes:
        pictures: Shape ``(Q, 1, 16, 16)``.
        right: Which exemplar each came of.
        margins: How far each is from that exemplar, in units of how far it is from the next.
    """

    pictures: Tensor
    right: list[int]
    margins: list[float]


def questions(drawn: Tensor, exemplars: Tensor, margin: float) -> Questions:
    """Take the first picture of each exemplar; an exemplar of which none was drawn is not asked about.

    Args:
        drawn: Shape ``(n, 1, 16, 16)``.
        exemplars: Shape ``(E, 1, 16, 16)``, two at least.
        margin: The most that a picture's distance from its exemplar is of that from the next one.
    """
    distances = torch.cdist(drawn.flatten(1), exemplars.flatten(1))
    two = distances.topk(2, largest=False)
    ratios, nearest = two.values[:, 0] / two.values[:, 1], two.indices[:, 0]
    first = [
        int(of_it[0])
        for exemplar in range(len(exemplars))
        if len(of_it := ((nearest == exemplar) & (ratios <= margin)).nonzero().flatten())
    ]
    return Questions(drawn[first], nearest[first].tolist(), ratios[first].tolist())


def asked(model: Diffusion, exemplars: Tensor, sizes: Sizes, rounds: int = 1) -> Questions:
    """Let the model draw, again while an exemplar has no picture and there are rounds left."""
    drawn: list[Tensor] = []
    for seed in range(rounds):
        drawn.append(model.draw(sizes.drawn, seed))
        found = questions(torch.cat(drawn), exemplars, sizes.margin)
        if len(found.right) == len(exemplars):
            break
    return found
