"""Random numbers that belong to samples: counter-based streams, and batches that carry their samples' keys.

A number is a function of the run's seed, the side of the data, the sample's index, the draw, and its place in the step.
It depends on no generator's state, so that it is the same in every batch, chunk and process, at every checkpoint and at
every displacement of the weights (common random numbers), and it is made of plain operations on tensors, which ``vmap``
takes. The streams are SplitMix64's (Steele et al., OOPSLA 2014), one a sample, draw and call.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import register_pytree_node

#: Raise it when the numbers change: what was computed with the old ones then doesn't count.
STREAMS_VERSION = 1

#: Over how many draws a sample's loss is averaged unless the user says otherwise.
DRAWS = 8

_GOLDEN = 0x9E3779B97F4A7C15
_FIRST, _SECOND = 0xBF58476D1CE4E5B9, 0x94D049BB133111EB
_WORD = (1 << 64) - 1


@dataclass(frozen=True)
class Keys:
    """Whose numbers they are.

    Args:
        seed: The run's.
        side: Of the data; a training sample that stands in as a reference has other numbers than in its own place.
        shared: Give all samples of both sides the same numbers.

    Example:
        >>> keys = Keys(seed=0, side="training")
        >>> bool((keys.of([4, 7]) == keys.of([7, 4]).flip(0)).all())
        True
    """

    seed: int
    side: str
    shared: bool = False

    def of(self, indices: Sequence[int]) -> Tensor:
        """Make the keys of samples: int64 of shape ``(B,)``."""
        name = f"{self.seed}|everyone" if self.shared else f"{self.seed}|{self.side}"
        start = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")
        places = torch.tensor(list(indices), dtype=torch.int64)
        return _mixed(_signed(start) + _signed(_GOLDEN) * (torch.zeros_like(places) if self.shared else places + 1))


@dataclass
class Keyed:
    """A batch with the keys of its samples; its leaves are those of the batch, and the keys.

    Attributes:
        batch: What the dataloader yields, on the device.
        keys: Shape ``(B,)``, on the CPU or where the batch is.
    """

    batch: Any
    keys: Tensor


register_pytree_node(Keyed, lambda keyed: ([keyed.batch, keyed.keys], None), lambda leaves, _: Keyed(*leaves))


def bits(keys: Tensor, draw: int, call: int, count: int) -> Tensor:
    """Make the first ``count`` words of each sample's stream.

    Args:
        keys: Shape ``(B,)``.
        draw: Which draw of the sample's numbers.
        call: Which call of a random function of the step.
        count: How many words.

    Returns:
        Shape ``(B, count)``, int64, all 64 bits random.
    """
    place = _signed(_mixed_integer(((draw << 20) + call + 1) * _GOLDEN))
    start = _mixed(keys ^ place)
    steps = torch.arange(1, count + 1, dtype=torch.int64, device=keys.device) * _signed(_GOLDEN)
    return _mixed(start.unsqueeze(1) + steps)


def uniform(words: Tensor, dtype: torch.dtype) -> Tensor:
    """Turn words into numbers in [0, 1): 53 random bits in fp64, 24 in other types."""
    if dtype == torch.float64:
        return _top(words, 53).to(torch.float64) * 2.0**-53
    return _top(words, 24).to(torch.float32) * 2.0**-24


def normal(words: Tensor, dtype: torch.dtype) -> Tensor:
    """Turn words into standard normal numbers, by the inverse of the distribution function."""
    if dtype == torch.float64:
        centred = (2 * _top(words, 52) + 1 - (1 << 52)).to(torch.float64) * 2.0**-52
    else:
        centred = (2 * _top(words, 23) + 1 - (1 << 23)).to(torch.float32) * 2.0**-23
    return math.sqrt(2.0) * torch.erfinv(centred)


def _top(words: Tensor, count: int) -> Tensor:
    """The highest bits as a number that is not negative; ``>>`` alone keeps the sign."""
    return (words >> (64 - count)) & ((1 << count) - 1)


def _mixed(words: Tensor) -> Tensor:
    """SplitMix64's finaliser on int64, whose products wrap around."""
    words = (words ^ _shifted(words, 30)) * _signed(_FIRST)
    words = (words ^ _shifted(words, 27)) * _signed(_SECOND)
    return words ^ _shifted(words, 31)


def _shifted(words: Tensor, by: int) -> Tensor:
    return (words >> by) & ((1 << (64 - by)) - 1)


def _mixed_integer(word: int) -> int:
    """The same on a Python integer."""
    word &= _WORD
    word = (word ^ (word >> 30)) * _FIRST & _WORD
    word = (word ^ (word >> 27)) * _SECOND & _WORD
    return word ^ (word >> 31)


def _signed(word: int) -> int:
    """The int64 with the bits of an unsigned word."""
    word &= _WORD
    return word - (1 << 64) if word >> 63 else word
