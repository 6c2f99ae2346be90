"""What is asked: the same of every tool."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

#: ``forward_inf``: losses after an ascent minus losses before; ``tracin``: gradient products; ``self_influence``: squared
#: gradients; ``head``: gradient products of the last linear layer's weight; ``one_sided``: gradient products from one
#: displaced forward pass each, beside the losses that it is subtracted from.
Kind = Literal["forward_inf", "tracin", "self_influence", "head", "one_sided"]


@dataclass(frozen=True)
class Question:
    """What is asked about every training sample.

    Attributes:
        kind: Of scores.
        checkpoints: The first so many.
        references: The first so many, each alone; a single sample each.
    """

    kind: Kind
    checkpoints: int = 1
    references: int = 0
