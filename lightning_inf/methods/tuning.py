"""Choosing a method's values on planted truth: training samples that stand in as references must find themselves."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from lightning_inf.methods.method import Method
from lightning_inf.methods.trial import Trial
from lightning_inf.metrics.functional import target_rank, wilson_interval

#: How many training samples stand in as references, and how many of them every candidate is tried on.
STAND_INS = 32
FIRST = 8

#: A hit rate that chance gives more often than this, in any of the candidates, is no evidence.
_ERROR = 0.05


@dataclass
class Cell:
    """What became of one candidate.

    Attributes:
        place: Among the candidates, the first being the best where all else is equal.
        values: Of the method's arguments.
        method: The method with these values.
        ranks: Of each stand-in in its own list, 1 is the first; infinite where the method has nothing to say.
    """

    place: int
    values: Mapping[str, Any]
    method: Method
    ranks: list[float] = field(default_factory=list)

    @property
    def hit_rate(self) -> float:
        """The share of the stand-ins that came first."""
        return float(np.mean(np.asarray(self.ranks) == 1))

    @property
    def reciprocal_rank(self) -> float:
        """Mean reciprocal rank."""
        return float(np.mean(1 / np.asarray(self.ranks)))

    def describe(self) -> dict[str, Any]:
        """Plain values for the summary."""
        found = {"stand_ins": len(self.ranks), "hit_rate": self.hit_rate}
        return {**self.values, **found, "mean_reciprocal_rank": self.reciprocal_rank}


def rounds(candidates: int, stand_ins: int) -> list[tuple[int, int]]:
    """Plan successive halving: twice the stand-ins for the better third of the candidates.

    Args:
        candidates: How many there are.
        stand_ins: On how many the last ones are tried.

    Returns:
        Candidates and stand-ins, in total, of each round.

    Example:
        >>> rounds(24, 32)
        [(24, 8), (8, 16), (3, 32)]
    """
    asked = min(FIRST, stand_ins)
    found = [(candidates, asked)]
    while asked < stand_ins:
        candidates, asked = -(-candidates // 3), min(2 * asked, stand_ins)
        found.append((candidates, asked))
    return found


def trials(candidates: int, stand_ins: int) -> int:
    """How often the part of the training samples is scored."""
    asked, total = 0, 0
    for kept, until in rounds(candidates, stand_ins):
        total += kept * (until - asked)
        asked = until
    return total


def tune(method: Method, trial: Trial, stand_ins: int = STAND_INS) -> dict[str, Any]:
    r"""Choose among a method's candidates the one with which most stand-ins find themselves.

    A training sample that is asked as a reference is its own duplicate in the training set: of all samples it has helped
    itself most (Ko et al., CVPR 2024, section 3). The candidate with the highest hit rate is taken,
    :math:`\frac{1}{m} \sum_j [\operatorname{rank}_j = 1]`; among equals the one with the highest mean reciprocal rank, then
    the first. Ties in a list count against the method. Candidates drop out by successive halving.

    Args:
        method: With candidates.
        trial: The samples among which the stand-ins are looked for.
        stand_ins: How many of them stand in.

    Returns:
        Plain values for summary and manifest: the ``values``, their ``hit_rate`` with a 95 % interval, what ``chance``
        gives, and the ``grid``.
    """
    began = time.perf_counter()
    own = trial.among_themselves()
    asked = min(stand_ins, len(own.indices))
    cells = [Cell(k, values, method.with_values(values)) for k, values in enumerate(method.candidates())]
    left = cells
    for kept, until in rounds(len(cells), asked):
        left = sorted(left, key=_quality)[:kept] if left[0].ranks else left
        for cell in left:
            cell.ranks += [_rank(cell.method, own, place) for place in range(len(cell.ranks), until)]
    best = min(left, key=_quality)
    hits = round(best.hit_rate * asked)
    return {
        "values": dict(best.values),
        "hit_rate": best.hit_rate,
        "hit_rate_interval": [float(bound) for bound in wilson_interval(hits, asked)],
        "mean_reciprocal_rank": best.reciprocal_rank,
        "stand_ins": asked,
        "pool": len(own.indices),
        "chance": 1 / len(own.indices),
        "better_than_chance": by_chance(hits, asked, len(own.indices)) * len(cells) < _ERROR,
        "without_direction": sum(math.isinf(rank) for rank in best.ranks),
        "limited": False,
        "seconds": round(time.perf_counter() - began, 3),
        "grid": [cell.describe() for cell in cells],
    }


def _quality(cell: Cell) -> tuple[float, float, int]:
    """Sort by hit rate, then by mean reciprocal rank, then by place."""
    return -cell.hit_rate, -cell.reciprocal_rank, cell.place


def _rank(method: Method, trial: Trial, place: int) -> float:
    """Let the sample at a place of the pool look for itself."""
    scores = trial.scores(method, trial.scene.references.alone(int(trial.indices[place])))
    if np.isnan(scores[place]):
        return math.inf
    found = torch.from_numpy(np.nan_to_num(scores, nan=-np.finfo(np.float64).max))
    return float(target_rank(found[None], torch.tensor([place])))


def by_chance(hits: int, asked: int, pool: int) -> float:
    """How probable so many hits or more are where every sample of the pool is as likely to come first.

    Example:
        >>> by_chance(0, 32, 1024), round(by_chance(1, 32, 1024), 3)
        (1.0, 0.031)
    """
    return sum(math.comb(asked, k) * pool**-k * (1 - 1 / pool) ** (asked - k) for k in range(hits, asked + 1))


def sentence(found: Mapping[str, Any]) -> str:
    """Say for the report what was chosen, and on which evidence."""
    shown = {name: f"{value:g}" if isinstance(value, float) else value for name, value in found["values"].items()}
    values = " and ".join(f"{name}={value}" for name, value in shown.items())
    hits = round(found["hit_rate"] * found["stand_ins"])
    text = (
        f"{values} of {len(found['grid'])} candidates chosen on planted truth: {hits} of {found['stand_ins']} training"
        f" samples, each as the reference, came first among {found['pool']:,} ({found['hit_rate']:.0%})."
    )
    if not found["better_than_chance"]:
        text += " That is no better than chance: no step makes training samples find themselves, and the choice means little."
    if found["limited"]:
        text += " The budget did not allow for more stand-ins or a larger part of the training set."
    if found["without_direction"]:
        text += f" {found['without_direction']} of them have no direction."
    return text


def with_chosen(methods: Sequence[Method], found: Mapping[str, Mapping[str, Any]]) -> list[Method]:
    """Give methods the values that were chosen for them, by name."""
    return [m.with_values(found[m.name]["values"]) if m.name in found else m for m in methods]
