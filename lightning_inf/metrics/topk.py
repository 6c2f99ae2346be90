"""Does each query find its planted duplicate among the k highest scored training samples?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lightning_inf.metrics.base import PooledMetric
from lightning_inf.metrics.functional.checks import normalize_k, require_integer, require_shape
from lightning_inf.metrics.functional.detection import target_rank
from lightning_inf.metrics.functional.intervals import wilson_interval


class TopKDetection(PooledMetric):
    r"""Hit rate at k, for leakage: a test sample planted in the training set should be its own top match.

    .. math::
        \mathrm{hit}@k = \frac{1}{Q} \sum_q \mathbf{1}[\operatorname{rank}_q \le k], \qquad
        \operatorname{rank}_q = \#\{i : s_i(q) \ge s_{t_q}(q)\}

    A target tied with other samples ranks behind all of them, so constant scores earn no hit. The interval is
    Wilson's (1927) at 95 % and takes the queries to be independent.

    ``compute`` returns a dict: ``hit_rate`` ``{k: number in [0, 1]}``, ``interval`` ``{k: [low, high]}`` and
    ``count``, the number of queries. Without queries each rate and interval is ``None``.

    Args:
        k: cut-offs.
        kwargs: passed to ``torchmetrics.Metric``.

    Raises:
        ValueError: a cut-off is not a positive whole number.

    Example:
        >>> metric = TopKDetection(k=[1, 2])
        >>> metric.update(torch.tensor([[0.1, 0.9, 0.5], [0.7, 0.3, 0.2]]), torch.tensor([2, 0]))
        >>> result = metric.compute()
        >>> result["hit_rate"], result["count"]
        ({1: 0.5, 2: 1.0}, 2)
        >>> [round(bound, 4) for bound in result["interval"][1]]
        [0.0945, 0.9055]
        >>> metric.update(rank=torch.tensor([3]))  # when the ranks are already known
        >>> metric.compute()["count"]
        3
    """

    higher_is_better: bool = True
    hits: Tensor
    count: Tensor

    def __init__(self, k: Sequence[int] = (1, 5, 10), **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.k = normalize_k(k)
        self.add_state("hits", default=torch.zeros(len(self.k), dtype=torch.long), dist_reduce_fx="sum")
        self.add_state("count", default=torch.zeros((), dtype=torch.long), dist_reduce_fx="sum")

    def update(self, scores: Tensor | None = None, target: Tensor | None = None, *, rank: Tensor | None = None) -> None:
        """Add a chunk of queries, either as scores with their targets or as ranks.

        Args:
            scores: higher = better match, shape ``(Q, n)``.
            target: column of the planted duplicate of each query, integer, shape ``(Q,)``.
            rank: rank of the planted duplicate, 1 = top, integer, shape ``(Q,)``.

        Raises:
            TypeError: ``target`` or ``rank`` is not an integer tensor.
            ValueError: both or neither form was given, a shape is wrong, a score is not finite, a target or rank is
                out of range, or there are fewer samples than the largest k, which would make a hit certain.
        """
        if rank is None:
            if scores is None or target is None:
                raise ValueError(
                    "Expected `scores` with `target`, or `rank`, found an incomplete pair. "
                    "Call update(scores, target) or update(rank=rank)."
                )
            require_shape(scores, (None, None), "scores")
            if scores.shape[1] < self.k[-1]:
                raise ValueError(
                    f"Expected at least {self.k[-1]} samples for hits at k={self.k[-1]}, found {scores.shape[1]}. "
                    f"Pass a smaller k to {type(self).__name__}."
                )
            rank = target_rank(scores, target)
        elif scores is not None or target is not None:
            raise ValueError(
                "Expected either `scores` with `target` or `rank`, found both. Drop `rank` to have it computed."
            )
        require_shape(rank, (None,), "rank")
        require_integer(rank, "rank")
        if bool((rank < 1).any()):
            raise ValueError(f"Expected ranks from 1, the top, found {int(rank.min())}. Add 1 if yours start at 0.")
        rank = rank.to(self.hits.device)
        cuts = torch.tensor(self.k, device=rank.device)
        self.hits = self.hits + (rank.unsqueeze(1) <= cuts).sum(dim=0)
        self.count = self.count + rank.numel()

    def compute(self) -> dict[str, Any]:
        """Evaluate all queries given so far; the class describes the result."""
        count = int(self.count)
        hits = dict(zip(self.k, self.hits.tolist(), strict=True))
        return {
            "hit_rate": {k: hit / count if count else None for k, hit in hits.items()},
            "interval": {k: list(wilson_interval(hit, count)) if count else None for k, hit in hits.items()},
            "count": count,
        }
